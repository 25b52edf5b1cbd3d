"""Tells a process from any other, also from a later process with the same number."""

import os
from typing import Any

import psutil


def process_identity() -> dict[str, Any]:
    """Return the number and the start time of this process, as status.json holds them."""
    return {"pid": os.getpid(), "process_started": psutil.Process().create_time()}


def is_alive(pid: int, started: float) -> bool:
    """Return whether the process `pid` that began at `started` (seconds since 1970) still runs.

    Start times may differ by 2 s, because the clock may have been set since.
    """
    try:
        process = psutil.Process(pid or -1)
        return (
            abs(process.create_time() - started) < 2.0 and process.status() != psutil.STATUS_ZOMBIE
        )
    except (psutil.Error, ValueError, OverflowError):
        return False
