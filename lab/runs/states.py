"""The states of a run and the kinds of its events, as they are written on disk."""

from enum import StrEnum


class RunState(StrEnum):
    """The state of a run in status.json."""

    QUEUED = "queued"  # It waits for a free core.
    STARTING = "starting"  # Its process has been started, and does not drive it yet.
    RUNNING = "running"
    PAUSED = "paused"
    FINISHED = "finished"  # All its updates are done.
    STOPPED = "stopped"  # A command or a signal ended it.
    FAILED = "failed"  # An error ended it.
    INTERRUPTED = "interrupted"  # Its process is gone without having said so.


class EventKind(StrEnum):
    """The kind of an event in metrics.jsonl."""

    STARTED = "started"
    RESUMED = "resumed"
    NOTED = "noted"  # A remark on the data or the model.
    CHANGED = "changed"  # A live setting has a new value.
    REJECTED = "rejected"  # A command that was not obeyed.
    PAUSED = "paused"
    CONTINUED = "continued"
    STOPPED = "stopped"
    FINISHED = "finished"
    FAILED = "failed"


ACTIVE_STATES = (RunState.RUNNING, RunState.PAUSED)
WAITING_STATES = (RunState.QUEUED, RunState.STARTING)
RESUMABLE_STATES = (RunState.STOPPED, RunState.INTERRUPTED, RunState.FAILED)
