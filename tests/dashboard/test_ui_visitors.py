"""A dashboard that others reach: what they may do, what a page of another site may do, how much
work they may set off, what errors tell them.
"""

import http.client
import json
import os
import subprocess
import sys
import threading
from contextlib import ExitStack, closing
from itertools import product

import psutil
import pytest
import streamlit as st
from streamlit.runtime.scriptrunner import StopException
from support.browser import ROOT, Server, wait_for
from support.elements import healthy, opened, texts
from support.run_folders import finished
from support.visitor import Visitor
from websockets.sync.client import connect

from lab.config.methods import make_config
from lab.dashboard.pages.train import upload
from lab.dashboard.state import actions, error_text, run_cache, visitor_processes
from lab.errors import LabError
from lab.runs import queue, trash
from lab.runs.folder import RunFolder, create
from lab.runs.fork import RECORDINGS_FOLDER
from lab.runs.records import Event, StepRecord
from lab.storage.jsonl import append_rows

GOOD = b'{"prompt": "1+2*3=", "chosen": "9", "rejected": "7"}\n'


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("LAB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(
        "lab.dashboard.components.live_chart.live_chart_element", lambda **data: None
    )
    monkeypatch.setattr(queue, "spawn_worker", lambda root: None)
    (tmp_path / "runs").mkdir()
    return tmp_path / "runs"


@pytest.fixture
def listen(monkeypatch):
    """Let the dashboard believe that it was started on an address, with these arguments."""
    known = st.get_option

    def set_to(address, *arguments):
        monkeypatch.setattr(
            st, "get_option", lambda name: address if name == "server.address" else known(name)
        )
        monkeypatch.setattr(sys, "argv", ["app.py", *arguments])

    return set_to


# --- who may act
# --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address, alone",
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("[::1]", True),
        (None, False),
        ("", False),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.0.7", False),
        ("example.org", False),
        ("localhost.example.org", False),
        ("127.0.0.1.example.org", False),
    ],
)
def test_only_localhost_may_act_unless_visitors_are_allowed(listen, address, alone):
    listen(address)
    assert actions.listens_on_localhost() is alone and bool(actions.refusal()) is not alone
    listen(address, actions.ALLOW_FLAG)
    assert actions.refusal() == "" and bool(actions.access_notice()) is not alone


def everything(root):
    return sorted(
        (str(path), path.read_bytes() if path.is_file() else b"") for path in root.rglob("*")
    )


def test_where_others_reach_it_no_act_touches_anything(root, listen):
    finished(root, "done")
    trains = create(root / "trains", make_config("grpo"))
    trains.write_status("running", 0)
    create(root / "waits", make_config("grpo"), "queued")
    trash.discard(root, finished(root, "gone").name)
    listen("0.0.0.0")
    before = everything(root)
    for act in (
        lambda: actions.start_runs(root, "grpo", [{}]),
        lambda: actions.send_command(run_cache.RunRecord(trains), "set", "beta", 0.5),
        lambda: actions.send_command(run_cache.RunRecord(trains), "stop"),
        lambda: actions.cancel_queued_runs(root, ["waits"]),
        lambda: actions.restore_runs(root, ["gone"]),
        lambda: actions.delete_run(root, "done"),
        lambda: actions.fork_run(root, RECORDINGS_FOLDER / "dpo", 25, {"beta": 0.5}, 10),
        lambda: actions.start_twin(RECORDINGS_FOLDER / "dpo", run_cache.RunRecord(trains), 5),
        lambda: actions.withdraw_run(root, "waits"),
        lambda: upload.store_upload(root, GOOD, "a.jsonl", "dpo"),
    ):
        with pytest.raises(LabError, match="it is read-only.*--allow-visitors"):
            act()
    actions.ensure_queue_worker(root)
    assert everything(root) == before


