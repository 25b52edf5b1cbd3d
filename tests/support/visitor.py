"""A visitor of the dashboard who speaks the browser's protocol without a browser, which costs a
hundredth of one.
"""

import json

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg


class Visitor:
    """A session: the texts and the live sliders of the last run of its script, and every exception
    that it was shown.
    """

    def __init__(self, socket, query):
        self.socket, self.query, self.fragments, self.exceptions, self.cached, self.pages = (
            socket,
            query,
            {},
            [],
            {},
            {},
        )
        self.rerun()

    def rerun(self, fragment="", page=None, **widgets):
        """Run the script, or a fragment as a tick does, or go back to a page; `widgets` maps an
        element's id to the texts that it holds.
        """
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
        message.rerun_script.page_script_hash, message.rerun_script.is_history_navigation = (
            self.pages.get(page, ""),
            page is not None,
        )
        message.rerun_script.query_string = self.query
        message.rerun_script.fragment_id, message.rerun_script.is_auto_rerun = (
            fragment,
            bool(fragment),
        )
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
                self.pages = {
                    page.url_pathname: page.page_script_hash for page in got.navigation.app_pages
                }
            if got.WhichOneof("type") == "auto_rerun":
                self.fragments[got.auto_rerun.fragment_id] = got.auto_rerun.interval
            if got.WhichOneof("type") == "delta" and got.delta.WhichOneof("type") == "new_element":
                self.see(got.delta.new_element)
            if (
                got.WhichOneof("type") == "script_finished"
                and got.script_finished != ForwardMsg.FINISHED_EARLY_FOR_RERUN
            ):
                return

    def see(self, element):
        kind = element.WhichOneof("type")
        if kind == "exception":
            self.exceptions.append(element.exception.message)
        if kind == "markdown":
            self.texts.append(element.markdown.body)
        if kind == "slider" and element.slider.label.endswith(" of this run"):
            self.sliders[element.slider.label.removesuffix(" of this run")] = element.slider
            self.slider = self.sliders.get("β")


def sent(folder):
    path = folder.path / "control.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def resting(sliders):
    """What a browser reports of sliders that nobody has moved."""
    return {slider.id: [slider.options[int(slider.default[0])]] for slider in sliders.values()}
