"""Commands to a running training: change a live knob, pause, continue, stop."""

import uuid
from dataclasses import asdict, dataclass
from typing import Any

ACTIONS = ("set", "pause", "continue", "stop")


@dataclass(frozen=True)
class Command:
    """One command. `id` comes back in the event that answers it; `knob` and `value` belong to the
    action "set".
    """

    id: str
    action: str
    knob: str = ""
    value: Any = None

    def row(self) -> dict[str, Any]:
        """The line of control.jsonl."""
        return asdict(self)


def new_command(action: str, knob: str = "", value: Any = None) -> Command:
    """A command with a fresh id."""
    return Command(uuid.uuid4().hex[:12], action, knob, value)


class Control:
    """Commands from the same process, for notebooks and tests. Each method returns the command's
    id.
    """

    def __init__(self) -> None:
        self._waiting: list[Command] = []

    def _put(self, *parts: Any) -> str:
        self._waiting.append(new_command(*parts))
        return self._waiting[-1].id

    def set(self, knob: str, value: Any) -> str:
        """Change a live knob from the next update on."""
        return self._put("set", knob, value)

    def pause(self) -> str:
        """Hold the run after the present update."""
        return self._put("pause")

    def resume(self) -> str:
        """Go on after a pause."""
        return self._put("continue")

    def stop(self) -> str:
        """End the run after the present update."""
        return self._put("stop")

    def poll(self) -> list[Command]:
        """The commands that came since the last call; the training loop calls it between updates."""
        waiting, self._waiting = self._waiting, []
        return waiting