def test_where_others_reach_it_the_pages_offer_no_act_and_say_why(root, listen):
    finished(root, "done")
    create(root / "trains", make_config("grpo")).write_status("running", 0)
    create(root / "waits", make_config("grpo"), "queued")
    listen(None)
    for page, query in (
        ("train", {}),
        ("train", {"run": "trains", "method": "dpo"}),
        ("train", {"run": "waits"}),
        ("runs", {"run": "done"}),
    ):
        app = opened(page, **query)
        assert "it is read-only" in texts(app, "markdown", "caption")
        assert {b.key for b in app.button if not b.proto.disabled} == set()
        assert (
            not app.get("file_uploader")
            and not [s for s in app.select_slider if "live" in s.key]
            and not app.text_input(key="search").proto.disabled
            if page == "runs"
            else not app.get("text_input")
        )


def test_no_page_acts_past_the_one_place_that_decides():
    doors = (
        "enqueue",
        "cancel(root",
        "advance(root",
        "withdraw(root",
        "STANDBY",
        "spawn_worker(root",
        "ensure_worker(root",
        "discard(root",
        "restore(root",
        ".send(",
        "Popen",
        "launch(",
        "replace(path",
        "unlink",
        "rmtree",
    )
    found = {
        (path.name, door)
        for path in (ROOT / "lab" / "dashboard").rglob("*.py")
        for door in doors
        if door in path.read_text("utf-8")
    }
    allowed = {("actions.py", door) for door in doors} | {
        ("upload.py", "replace(path"),
        ("visitor_processes.py", "Popen"),
        ("inference_client.py", "Popen"),
        ("live_controls.py", ".send("),
        ("queue_banner.py", "ensure_worker(root"),
    }
    assert found <= allowed


def asked(server, method, path, headers=None):
    """Status, headers and body of one answer of the server."""
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)) as connection:
        connection.request(method, path, b"x" if method == "PUT" else None, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()


@pytest.fixture
def reachable(tmp_path):
    """Start the dashboard for all addresses of this machine; it is visited by 127.0.0.1 alone."""
    servers = []

    def start(*arguments):
        servers.append(
            Server(
                tmp_path / "runs",
                "--server.address",
                "0.0.0.0",
                "--logger.hideWelcomeMessage",
                "true",
                *arguments,
            )
        )
        return servers[-1]

    yield start
    for server in servers:
        server.kill()


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "arguments, says",
    [
        ((), "so it is read-only"),
        (
            ("--", "--allow-visitors"),
            "everybody who opens it can start, change, stop and delete runs",
        ),
    ],
)
def test_the_terminal_and_the_page_say_who_may_do_what_and_uploads_go_with_it(
    reachable, arguments, says
):
    server = reachable(*arguments)
    wait_for(lambda: says in server.said())
    where = f"127.0.0.1:{server.port}"
    with connect(
        f"ws://{where}/_stcore/stream",
        subprotocols=["streamlit"],
        max_size=None,
        origin=f"http://{where}",
    ) as socket:
        assert any(says in text for text in Visitor(socket, "").texts)
    assert (b"it is read-only" in asked(server, "PUT", "/_stcore/upload_file/session/file")[2]) is (
        arguments == ()
    )


def test_an_argument_that_the_dashboard_does_not_know_ends_it():
    command = [
        sys.executable,
        "-m",
        "streamlit",
        "run",
        "app.py",
        "--server.port",
        "0",
        "--server.headless",
        "true",
        "--",
        "--allow-visitor",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode and "does not know '--allow-visitor'" in done.stderr


# --- pages of other sites
# -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host, origin, status",
    [
        ("localhost:{port}", "http://localhost:{port}", 101),
        ("127.0.0.1:{port}", "http://127.0.0.1:{port}", 101),
        ("localhost:{port}", None, 101),
        ("localhost:{port}", "http://localhost:{other}", 403),
        ("localhost:{port}", "http://127.0.0.1:{port}", 403),
        ("localhost:{port}", "http://localhost", 403),
        ("localhost:{port}", "null", 403),
        ("localhost:{port}", "http://example.org", 403),
        ("localhost:{port}", "http://localhost:{port}.example.org", 403),
        ("example.org:{port}", "http://example.org:{port}", 403),
        ("localhost.example.org", "http://localhost.example.org", 403),
    ],
)
def test_a_websocket_comes_from_the_dashboard_itself_or_not_at_all(server, host, origin, status):
    ports = {"port": server.port, "other": server.port + 1}
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)) as connection:
        connection.putrequest("GET", "/_stcore/stream", skip_host=True)
        for name, value in {
            "Host": host,
            "Origin": origin,
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Protocol": "streamlit",
        }.items():
            if value:
                connection.putheader(name, value.format(**ports))
        connection.endheaders()
        assert connection.getresponse().status == status


