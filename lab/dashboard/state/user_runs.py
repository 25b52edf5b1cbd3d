"""The reader's own runs, to be drawn beside recorded ones."""

from collections.abc import Sequence
from typing import Any

from lab.config.methods import method_of
from lab.dashboard.state.run_cache import Snapshot, record
from lab.figures.training_curves import Column
from lab.runs.catalogue import list_runs

MOST = 6  # the latest are drawn

Own = tuple[str, str, float, tuple[tuple[str, tuple[float | None, ...]], ...]]
"""Name, method, β, and per measure its value at each look."""


def last_before(column: Column, step: int) -> float | None:
    """The value at `step` or the last before it; None where there is none."""
    found = [value for at, value in zip(*column) if at <= step]
    return found[-1] if found else None


def _measures(now: Snapshot) -> dict[str, Column]:
    """The measures that recorded experiments also have; log π − log π_ref is the logged reward
    without its β.
    """
    found = {
        name: now.columns[column]
        for name, column in (("kl", "gold/kl"), ("gold/accuracy", "gold/accuracy"))
        if column in now.columns
    }
    for side in ("chosen", "rejected"):
        if f"rewards/{side}" in now.columns:
            steps, values = now.columns[f"rewards/{side}"]
            found[f"logps/{side}"] = (steps, [value / now.started["beta"] for value in values])
    return found


def own_runs(method: str, looks: Sequence[int]) -> tuple[Own, ...]:
    """The latest runs of a method in the runs folder whose β was left alone, each at those of
    `looks` that it has reached.
    """
    found: list[Own] = []
    for folder in sorted(
        (run for run in list_runs() if method_of(run.config) == method),
        key=lambda run: -run.path.stat().st_mtime,
    ):
        now = record(str(folder.path)).snapshot()
        if now.config["beta"] != now.started["beta"] or not now.columns:
            continue
        measures = tuple(
            (name, tuple(last_before(column, look) if look <= now.step else None for look in looks))
            for name, column in _measures(now).items()
        )
        found.append(
            (folder.name, method, now.started["beta"], measures + (("looks", tuple(looks)),))
        )
    return tuple(found[:MOST])


def at_looks(own: Sequence[Own], step: int) -> list[dict[str, Any]]:
    """Each run's measures at one of the looks."""
    out = []
    for name, method, beta, measures in own:
        by_name = dict(measures)
        at = by_name.pop("looks").index(step)
        out.append(
            {"name": name, "method": method, "beta": beta}
            | {m: values[at] for m, values in by_name.items() if values[at] is not None}
        )
    return out
