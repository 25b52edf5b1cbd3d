"""Ten sessions on one real server at the same time. A visitor here speaks the browser's protocol
without a browser, which costs a hundredth of one.
"""

import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import psutil
import pytest
from support.browser import ROOT, running
from support.visitor import Visitor, resting, sent
from websockets.sync.client import connect

VISITORS = 10


@pytest.mark.timeout(600)
def test_ten_sessions_at_once_see_each_their_own_run_and_steer_it_alone(own_server, trainer):
    server = own_server
    folders = [running(server.runs, f"run-{i}", trainer) for i in range(VISITORS)]
    began = time.monotonic()
    with ExitStack() as stack, ThreadPoolExecutor(VISITORS) as pool:
        where, how = (
            f"ws://localhost:{server.port}/_stcore/stream",
            {"subprotocols": ["streamlit"], "max_size": None, "origin": server.url},
        )
        sockets = [stack.enter_context(connect(where, **how)) for _ in folders]
        visitors = list(pool.map(lambda i: Visitor(sockets[i], f"run=run-{i}"), range(VISITORS)))
        print(f"{VISITORS} pages at once: {time.monotonic() - began:.1f} s")
        for i, visitor in enumerate(visitors):
            own = [text for text in visitor.texts if f"`run-{i}`" in text]
            others = [
                text
                for text in visitor.texts
                for j in range(VISITORS)
                if j != i and f"run-{j}" in text
            ]
            assert own and not others and visitor.fragments

        def steer(i):
            visitor = visitors[i]
            tick, slider = next(iter(visitor.fragments)), visitor.slider
            for _ in range(5):
                visitor.rerun(tick)
            if i in (3, 7):
                visitor.rerun(tick, **{slider.id: [slider.options[i]]})
            for _ in range(5):
                visitor.rerun(tick)

        list(pool.map(steer, range(VISITORS)))
    assert [len(sent(folder)) for folder in folders] == [0, 0, 0, 1, 0, 0, 0, 1, 0, 0]
    assert [
        (row["action"], row["knob"], f"{row['value']:g}")
        for i in (3, 7)
        for row in sent(folders[i])
    ] == [("set", "beta", visitors[i].slider.options[i]) for i in (3, 7)]
    assert [visitor.exceptions for visitor in visitors] == [[]] * VISITORS


@pytest.fixture
def visit(own_server):
    """Open the Train page at an address, each time in a session of its own."""
    with ExitStack() as stack:
        where, how = (
            f"ws://localhost:{own_server.port}/_stcore/stream",
            {"subprotocols": ["streamlit"], "max_size": None, "origin": own_server.url},
        )
        yield lambda query: Visitor(stack.enter_context(connect(where, **how)), query)


def test_a_page_that_is_left_and_come_back_to_steers_nothing(own_server, trainer, visit):
    """A slow browser still reports the sliders of a page that it has left: the server has forgotten
    them and takes each for one that has moved.
    """
    folders = [running(own_server.runs, name, trainer) for name in ("a", "b")]
    visitors = [visit("run=a&run=b&focus=a"), visit("run=a&run=b&focus=b")]
    for visitor in visitors:
        sliders = visitor.sliders
        assert {"β", "learning rate"} <= set(sliders)
        for _ in range(3):
            visitor.rerun(page="runs", **resting(sliders))
            visitor.rerun(page="", **resting(sliders))
    assert [sent(folder) for folder in folders] == [[], []]


def test_the_server_listens_on_this_machine_only_and_takes_small_files_only(server):
    listening = [
        c.laddr.ip
        for c in psutil.Process(server.process.pid).net_connections()
        if c.status == psutil.CONN_LISTEN
    ]
    assert listening and set(listening) <= {"127.0.0.1", "::1"}
    told = tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text())
    assert (
        told["server"]["address"] == "localhost"
        and told["server"]["maxUploadSize"] <= 50
        and told["runner"]["postScriptGC"] is False
    )
