"""The process of a side: on a GPU, and beside another library, each side takes its turns in its own
process.

Such a process shares neither model, threads nor memory with the other sides. Between two turns it
waits without computing, so a side is measured as if it were alone on the machine.
"""

import gc
import signal
import warnings
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import import_module
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Protocol

import torch

from lab.distributed.cpu_threads import restart_monitor
from lab.training.machine_record import peak_memory

Steps = Generator[tuple[float, list[int]], None, None]
"""Does one step of a work for each value. A value is the seconds of the step, and the lengths in
tokens of the sequences that it trained on or, for sampling alone, that it sampled.
"""
EXIT_GRACE_SECONDS = 5.0
"""A closed process is killed when it has not ended after these seconds: its last step may be long."""


@dataclass(frozen=True)
class Turn:
    """The result of one turn: seconds and lengths in tokens of every timed step, and the most bytes
    that were allocated on the GPU, or that the side's own process has had on a CPU; or the `error`
    that ended it.
    """

    times: list[float] = field(default_factory=list)
    lengths: list[list[int]] = field(default_factory=list)
    peak: int = 0
    error: str = ""


class Player(Protocol):
    """Takes the turns of one side, in this process or in another one."""

    def wait_until_ready(self) -> str:
        """Waits until the process has imported its libraries; returns the versions that it tells."""

    def take(self, lead: int, repeat: int) -> Turn:
        """Takes `lead` untimed steps, then `repeat` timed ones."""

    def close(self) -> None:
        """Ends the steps; there are no further turns."""

    def join(self) -> None:
        """Waits until the process has ended."""


class InProcess:
    """Takes the turns of one side in this process."""

    def __init__(self, make: Callable[[], Steps], where: torch.device) -> None:
        self._steps, self._where = make(), where

    def wait_until_ready(self) -> str:
        """Returns at once: this process has imported what it needs."""
        return ""

    def take(self, lead: int, repeat: int) -> Turn:
        """Takes `lead` untimed steps, then `repeat` timed ones. After an error it takes no more."""
        restart_monitor()
        cuda = self._where.type == "cuda"
        if cuda:
            torch.cuda.reset_peak_memory_stats(self._where)
        error, steps = "", []
        try:
            with warnings.catch_warnings():
                # The trainers warn at length about defaults that their next versions change.
                warnings.simplefilter("ignore")
                steps = [next(self._steps) for _ in range(lead + repeat)][lead:]
        except Exception as raised:
            error = f"{type(raised).__name__}: {(str(raised).splitlines() or [''])[0]}"
            self.close()
        peak = torch.cuda.max_memory_allocated(self._where) if cuda and not error else 0
        gc.collect()  # Here, so that no side's garbage is collected in the turn of another side.
        if cuda and not error:
            torch.cuda.empty_cache()  # The other sides can use the memory that this side does not.
        return Turn(
            [seconds for seconds, _ in steps], [lengths for _, lengths in steps], peak, error
        )

    def close(self) -> None:
        """Ends the steps; there are no further turns."""
        self._steps.close()

    def join(self) -> None:
        """Returns at once: this process has nothing to wait for."""


class SeparateProcess:
    """Takes the turns of one side in its own process; `make` must be picklable. When the process
    dies, the turn has an error.

    `make` is sent with the first turn and not at the start: sending more than the pipe holds blocks
    until the new process reads it, and several processes could not start at the same time.
    """

    def __init__(self, make: Callable[[], Steps], where: torch.device) -> None:
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._make: Callable[[], Steps] | None = make
        self._ready = False
        module = (make.func if isinstance(make, partial) else make).__module__
        self._process = context.Process(target=_serve, args=(theirs, where, module), daemon=True)
        self._process.start()
        theirs.close()

    def wait_until_ready(self) -> str:
        """Waits until the process has imported its libraries, so that it does not disturb others."""
        if not self._ready:
            self._ready = True
            with suppress(EOFError, OSError):  # `take` tells that it has ended.
                self._pipe.recv()
        return ""

    def take(self, lead: int, repeat: int) -> Turn:
        """Takes a turn in the other process, as `InProcess.take` does in this one."""
        self.wait_until_ready()
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
        """Ends the process: at once when it waits, otherwise after its present step."""
        self._pipe.close()

    def join(self) -> None:
        """Waits until the closed process has ended; kills it after `EXIT_GRACE_SECONDS`."""
        self._process.join(EXIT_GRACE_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _serve(pipe: Connection, where: torch.device, module: str) -> None:
    """Runs in the process of a side: imports `module` and calls its function `preload`, if there is
    one; receives the function that makes the steps, then takes a turn for every (lead, repeat),
    until the other end closes the pipe.
    """
    # Ctrl-C reaches every process of a terminal; the first process then closes the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    side = None
    with suppress(Exception):  # The first step raises it again.
        getattr(import_module(module), "preload", bool)()
    try:
        pipe.send("ready")
        side = InProcess(pipe.recv(), where)
        while True:
            turn = side.take(*pipe.recv())
            on_gpu = where.type == "cuda"
            pipe.send(turn if on_gpu else replace(turn, peak=peak_memory(where)))
    except (EOFError, OSError):
        if side:
            side.close()
