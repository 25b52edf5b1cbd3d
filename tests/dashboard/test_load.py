"""The load test comes to a verdict, also when the server no longer answers."""

import os
import threading
from types import SimpleNamespace

import pytest
from load import Load, report
from websockets.sync.server import serve


@pytest.fixture
def mute_server():
    """A server that sends its page and accepts sessions, and never answers one."""
    asked = threading.Event()

    def hear(connection):
        connection.recv()
        asked.set()
        for _ in connection:
            pass

    def page(connection, request):
        return connection.respond(200, "<html>") if request.path == "/" else None

    with serve(hear, "localhost", 0, process_request=page, subprotocols=["streamlit"]) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.socket.getsockname()[1]
        yield SimpleNamespace(
            port=port,
            url=f"http://localhost:{port}",
            process=SimpleNamespace(pid=os.getpid()),
            asked=asked,
        )
        server.shutdown()


def test_sessions_without_an_answer_are_errors_of_the_verdict(mute_server, capsys):
    load = Load(mute_server, [], 2, 0.5, first_page=True)
    load.run(patience=0.5)
    wrong = report(load)
    assert mute_server.asked.is_set()
    assert load.errors == [f"session {i}: no answer after the time" for i in range(2)]
    assert "2 errors" in wrong[0]
    assert wrong[-1] == "2 sessions never saw their first page"
    assert "errors: 2; commands: 0" in capsys.readouterr().out


def test_the_verdict_names_slow_answers_and_memory_that_grows(capsys):
    load = Load(SimpleNamespace(), [], 3, 30.0, first_page=True)
    load.first, load.pages = [0.5, 0.6, 0.7], [0.1] * 20
    load.memory = [(float(at), 400 * 2**20, 0) for at in range(30)]
    assert report(load) == []
    load.pages = [0.1] * 15 + [4.0] * 5
    load.memory = [(float(at), (400 + 10 * at) * 2**20, 0) for at in range(30)]
    wrong = report(load)
    assert wrong[0].startswith("95 % of further pages took up to 4.0 s")
    # medians of the seconds 10 to 19 and 20 to 29
    assert wrong[1] == "memory grew from 545 to 645 MiB"
    assert len(wrong) == 2
    assert "further pages: 20, median 0.10 s" in capsys.readouterr().out
