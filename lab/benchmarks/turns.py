"""Turns: each side of the benchmark warms up, then takes a few timed steps in every round."""

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field

from lab.benchmarks.side_process import Player
from lab.benchmarks.workload import Work
from lab.distributed import collectives

TURN_SECONDS, MAX_STEPS_PER_TURN, SLOW_STEP_SECONDS = 0.3, 10, 1.0
"""A turn takes as many steps as fit in `TURN_SECONDS`, at least 1 and at most `MAX_STEPS_PER_TURN`.
Untimed steps of `TURN_SECONDS` come before it, unless a step takes `SLOW_STEP_SECONDS` or longer.
"""


@dataclass
class Side:
    """One side of the benchmark at one work: the lab, or the other library with one setting.

    `times` holds the mean seconds of a step for each round, `lengths` the tokens of every timed
    step, `peak` the most bytes of memory (see `Turn`). A turn has `lead` untimed steps and then
    `repeat` timed ones. `error` is the message of the step that failed; empty while none has.
    `open` makes the player when the side's time comes; None for a side that cannot be tried.
    `versions` are those of a library in an environment of its own.
    """

    name: str
    setting: str
    player: Player | None = None
    times: list[float] = field(default_factory=list)
    lengths: list[list[int]] = field(default_factory=list)
    lead: int = 0
    repeat: int = 1
    peak: int = 0
    error: str = ""
    checkpointing: bool = False
    work: Work | None = None
    open: Callable[[], Player] | None = None
    versions: str = ""

    def start(self) -> None:
        """Starts the process of the side."""
        if self.open is not None and not self.error:
            self.player = self.open()

    def stop(self) -> None:
        """Ends the process of the side and waits until it has ended."""
        if self.player is not None:
            self.player.close()
            self.player.join()
            self.player = None


def warm_up(sides: list[Side]) -> None:
    """Let every side take its untimed steps.

    Every side takes its first step before any side takes its second one, so that no process is
    still starting while another one is timed.
    """
    for side in sides:
        take_turn(side, 0, 1)
    for side in sides:
        take_turn(side, 0, 1)
        _settle(side)


def _settle(side: Side) -> None:
    """Warm up for as long as a turn lasts, unless steps are slow. Then choose how many steps a turn
    has and how many untimed steps come before it.
    """
    take_turn(
        side,
        0,
        collectives.broadcast_object(
            lambda: (
                max(3, round(TURN_SECONDS / side.times[-1]))
                if side.times and side.times[-1] < SLOW_STEP_SECONDS
                else 0
            )
        ),
    )
    once = min(side.times[1:], default=1.0)
    side.lead, side.repeat = collectives.broadcast_object(
        lambda: (
            math.ceil(TURN_SECONDS / once) if once < SLOW_STEP_SECONDS else 0,
            max(1, min(MAX_STEPS_PER_TURN, round(TURN_SECONDS / once))),
        )
    )
    side.times.clear()
    side.lengths.clear()


def take_turn(side: Side, lead: int, repeat: int) -> None:
    """Let one side take `lead` untimed steps and then `repeat` timed ones, and record their mean
    time. After an error the side takes no further turns.

    The untimed steps let a side measure how many cores are free, and fill the caches again that
    the other sides have used since its last turn.
    """
    if side.error or side.player is None or not repeat:
        return
    result = side.player.take(lead, repeat)
    side.error, side.peak = result.error, max(side.peak, result.peak)
    if not result.error:
        side.times.append(statistics.mean(result.times))
        side.lengths += result.lengths
