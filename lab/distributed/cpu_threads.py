"""How many threads torch computes with, and that the memory of one update serves the next."""

import ctypes
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch

MAX_THREADS = 2  # Threads that small tensors are worth; a third gains nothing.
MEASURE_SECONDS = 0.25  # Seconds over which it is counted what others use.
RETAINED_BYTES = 128 * 2**20
"""Bytes of freed memory that the C library may hold back for what comes next."""
STAT, QUOTA_FILE = Path("/proc/stat"), Path("/sys/fs/cgroup/cpu.max")


@contextmanager
def one_thread() -> Iterator[None]:
    """Within it, and in a function that it decorates, torch computes in one thread, so that sums
    repeat to the last bit.
    """
    with _kept():
        torch.set_num_threads(1)
        yield


@contextmanager
def few_threads() -> Iterator[None]:
    """Within it, torch computes in as many threads as small tensors are worth and cores are free;
    `fit` chooses anew.

    On two idle cores a second thread makes an update of the embedded model 1.4 to 1.5 times as
    fast; where others want the core too, waiting for it costs several times the work.
    """
    keep_memory()
    _FITTING.append(True)
    try:
        with _kept():
            adapt_num_threads()
            yield
    finally:
        _FITTING.pop()


def adapt_num_threads() -> None:
    """Within `few_threads`, choose the number of threads from what others have used of the cores
    lately; OMP_NUM_THREADS has the last word.
    """
    if not _FITTING:
        return
    asked = os.environ.get("OMP_NUM_THREADS", "")
    torch.set_num_threads(
        int(asked)
        if asked.isdecimal() and int(asked)
        else max(1, min(MAX_THREADS, cpu_quota(), int(_WATCH.free() + 0.3)))
    )


def restart_monitor() -> None:
    """What others use of the cores from here on is counted anew; until that is known, what was last
    known holds.
    """
    _WATCH.forget()


@cache
def keep_memory() -> None:
    """Ask glibc, if that is the C library, to hold freed memory back: a small model's update frees
    a few megabytes, and fetching them from the kernel again page by page would take a tenth of its
    time.
    """
    trim_threshold, mmap_threshold = -1, -3  # As malloc.h numbers them.
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # Another system, or another C library.
        return
    mallopt(trim_threshold, RETAINED_BYTES)
    mallopt(mmap_threshold, RETAINED_BYTES // 4)


def cpu_quota() -> int:
    """Cores that this process may use at all, at least one: by its affinity, and in a container by
    its quota.
    """
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    try:
        quota, period = map(int, QUOTA_FILE.read_text("ascii").split())
    except (OSError, ValueError):  # Not Linux, or no limit, which is written as "max".
        return cores
    return max(1, min(cores, quota // period))


@contextmanager
def _kept() -> Iterator[None]:
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


class IdleCoreMonitor:
    """Counts how many cores other processes leave, between two looks that are at least `WINDOW`
    apart; Linux only, elsewhere it is one.
    """

    def __init__(self) -> None:
        self._before: tuple[float, float, float] | None = None
        self._free = 1.0

    def free(self) -> float:
        """Cores that were idle or this process's own since the last look; one until there have been
        two looks.
        """
        now = self._look()
        if now is None:
            return 1.0
        if self._before is None:
            self._before = now
        elif now[0] - self._before[0] >= MEASURE_SECONDS:
            took, idle, own = (b - a for a, b in zip(self._before, now))
            self._before, self._free = now, (idle + own) / took
        return self._free

    def forget(self) -> None:
        """Count from the next look on."""
        self._before = None

    @staticmethod
    def _look() -> tuple[float, float, float] | None:
        """Wall time, idle time of all cores together and this process's own, in seconds."""
        try:
            idle = sum(
                int(n) for n in STAT.read_text("ascii").split("\n", 1)[0].split()[4:6]
            )  # idle and waiting for a disk
        except (OSError, ValueError):
            return None
        return time.monotonic(), idle / os.sysconf("SC_CLK_TCK"), time.process_time()


_FITTING: list[bool] = []
_WATCH = IdleCoreMonitor()
