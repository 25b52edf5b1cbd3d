"""The contenders of the benchmark: beside another library, each side takes its turns in a process
of its own.

Such a process keeps its model, its threads and its memory to itself, and between two turns it waits
for the next one without computing: what a side takes is what it takes alone on the machine.
"""

import gc
import signal
import warnings
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection

import torch

from lab.distributed.cpu_threads import restart_monitor

Steps = Generator[tuple[float, list[int]], None, None]
"""Does a work once for every value asked for: seconds, and the lengths in tokens that it trained on
(of sampling: that it drew).
"""
GRACE = 5.0
"""Seconds that a process has to end by itself before it is killed; a step that was interrupted may
be a long one.
"""


@dataclass(frozen=True)
class Turn:
    """What one turn found: for each timed step its seconds and lengths in tokens, the most bytes
    that were allocated on the GPU, or what went wrong.
    """

    times: list[float] = field(default_factory=list)
    lengths: list[list[int]] = field(default_factory=list)
    peak: int = 0
    error: str = ""


class Here:
    """Takes the turns of one side in this process."""

    def __init__(self, make: Callable[[], Steps], where: torch.device) -> None:
        self._steps, self._where = make(), where

    def take(self, lead: int, repeat: int) -> Turn:
        """First `lead` steps that are not timed, then `repeat` that are; after an error there are
        no further turns.
        """
        restart_monitor()
        cuda = self._where.type == "cuda"
        if cuda:
            torch.cuda.reset_peak_memory_stats(self._where)
        error, found = "", []
        try:
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore"
                )  # The trainers warn at length of what they themselves are about to change.
                found = [next(self._steps) for _ in range(lead + repeat)][lead:]
        except Exception as raised:
            error = f"{type(raised).__name__}: {(str(raised).splitlines() or [''])[0]}"
            self.close()
        peak = torch.cuda.max_memory_allocated(self._where) if cuda and not error else 0
        gc.collect()  # Here, so that no side's rubbish is swept out in another's turn.
        if cuda and not error:
            torch.cuda.empty_cache()  # What this side does not hold is the others'.
        return Turn(
            [seconds for seconds, _ in found], [lengths for _, lengths in found], peak, error
        )

    def close(self) -> None:
        """No further turns."""
        self._steps.close()

    def join(self) -> None:
        """Nothing is left to wait for."""


class Apart:
    """Takes the turns of one side in a process of its own; `make` must be picklable. A process that
    dies is an error of its turn.

    `make` follows with the first turn, since who hands a new process more than a pipe holds waits
    until it reads: so processes start side by side.
    """

    def __init__(self, make: Callable[[], Steps], where: torch.device) -> None:
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._make: Callable[[], Steps] | None = make
        self._process = context.Process(target=_serve, args=(theirs, where), daemon=True)
        self._process.start()
        theirs.close()

    def take(self, lead: int, repeat: int) -> Turn:
        """The same as `Here.take`."""
        try:
            if self._make is not None:
                self._pipe.send(self._make)
                self._make = None
            self._pipe.send((lead, repeat))
            return self._pipe.recv()
        except (EOFError, OSError):  # The other end is closed.
            self._process.join()
            return Turn(error=f"ended with exit code {self._process.exitcode}")

    def close(self) -> None:
        """No further turns: the process ends at once while it waits, else after its step."""
        self._pipe.close()

    def join(self) -> None:
        """Wait until the process that was closed has ended; after `GRACE` seconds it is killed."""
        self._process.join(GRACE)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _serve(pipe: Connection, where: torch.device) -> None:
    """In the process of a side: what makes its steps comes first, then a turn for every pair of
    numbers, until the other end is closed.
    """
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches every process of a terminal; the first one then closes the pipe.
    here = None
    try:
        here = Here(pipe.recv(), where)
        while True:
            pipe.send(here.take(*pipe.recv()))
    except (EOFError, OSError):
        if here:
            here.close()