@pytest.mark.parametrize("path", ["/", "/runs", "/_stcore/health", "/app/static/icon.svg"])
def test_nobody_else_frames_the_dashboard(server, path):
    status, headers, _ = asked(server, "GET", path)
    assert (status, headers["Content-Security-Policy"], headers["X-Frame-Options"]) == (
        200,
        "frame-ancestors 'self'",
        "SAMEORIGIN",
    )


def test_a_foreign_name_for_this_machine_is_no_way_in(server):
    status, _, body = asked(server, "GET", "/", {"Host": f"rebound.example.org:{server.port}"})
    assert status == 403 and b"served on localhost only" in body


# --- what visitors set off
# ----------------------------------------------------------------------------------------------

SLEEPER = [sys.executable, "-c", "import time; time.sleep(600)"]


def sleepers():
    return [
        process
        for process in psutil.Process().children(recursive=True)
        if "time.sleep(600)" in " ".join(_words(process))
    ]


def _words(process):
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@pytest.fixture
def leaving(monkeypatch):
    """Processes for sessions that stay until the event of theirs is set; and their threads."""

    class Spot:
        def __init__(self):
            self.gone = leave.get(threading.current_thread().name)

        def empty(self):
            if self.gone.is_set():
                raise StopException

        caption = lambda self, text: self.empty()  # noqa: E731

    leave, threads = {}, []
    monkeypatch.setattr(visitor_processes.st, "empty", Spot)

    def visit(name):
        def work():
            try:
                visitor_processes.run_for_visitor(name, SLEEPER, 300, "…")
            except StopException:
                pass

        leave[name] = threading.Event()
        threads.append(threading.Thread(target=work, name=name))
        threads[-1].start()
        return leave[name]

    yield visit
    for event in leave.values():
        event.set()
    for thread in threads:
        thread.join()
    visitor_processes.clear_cached_results()


def test_two_processes_run_at_a_time_and_each_ends_with_its_visitor(leaving):
    visitors = [leaving(f"visitor {i}") for i in range(5)]
    wait_for(lambda: len(sleepers()) == visitor_processes.MAX_PROCESSES)
    for left, gone in ((4, visitors[4]), (3, visitors[0]), (2, visitors[1])):
        gone.set()
        wait_for(lambda: len(sleepers()) == visitor_processes.MAX_PROCESSES)
        assert len([v for v in visitors if not v.is_set()]) == left
    for visitor in visitors:
        visitor.set()
    wait_for(lambda: not sleepers())


@pytest.mark.timeout(600)
def test_eight_tabs_that_ask_for_an_estimate_start_two_processes_and_leave_none(own_server):
    """Each tab asks for another estimate, in its address."""

    def estimators():
        return [
            p
            for p in psutil.Process(own_server.process.pid).children(recursive=True)
            if "estimate" in _words(p)
        ]

    where = f"ws://localhost:{own_server.port}/_stcore/stream"
    how = {
        "subprotocols": ["streamlit"],
        "max_size": None,
        "origin": own_server.url,
        "close_timeout": 0.2,
    }
    with connect(where, **how) as first:
        page = Visitor(first, "").pages["evidence"]
    with ExitStack() as tabs:
        for batch, group in product((32, 64), (2, 4, 8, 16)):
            Visitor.asks(
                tabs.enter_context(connect(where, **how)),
                page,
                f"show=Memory&estimate=yes&model=7b&group_size={group}&batch_size={batch}",
            )
        wait_for(lambda: len(estimators()) == 2)
        assert max(len(estimators()) for _ in range(50)) == 2
    wait_for(lambda: not estimators())


