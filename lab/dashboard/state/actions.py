"""All that a page can do to runs and files, and the one place that decides whether it may: where
others reach the server, the dashboard only shows.
"""

import functools
import ipaddress
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import streamlit as st

from lab.dashboard.state.run_cache import RunRecord
from lab.errors import LabError
from lab.runs import queue, trash
from lab.runs.control import Command, new_command
from lab.runs.states import RunState

ALLOW = "--allow-visitors"
SHOWS = (
    "This dashboard can be reached from other machines, so it only shows: nothing is started,"
    f" steered, stopped, deleted or uploaded here. Start it on localhost, or with `-- {ALLOW}`"
    " behind its command line."
)
OPEN = (
    f"This dashboard can be reached from other machines and was started with `{ALLOW}`: whoever"
    " opens it can start, steer, stop and delete runs."
)

P, R = ParamSpec("P"), TypeVar("R")
_sending = threading.Lock()
_sent: dict[
    Path, list[tuple[float, Command]]
    # Commands that this server has sent to a run, each with the start of the process that it was for.
] = {}


def local() -> bool:
    """Whether the server listens on this machine alone."""
    address = st.get_option("server.address")
    if not address:  # Streamlit then listens on every address of the machine.
        return False
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return False


def refusal() -> str:
    """Why this dashboard only shows; empty where it may act."""
    return "" if local() or ALLOW in sys.argv[1:] else SHOWS


def notice() -> str:
    """What the terminal and every page say of a server that others reach; empty on localhost."""
    return "" if local() else refusal() or OPEN


def acting(act: Callable[P, R]) -> Callable[P, R]:
    """The same function, which raises `LabError` where the dashboard only shows."""

    @functools.wraps(act)
    def allowed(*args: P.args, **kwargs: P.kwargs) -> R:
        if reason := refusal():
            raise LabError(reason)
        return act(*args, **kwargs)

    return allowed


@acting
def start(root: Path, method: str, made: Sequence[Mapping[str, Any]]) -> list[str]:
    """Put runs into the queue, which starts as many as fit; returns their names."""
    return queue.enqueue(method, made, root)


@acting
def take_out(root: Path, names: Sequence[str]) -> list[str]:
    """Take waiting runs out of the queue; returns their places in the trash, which `put_back`
    takes.
    """
    return queue.cancel(root, names)


@acting
def put_back(root: Path, places: Sequence[str]) -> list[str]:
    """Bring runs back from the trash, and into the queue those that waited in it; returns their
    names.
    """
    names = [trash.restore(root, place) for place in places]
    queue.ensure_worker(root)
    return names


@acting
def delete(root: Path, name: str) -> str:
    """Move a run into the trash; returns its place there."""
    return trash.discard(root, name)


def attend(root: Path) -> None:
    """See to it that somebody works on the queue, unless the dashboard only shows."""
    if not refusal():
        queue.ensure_worker(root)


@acting
def send(record: RunRecord, action: str, knob: str = "", value: Any = None) -> str | None:
    """Send a run a command and return its id: that of an earlier one which asks for the same and is
    on its way, None where the run is so already.

    What counts is the run's present state: its config, the changes that it has acknowledged, and
    what any session of this server has sent it since.
    """
    with _sending:
        status, now = record.folder.status(), record.snapshot()
        sent = [
            (since, one)
            for since, one in _sent.get(record.folder.path, [])
            if since == status["process_started"] and one.id not in now.echoes
        ]
        last = next((one for _, one in reversed(sent) if one.knob == knob), None)
        if last and (last.action, last.value) == (action, value):
            return last.id
        present = (
            now.config[knob]
            if knob
            else {RunState.PAUSED: "pause"}.get(status["state"], "continue")
        )
        if not last and present == (value if knob else action):
            return None
        asked = new_command(action, knob, value)
        record.folder.send(asked)
        _sent[record.folder.path] = [*sent, (status["process_started"], asked)]
        return asked.id
