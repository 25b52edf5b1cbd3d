"""The records of a run: a `StepRecord` for each update and an `Event` for each change."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from lab.runs.states import EventKind


@dataclass(frozen=True)
class StepRecord:
    """One optimizer update; step 0 is the state before the first and holds only an evaluation.

    `metrics` maps names of `METRICS` to floats and depends on seed and device alone. What follows
    counts since the run began and does not enter comparisons of trajectories: `seconds` of training
    without evaluation and pauses, `phases` the same split into sampling, scoring and updating, with
    evaluating beside them, `tokens` of completions trained on, `generated` tokens sampled to train
    on. `samples` are completions of this step: dicts with prompt, completion, and where known
    reward, advantage, group, gold.
    """

    step: int
    metrics: dict[str, float]
    seconds: float
    tokens: int
    samples: list[dict[str, Any]] = field(default_factory=list)
    phases: dict[str, float] = field(default_factory=dict)
    generated: int = 0

    def row(self) -> dict[str, Any]:
        """The line of metrics.jsonl: everything but the samples."""
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
        """The line of metrics.jsonl."""
        return {"type": "event"} | asdict(self)


def is_change(row: Mapping[str, Any]) -> bool:
    """Whether an event row is a live change to another value than the one before."""
    return row["kind"] == EventKind.CHANGED and row["detail"]["from"] != row["detail"]["to"]


def columns_of(rows: Iterable[Mapping[str, Any]]) -> dict[str, tuple[list[int], list[float]]]:
    """Step rows (`StepRecord.row()`) as columns: metric → (steps, values). Event rows are left out;
    None, which stands for what is not finite, is NaN.
    """
    columns: dict[str, tuple[list[int], list[float]]] = {}
    for row in rows:
        if row["type"] == "step":
            for name, value in row["metrics"].items():
                steps, values = columns.setdefault(name, ([], []))
                steps.append(row["step"])
                values.append(math.nan if value is None else value)
    return columns
