"""The user's own runs, in the form in which a figure draws them beside recorded experiments."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from lab.analysis.diagnose import MetricColumn
from lab.config.methods import method_of
from lab.dashboard.state.run_cache import Snapshot, run_record
from lab.runs.catalogue import list_runs

MAX_USER_RUNS = 6  # only the latest are drawn


class UserRun(NamedTuple):
    """A run of the user, measured at the evaluation steps of a recorded experiment.

    `measures` holds, by measure, one value per step of `steps`; None after the run's last step.
    """

    name: str
    method: str
    beta: float
    steps: tuple[int, ...]
    measures: tuple[tuple[str, tuple[float | None, ...]], ...]


def last_value_until(column: MetricColumn, step: int) -> float | None:
    """The last value of a column at or before `step`; None if there is none."""
    values = [value for at, value in zip(*column) if at <= step]
    return values[-1] if values else None


def _measures(run: Snapshot) -> dict[str, MetricColumn]:
    """The measures that recorded experiments also have. log π − log π_ref of a side is the logged
    reward divided by β.
    """
    measures = {
        name: run.columns[column]
        for name, column in (("kl", "gold/kl"), ("gold/accuracy", "gold/accuracy"))
        if column in run.columns
    }
    for side in ("chosen", "rejected"):
        if f"rewards/{side}" in run.columns:
            steps, values = run.columns[f"rewards/{side}"]
            measures[f"logps/{side}"] = (steps, [value / run.started["beta"] for value in values])
    return measures


def user_runs(method: str, steps: Sequence[int]) -> tuple[UserRun, ...]:
    """The latest runs of a method in the runs folder whose β was not changed while they trained,
    each measured at those of `steps` that it has reached.
    """
    runs: list[UserRun] = []
    for folder in sorted(
        (run for run in list_runs() if method_of(run.config) == method),
        key=lambda run: -run.path.stat().st_mtime,
    ):
        now = run_record(str(folder.path)).snapshot()
        if now.config["beta"] != now.started["beta"] or not now.columns:
            continue
        measures = tuple(
            (name, tuple(last_value_until(column, at) if at <= now.step else None for at in steps))
            for name, column in _measures(now).items()
        )
        runs.append(UserRun(folder.name, method, now.started["beta"], tuple(steps), measures))
    return tuple(runs[:MAX_USER_RUNS])


def measures_at_step(runs: Sequence[UserRun], step: int) -> list[dict[str, Any]]:
    """Name, method, β and measures of each run at one of its evaluation steps; measures without a
    value are left out.
    """
    rows = []
    for run in runs:
        at = run.steps.index(step)
        values = {name: series[at] for name, series in run.measures if series[at] is not None}
        rows.append({"name": run.name, "method": run.method, "beta": run.beta} | values)
    return rows
