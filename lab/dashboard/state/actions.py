"""Everything that a page can do to runs and files, and the one place that decides whether it may.
A server that other machines can reach is read-only.
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
from lab.runs.standby import STANDBY
from lab.runs.states import RunState

ALLOW_FLAG = "--allow-visitors"
READ_ONLY_NOTICE = (
    "Other computers can reach this dashboard, so it is read-only: you cannot start, change, stop,"
    " delete or upload anything. To allow it, start the dashboard on localhost, or add"
    f" `-- {ALLOW_FLAG}` to its command line."
)
PREPARE_DELAY_SECONDS = 1.0  # A browser draws its page in this time, which takes all of a core.
VISITORS_MAY_ACT_NOTICE = (
    f"Other computers can reach this dashboard, and it was started with `{ALLOW_FLAG}`: everybody"
    " who opens it can start, change, stop and delete runs."
)

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")
_send_lock = threading.Lock()
# By run folder: the commands that this server has sent, each with the start time of the process
# that it was sent to.
_sent_commands: dict[Path, list[tuple[float, Command]]] = {}


def listens_on_localhost() -> bool:
    """Whether the server accepts connections from this machine alone."""
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
    """Why this dashboard is read-only; empty if it may act."""
    return "" if listens_on_localhost() or ALLOW_FLAG in sys.argv[1:] else READ_ONLY_NOTICE


def access_notice() -> str:
    """What the terminal and every page say about a server that other machines can reach; empty on
    localhost.
    """
    return "" if listens_on_localhost() else refusal() or VISITORS_MAY_ACT_NOTICE


def requires_permission(action: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Decorator: the function raises `LabError` if the dashboard is read-only."""

    @functools.wraps(action)
    def checked_action(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        if reason := refusal():
            raise LabError(reason)
        return action(*args, **kwargs)

    return checked_action


@requires_permission
def start_runs(
    root: Path, method: str, configs: Sequence[Mapping[str, Any]], prefix: str = ""
) -> list[str]:
    """Put one run per config into the queue, which starts as many as the cores allow; returns their
    names, which begin with `prefix`.
    """
    return queue.enqueue(method, configs, root, prefix)


@requires_permission
def fork_run(
    root: Path, recording: Path, step: int, changes: Mapping[str, Any], updates: int
) -> str:
    """Put a run into the queue that continues a recording after update `step` with changed settings;
    returns its name.
    """
    return queue.enqueue_fork(recording, step, changes, root, updates)


@requires_permission
def start_twin(recording: Path, record: RunRecord, before: int) -> str:
    """Put the twin of a forked run into the queue: the run without its changes from update `before`
    on. Returns its name; a twin that exists is not started again.
    """
    return queue.enqueue_twin(recording, record.folder, before)


@requires_permission
def resume_run(root: Path, name: str) -> None:
    """Let a run that was stopped go on from its checkpoint, as soon as a core is free."""
    queue.requeue(root, name)


def prepare_training() -> None:
    """Start a process that waits for a run, when the page has been drawn, so that the next run trains
    at once; nothing if the dashboard is read-only.
    """
    if not refusal():
        STANDBY.warm_later(PREPARE_DELAY_SECONDS)


@requires_permission
def cancel_queued_runs(root: Path, names: Sequence[str]) -> list[str]:
    """Move waiting runs from the queue into the trash; returns their trash names, which
    `restore_runs` takes.
    """
    return queue.cancel(root, names)


@requires_permission
def withdraw_run(root: Path, name: str) -> None:
    """Move a run whose training has not begun into the trash."""
    queue.withdraw(root, name)


@requires_permission
def restore_runs(root: Path, trash_names: Sequence[str]) -> list[str]:
    """Move runs back from the trash; runs that were waiting wait again. Returns the runs' names."""
    names = [trash.restore(root, trash_name) for trash_name in trash_names]
    queue.ensure_worker(root)
    return names


@requires_permission
def delete_run(root: Path, name: str) -> str:
    """Move a run into the trash; returns its trash name."""
    return trash.discard(root, name)


def ensure_queue_worker(root: Path) -> None:
    """Start a queue worker if none is running, unless the dashboard is read-only."""
    if not refusal():
        queue.ensure_worker(root)


@requires_permission
def send_command(record: RunRecord, action: str, knob: str = "", value: Any = None) -> str | None:
    """Send a command to a run and return the command's id.

    If an equal command is still unanswered, its id is returned and nothing is sent. If the run is
    in the requested state already, None is returned. The run's state is its config, the changes
    that it has acknowledged, and the unanswered commands of every session of this server.
    """
    with _send_lock:
        status, now = record.folder.status(), record.snapshot()
        unanswered = [
            (process_started, sent)
            for process_started, sent in _sent_commands.get(record.folder.path, [])
            if process_started == status["process_started"] and sent.id not in now.echoes
        ]
        last = next((sent for _, sent in reversed(unanswered) if sent.knob == knob), None)
        if last and (last.action, last.value) == (action, value):
            return last.id
        present = (
            now.config[knob]
            if knob
            else {RunState.PAUSED: "pause"}.get(status["state"], "continue")
        )
        if not last and present == (value if knob else action):
            return None
        sent = new_command(action, knob, value)
        record.folder.send(sent)
        _sent_commands[record.folder.path] = [*unanswered, (status["process_started"], sent)]
        return sent.id