def test_a_process_is_run_once_for_what_it_answers(monkeypatch):
    visitor_processes.clear_cached_results()
    command = [sys.executable, "-c", "import time; print(time.monotonic_ns())"]
    first, again, other = (
        visitor_processes.run_for_visitor(key, command, 60, "…").stdout for key in ("a", "a", "b")
    )
    assert first == again != other
    with pytest.raises(LabError, match="took more than 0.1 s"):
        visitor_processes.run_for_visitor("slow", SLEEPER, 0.1, "…")
    assert not sleepers()
    visitor_processes.clear_cached_results()


# --- limits
# -------------------------------------------------------------------------------------------------------------


def test_uploads_have_a_size_a_count_and_a_total(root, monkeypatch):
    monkeypatch.setattr(upload, "MAX_FILE_BYTES", 200)
    with pytest.raises(
        LabError, match="may have at most 0 MiB. Use the file from the command line"
    ):
        upload.store_upload(root, GOOD * 10, "a.jsonl", "dpo")
    monkeypatch.setattr(upload, "MAX_UPLOADS", 2)
    for n in (1, 2, 1):
        upload.store_upload(root, GOOD * n, "a.jsonl", "dpo")
    with pytest.raises(LabError, match="holds 2 uploads with 0 MiB. It may hold at most 2"):
        upload.store_upload(root, GOOD * 3, "a.jsonl", "dpo")
    monkeypatch.setattr(upload, "MAX_UPLOADS", 100)
    monkeypatch.setattr(upload, "MAX_UPLOADS_BYTES", 5 * len(GOOD))
    with pytest.raises(LabError, match="Delete those that no run needs"):
        upload.store_upload(root, GOOD * 3, "a.jsonl", "dpo")
    assert len(list((root / upload.UPLOADS_FOLDER).iterdir())) == 2


def test_a_full_queue_a_full_trash_and_a_full_disk_say_so_and_keep_what_is_there(root, monkeypatch):
    monkeypatch.setattr(queue, "max_running", lambda: 0)
    monkeypatch.setattr(queue, "MAX_WAITING_RUNS", 3)
    actions.start_runs(root, "grpo", [{}, {}])
    with pytest.raises(
        LabError, match="2 runs wait already, and the queue takes at most 3; 2 more do not fit"
    ):
        actions.start_runs(root, "grpo", [{}, {}])
    monkeypatch.setattr(trash, "MAX_TRASHED_RUNS", 1)
    assert actions.cancel_queued_runs(root, ["grpo-2"]) == ["grpo-2"]
    with pytest.raises(LabError, match="holds 1 runs, and takes at most 1"):
        actions.cancel_queued_runs(root, ["grpo-1"])
    assert RunFolder(root / "grpo-1").state == "queued"
    monkeypatch.setattr("lab.storage.paths.MIN_FREE_BYTES", 2**80)
    with pytest.raises(LabError, match="MiB left, and a run or an upload needs"):
        actions.start_runs(root, "grpo", [{}])
    with pytest.raises(LabError, match="MiB left"):
        upload.store_upload(root, GOOD, "a.jsonl", "dpo")
    assert [run.name for run in queue.waiting_runs(root)] == ["grpo-1"]


def test_a_run_that_is_put_back_waits_in_its_old_place(root, monkeypatch):
    monkeypatch.setattr(queue, "max_running", lambda: 0)
    actions.start_runs(root, "grpo", [{"seed": seed} for seed in range(3)])
    places = actions.cancel_queued_runs(root, ["grpo-1", "grpo-2"])
    actions.start_runs(root, "grpo", [{"seed": 7}])
    names = actions.restore_runs(root, places)
    assert [(run.name, run.config.seed) for run in queue.waiting_runs(root)] == [
        (names[0], 0),
        (names[1], 1),
        ("grpo-3", 2),
        ("grpo-1", 7),
    ]


# --- what errors tell
# ---------------------------------------------------------------------------------------------------

SECRET = "sesame,open,treasure"


