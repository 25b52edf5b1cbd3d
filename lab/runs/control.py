"""Commands to a running training: change a live setting, pause, continue, stop."""

import uuid
from dataclasses import asdict, dataclass
from typing import Any, Protocol

ACTIONS = ("set", "pause", "continue", "stop")


@dataclass(frozen=True)
class Command:
    """One command. The event that answers it has the same `id`; `knob`, the name of a setting, and
    `value` belong to the action "set".
    """

    id: str
    action: str
    knob: str = ""
    value: Any = None

    def row(self) -> dict[str, Any]:
        """Return the line of control.jsonl."""
        return asdict(self)


def new_command(action: str, knob: str = "", value: Any = None) -> Command:
    """Return a command with a new id."""
    return Command(uuid.uuid4().hex[:12], action, knob, value)


class CommandPoller(Protocol):
    """Anything from which the training loop reads commands."""

    def poll(self) -> list[Command]:
        """Return the commands since the last call."""
        ...


class Control:
    """Commands from the process that trains, for notebooks and tests.

    Each method returns the id of its command.
    """

    def __init__(self) -> None:
        self._waiting: list[Command] = []

    def _put(self, action: str, knob: str = "", value: Any = None) -> str:
        self._waiting.append(new_command(action, knob, value))
        return self._waiting[-1].id

    def set(self, knob: str, value: Any) -> str:
        """Change a live setting from the next update on."""
        return self._put("set", knob, value)

    def pause(self) -> str:
        """Pause the run after the present update."""
        return self._put("pause")

    def resume(self) -> str:
        """Continue after a pause."""
        return self._put("continue")

    def stop(self) -> str:
        """End the run after the present update."""
        return self._put("stop")

    def poll(self) -> list[Command]:
        """Return the commands since the last call; the training loop calls it between updates."""
        waiting, self._waiting = self._waiting, []
        return waiting
