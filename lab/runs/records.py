"""The records of a run: a `StepRecord` for each update and an `Event` for each change."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from lab.runs.states import EventKind


@dataclass(frozen=True)
class StepRecord:
    """One optimizer update; step 0 is the state before the first and holds only an evaluation.

    `metrics` maps names of `METRICS` to floats and depends on seed and device alone. The other numbers
    count since the run began, and comparisons of trajectories leave them out: `seconds` of training
    without evaluation and pauses, `phases` the seconds of sampling, scoring, updating and evaluating,
    `tokens` the completion tokens trained on, `generated` the tokens sampled to train on. `samples`
    are completions of this step: dicts with prompt, completion, and where known reward, advantage,
    group, gold.
    """

    step: int
    metrics: dict[str, float]
    seconds: float
    tokens: int
    samples: list[dict[str, Any]] = field(default_factory=list)
    phases: dict[str, float] = field(default_factory=dict)
    generated: int = 0

    def row(self) -> dict[str, Any]:
        """Return the line of metrics.jsonl: all fields but the samples."""
        data = asdict(self)
        del data["samples"]
        return {"type": "step"} | data


@dataclass(frozen=True)
class Event:
    """Something that happened between two updates; `step` is the last finished update.

    `detail` holds for `changed` the setting as "knob", its old value as "from" and its new one as
    "to"; for `noted`, `rejected` and `failed` the "message". `id` is the id of the command that the
    event answers, empty where there was none.
    """

    step: int
    kind: EventKind
    detail: dict[str, Any] = field(default_factory=dict)
    id: str = ""

    def row(self) -> dict[str, Any]:
        """Return the line of metrics.jsonl."""
        return {"type": "event"} | asdict(self)


def is_change(row: Mapping[str, Any]) -> bool:
    """Return whether an event row is a live change to a value that differs from the old one."""
    return row["kind"] == EventKind.CHANGED and row["detail"]["from"] != row["detail"]["to"]


def columns_of(rows: Iterable[Mapping[str, Any]]) -> dict[str, tuple[list[int], list[float]]]:
    """Return step rows (`StepRecord.row()`) as columns: metric → (steps, values).

    Event rows are left out. None, which stands for a value that is not finite, becomes NaN.
    """
    columns: dict[str, tuple[list[int], list[float]]] = {}
    for row in rows:
        if row["type"] == "step":
            for name, value in row["metrics"].items():
                steps, values = columns.setdefault(name, ([], []))
                steps.append(row["step"])
                values.append(math.nan if value is None else value)
    return columns
