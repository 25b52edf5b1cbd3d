"""Ten sessions on one real server at the same time. A visitor here speaks the browser's protocol without a browser, which costs a hundredth of one."""

import json
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import psutil
import pytest
from browser import ROOT, running
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.sync.client import connect

VISITORS = 10


class Visitor:
    """A session: the texts and the live sliders of the last run of its script, and every exception that it was shown."""

    def __init__(self, socket, query):
        self.socket, self.query, self.fragments, self.exceptions, self.cached, self.pages = socket, query, {}, [], {}, {}
        self.rerun()

    def rerun(self, fragment="", page=None, **widgets):
        """Run the script, or a fragment as a tick does, or go back to a page; `widgets` maps an element's id to the texts that it holds."""
        self.send(fragment, page, **widgets)
        self.read()

    @staticmethod
    def asks(socket, page_hash, query):
        """Open a page at an address and leave what comes unread."""
        message = BackMsg()
        message.rerun_script.query_string, message.rerun_script.page_script_hash = query, page_hash
        socket.send(message.SerializeToString())

    def send(self, fragment="", page=None, **widgets):
        """Ask for a run without waiting for it."""
        message = BackMsg()
        self.fragments = self.fragments if fragment else {}
        message.rerun_script.page_script_hash, message.rerun_script.is_history_navigation = self.pages.get(page, ""), page is not None
        message.rerun_script.query_string = self.query
        message.rerun_script.fragment_id, message.rerun_script.is_auto_rerun = fragment, bool(fragment)
        for name, values in widgets.items():
            state = message.rerun_script.widget_states.widgets.add()
            state.id = name
            state.string_array_value.data.extend(values)
        self.socket.send(message.SerializeToString())

    def read(self):
        """See what comes until a run ends."""
        self.slider, self.sliders, self.texts = None, {}, []
        while True:
            got = ForwardMsg.FromString(self.socket.recv(timeout=60))
            if got.WhichOneof("type") == "ref_hash":
                got = self.cached[got.ref_hash]
            self.cached[got.hash] = got
            if got.WhichOneof("type") == "navigation":
                self.pages = {page.url_pathname: page.page_script_hash for page in got.navigation.app_pages}
            if got.WhichOneof("type") == "auto_rerun":
                self.fragments[got.auto_rerun.fragment_id] = got.auto_rerun.interval
            if got.WhichOneof("type") == "delta" and got.delta.WhichOneof("type") == "new_element":
                self.see(got.delta.new_element)
            if got.WhichOneof("type") == "script_finished" and got.script_finished != ForwardMsg.FINISHED_EARLY_FOR_RERUN:
                return

    def see(self, element):
        kind = element.WhichOneof("type")
        if kind == "exception":
            self.exceptions.append(element.exception.message)
        if kind == "markdown":
            self.texts.append(element.markdown.body)
        if kind == "slider" and element.slider.label.endswith(", live"):
            self.sliders[element.slider.label.removesuffix(", live")] = element.slider
            self.slider = self.sliders.get("β")


def sent(folder):
    path = folder.path / "control.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.timeout(120)
def test_ten_sessions_at_once_see_each_their_own_run_and_steer_it_alone(own_server, trainer):
    server = own_server
    folders = [running(server.runs, f"run-{i}", trainer) for i in range(VISITORS)]
    began = time.monotonic()
    with ExitStack() as stack, ThreadPoolExecutor(VISITORS) as pool:
        where, how = f"ws://localhost:{server.port}/_stcore/stream", {"subprotocols": ["streamlit"], "max_size": None, "origin": server.url}
        sockets = [stack.enter_context(connect(where, **how)) for _ in folders]
        visitors = list(pool.map(lambda i: Visitor(sockets[i], f"run=run-{i}"), range(VISITORS)))
        print(f"{VISITORS} pages at once: {time.monotonic() - began:.1f} s")
        for i, visitor in enumerate(visitors):
            own = [text for text in visitor.texts if f"`run-{i}`" in text]
            others = [text for text in visitor.texts for j in range(VISITORS) if j != i and f"run-{j}" in text]
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
    assert [(row["action"], row["knob"], f"{row['value']:g}") for i in (3, 7) for row in sent(folders[i])] == [
        ("set", "beta", visitors[i].slider.options[i]) for i in (3, 7)]
    assert [visitor.exceptions for visitor in visitors] == [[]] * VISITORS


def resting(sliders):
    """What a browser reports of sliders that nobody has moved."""
    return {slider.id: [slider.options[int(slider.default[0])]] for slider in sliders.values()}


@pytest.fixture
def visit(own_server):
    """Open the Train page at an address, each time in a session of its own."""
    with ExitStack() as stack:
        where, how = f"ws://localhost:{own_server.port}/_stcore/stream", {"subprotocols": ["streamlit"], "max_size": None, "origin": own_server.url}
        yield lambda query: Visitor(stack.enter_context(connect(where, **how)), query)


def test_a_page_that_is_left_and_come_back_to_steers_nothing(own_server, trainer, visit):
    """A slow browser still reports the sliders of a page that it has left: the server has forgotten them and takes each for one that has moved."""
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
    listening = [c.laddr.ip for c in psutil.Process(server.process.pid).net_connections() if c.status == psutil.CONN_LISTEN]
    assert listening and set(listening) <= {"127.0.0.1", "::1"}
    told = tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text())
    assert told["server"]["address"] == "localhost" and told["server"]["maxUploadSize"] <= 50 and told["runner"]["postScriptGC"] is False
