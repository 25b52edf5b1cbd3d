"""The commands that a run obeys between two updates: control.jsonl, signals, a budget, and live changes
that are replayed after a resume.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lab.runs.control import Command, new_command
from lab.runs.folder import RunFolder
from lab.runs.states import EventKind
from lab.storage import jsonl
from lab.training.state import TrainState


class InterruptHandler:
    """Counts the signals that ask this process to end: after the first signal it finishes its update,
    at the second it ends at once.
    """

    def __init__(self) -> None:
        self.count = 0

    def interrupt(self, *_: Any) -> None:
        """Handle SIGINT and SIGTERM; raise `KeyboardInterrupt` at the second signal."""
        self.count += 1
        if self.count > 1:
            raise KeyboardInterrupt

    def hang_up(self, *_: Any) -> None:
        """Handle SIGHUP of a closed terminal, which kernel and shell may each send."""
        self.count = max(1, self.count)


class CommandSource(InterruptHandler):
    """The sources of commands: live changes to replay after a resume, signals, `stops_early`, the budget
    `until`, and the lines of control.jsonl from byte `offset` on.
    """

    def __init__(
        self, folder: RunFolder, offset: int, until: Callable[[TrainState], bool] | None
    ) -> None:
        super().__init__()
        self._folder, self._offset, self._until = folder, offset, until
        self._run: TrainState | None = None
        self._changes: list[dict[str, Any]] = []
        self.stops_early = False

    def replay(self, run: TrainState) -> None:
        """Repeat the live changes that an earlier process made after the checkpoint at `run.step`."""
        self._run = run
        self._changes = [
            row
            for row in self._folder.history()
            if row["type"] == "event"
            and row["kind"] == EventKind.CHANGED
            and row["step"] >= run.step
        ]

    def poll(self) -> list[Command]:
        """Return the commands that are due now; `replay` comes before the first call."""
        run = self._run
        assert run is not None
        due = [row for row in self._changes if row["step"] <= run.step]
        self._changes = self._changes[len(due) :]
        rows, self._offset = jsonl.read_jsonl(self._folder.path / "control.jsonl", self._offset)
        changes = [
            Command(row["id"], "set", row["detail"]["knob"], row["detail"]["to"]) for row in due
        ]
        stops = self.count or self.stops_early or (self._until is not None and self._until(run))
        return [*changes, *[new_command("stop")] * bool(stops), *map(_parse, rows)]


def _parse(row: dict[str, Any]) -> Command:
    """The command in a line of control.jsonl."""
    return Command(
        str(row.get("id", "")),
        str(row.get("action", "")),
        str(row.get("knob", "")),
        row.get("value"),
    )


@contextmanager
def handle_signals(handler: InterruptHandler) -> Iterator[None]:
    """Within it, Ctrl-C, SIGTERM and a closed terminal stop the run after the present update.

    Python lets only the main thread handle signals; in another thread it has no effect. SIGHUP stays
    ignored for a process that was started by nohup.
    """
    handlers = {signal.SIGINT: handler.interrupt, signal.SIGTERM: handler.interrupt}
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        handlers[signal.SIGHUP] = handler.hang_up
    try:
        before = {number: signal.signal(number, handle) for number, handle in handlers.items()}
    except ValueError:
        before = {}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
