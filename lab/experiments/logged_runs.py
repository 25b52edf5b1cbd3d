"""Runs in parallel processes of one thread each, of which every finished one is a line of a log."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Any

import torch

from lab.experiments.arms import command_line
from lab.experiments.protocol import Log
from lab.experiments.run_log import RunLog


@dataclass(frozen=True)
class LoggedRun:
    """A run by its key in the log: `work(*arguments)` returns its row. A logged row counts as this run
    while its settings are equal.
    """

    key: str
    work: Callable[..., dict[str, Any]]
    arguments: tuple[Any, ...]
    settings: dict[str, Any] = field(default_factory=dict)


def use_one_thread() -> None:
    """Let this process compute in one thread, also where `few_threads` would take two."""
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


def make_missing(log: RunLog, planned: Sequence[LoggedRun], jobs: int, say: Log) -> None:
    """Make the runs that the log does not hold, `jobs` at a time, and log each as it ends.

    A run that fails stops no other: the others are logged first, and then its error is raised.
    """
    missing = [one for one in planned if not log.has(one.key, one.settings)]
    failed: BaseException | None = None
    with ProcessPoolExecutor(
        jobs, mp_context=get_context("spawn"), initializer=use_one_thread
    ) as pool:
        futures = {pool.submit(one.work, *one.arguments): one for one in missing}
        for done in as_completed(futures):
            one = futures[done]
            if (error := done.exception()) is not None:
                failed = failed or error
                say(f"{one.key}: {error}")
                continue
            row = log.append(one.key, {"settings": one.settings} | done.result())
            say(f"{row['key']}: {row['seconds']:.0f} s, {len(log.rows)} runs so far")
    if failed is not None:
        raise failed


def record_head(name: str, log: RunLog, seeds: int, device: str) -> dict[str, Any]:
    """Return the first entries of a table: its command and what made its runs."""
    return {
        "command": command_line(name, seeds, device),
        **log.origin,
        "commit": ", ".join(log.commits()),
        "seeds": seeds,
        "seconds": round(sum(row["seconds"] for row in log.rows.values())),
    }