def failed(root, step=0, began=0, **knobs):
    folder = create(root / "run", make_config("dpo", knobs))
    rows = [
        Event(began, "resumed" if began else "started").row(),
        StepRecord(0, {"loss": 0.5}, 1.0, 1).row(),
    ]
    rows += [StepRecord(i, {"loss": 0.5}, 1.0, 1).row() for i in range(1, step + 1)]
    append_rows(
        folder.path / "metrics.jsonl", [*rows, Event(step, "failed", {"message": SECRET}).row()]
    )
    folder.write_status("failed", step, SECRET)
    return folder


def said_of(root):
    return texts(opened("train", run="run"), "error").replace("\\", "")


@pytest.mark.parametrize("knob", ["data", "model"])
@pytest.mark.parametrize("form", ["plain", "link", "dots", "home"])
def test_a_file_outside_of_uploads_and_runs_is_not_quoted(root, tmp_path, monkeypatch, knob, form):
    monkeypatch.setenv("HOME", str(tmp_path))
    secret = tmp_path / "secret.csv"
    secret.write_text(SECRET)
    (root / "link.csv").symlink_to(secret)
    given = {
        "plain": str(secret),
        "link": str(root / "link.csv"),
        "dots": f"{root}/../secret.csv",
        "home": "~/secret.csv",
    }[form]
    failed(root, **{knob: given})
    named = (
        os.path.abspath(given) if form == "dots" and knob == "data" else given
    )  # A run keeps where its data lie.
    assert "sesame" not in said_of(root) and named in said_of(root) and "log.txt" in said_of(root)


@pytest.mark.parametrize(
    "step, began, quoted", [(0, 0, False), (3, 0, True), (3, 3, False), (4, 3, True)]
)
def test_a_run_that_fails_in_its_updates_says_why_whatever_it_learns_from(
    root, tmp_path, step, began, quoted
):
    (tmp_path / "own.csv").write_text(SECRET)
    failed(root, step, began, data=str(tmp_path / "own.csv"))
    assert (SECRET in said_of(root)) is quoted


@pytest.mark.parametrize(
    "data", [".uploads/a.csv", "", "no/such/file.csv", "x" * 5000, "~nobody-of-that-name/x", "a\0b"]
)
def test_an_upload_a_file_that_is_not_there_and_the_shipped_data_are_quoted(root, data):
    (root / ".uploads").mkdir()
    (root / ".uploads" / "a.csv").write_text(SECRET)
    assert (
        error_text.visible_error(
            SECRET,
            {
                "data": str(root / data) if data.startswith(".") else data,
                "model": "embedded",
                "task": "chain",
            },
        )
        == SECRET
    )


def test_a_report_on_an_upload_quotes_no_model_outside(root, tmp_path, monkeypatch):
    monkeypatch.setattr(
        visitor_processes,
        "_run_watched",
        lambda words, *rest: subprocess.CompletedProcess(words, 2, "", SECRET),
    )
    visitor_processes.clear_cached_results()
    assert upload.file_report(GOOD, "a.jsonl", "some/hub-model", 128) == SECRET
    assert "sesame" not in upload.file_report(GOOD, "a.jsonl", str(tmp_path), 128)
    visitor_processes.clear_cached_results()


@pytest.mark.timeout(600)
def test_a_path_that_is_typed_into_data_shows_nothing_of_the_file(root, tmp_path):
    """The whole way: the form, the queue, the training process, the page."""
    secret = tmp_path / "secret.csv"
    secret.write_text(f"{SECRET}\nbehind,the,rock\n")
    app = opened("train", method="dpo", steps="1")
    app.toggle(key="all-knobs").set_value(True).run()
    app.text_input(key="dpo.data").set_value(str(secret)).run()
    healthy(app.button(key="start").click().run())
    folder = RunFolder(root / "dpo-1")
    wait_for(lambda: folder.state == "failed", 120)
    assert (
        "sesame" in json.dumps(folder.status())
        and "sesame" in (folder.path / "log.txt").read_text()
    ), "the owner of the machine can read why"
    healthy(app.run())
    everything_said = "".join(str(element.proto) for element in app.main).replace("\\", "")
    assert "sesame" not in everything_said and "log.txt" in everything_said
    assert os.path.exists(secret)
