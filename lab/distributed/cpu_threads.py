"""The number of threads that torch computes with, and the memory that one update leaves to the next."""

import ctypes
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import psutil
import torch

MAX_THREADS = 2  # A third thread gains nothing on small tensors.
MEASURE_SECONDS = 0.25  # Least time over which the idle cores are measured.
RETAINED_BYTES = 128 * 2**20
"""Bytes of freed memory that the C library may retain for the next update."""
QUOTA_FILE = Path("/sys/fs/cgroup/cpu.max")


@contextmanager
def one_thread() -> Iterator[None]:
    """Within it, and in a function that it decorates, torch computes in one thread, so that sums
    repeat to the last bit.
    """
    with _restore_num_threads():
        torch.set_num_threads(1)
        yield


@contextmanager
def few_threads() -> Iterator[None]:
    """Within it, torch computes small tensors in one thread, or in two where a core is free;
    `adapt_num_threads` chooses again.

    On two idle cores a second thread makes an update of the embedded model 1.4 to 1.5 times as
    fast; where other processes use the second core, waiting for it costs several times the work.
    """
    retain_freed_memory()
    _ADAPTIVE.append(True)
    try:
        with _restore_num_threads():
            adapt_num_threads()
            yield
    finally:
        _ADAPTIVE.pop()


def adapt_num_threads() -> None:
    """Within `few_threads`, choose the number of threads by the cores that other processes left idle
    lately; the environment variable OMP_NUM_THREADS overrules it.
    """
    if not _ADAPTIVE:
        return
    requested = os.environ.get("OMP_NUM_THREADS", "")
    torch.set_num_threads(
        int(requested)
        if requested.isdecimal() and int(requested)
        else max(1, min(MAX_THREADS, cpu_quota(), int(_MONITOR.free_cores() + 0.3)))
    )


def restart_monitor() -> None:
    """Measure the idle cores anew from here on; until there is a result, the last one counts."""
    _MONITOR.restart()


@cache
def retain_freed_memory() -> None:
    """Ask glibc, if it is the C library, to retain freed memory.

    The update of a small model frees a few megabytes; asking the kernel for them again page by page
    would take a tenth of its time.
    """
    trim_threshold, mmap_threshold = -1, -3  # The numbers of these options in malloc.h.
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # Another system, or another C library.
        return
    mallopt(trim_threshold, RETAINED_BYTES)
    mallopt(mmap_threshold, RETAINED_BYTES // 4)


def cpu_quota() -> int:
    """Return the cores that this process may use, at least one: by its affinity, and in a container
    by the container's quota.
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
def _restore_num_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


class IdleCoreMonitor:
    """Measures how many cores other processes leave free, between two readings that are at least
    `MEASURE_SECONDS` apart.
    """

    def __init__(self) -> None:
        self._last: tuple[float, float, float] | None = None
        self._free = 1.0

    def free_cores(self) -> float:
        """Return the cores that were idle or used by this process since the last reading; one before
        the second reading, and where the system tells nothing.
        """
        reading = self._read()
        if reading is None:
            return 1.0
        if self._last is None:
            self._last = reading
        elif reading[0] - self._last[0] >= MEASURE_SECONDS:
            elapsed, idle, own = (after - before for before, after in zip(self._last, reading))
            self._last, self._free = reading, (idle + own) / elapsed
        return self._free

    def restart(self) -> None:
        """Measure from the next reading on."""
        self._last = None

    @staticmethod
    def _read() -> tuple[float, float, float] | None:
        """Wall time, idle time of all cores together and CPU time of this process, in seconds."""
        try:
            times = psutil.cpu_times()
        except (OSError, psutil.Error):
            return None
        idle = times.idle + getattr(times, "iowait", 0.0)  # Linux counts waiting for a disk apart.
        return time.monotonic(), idle, time.process_time()


_ADAPTIVE: list[bool] = []
_MONITOR = IdleCoreMonitor()
