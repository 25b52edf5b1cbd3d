"""Checks the rows that a run folder holds, so that no reader meets a missing key or a value of
another type.

Each function takes the object of a line and returns it with the keys that its readers use, or None
for a row that does not fit, which readers pass over.
"""

import math
from collections.abc import Mapping
from typing import Any

from lab.runs.states import EventKind

JsonRow = dict[str, Any]
MAX_COUNT = 2**53  # No run counts as far as this.


def metrics_row(row: JsonRow) -> JsonRow | None:
    """Check a step or an event, as `lab.runs.records` writes them.

    A metric that is not finite becomes None, and a metric that is no number is left out. Keys that
    later versions added get their default.
    """
    if row.get("type") == "step":
        return _step_row(row)
    return _event_row(row) if row.get("type") == "event" else None


def _step_row(row: JsonRow) -> JsonRow | None:
    defaults: JsonRow = {"seconds": 0.0, "tokens": 0, "phases": {}, "generated": 0}
    complete = defaults | row
    metrics, phases = complete.get("metrics"), complete["phases"]
    counts_fit = all(_is_count(complete.get(name)) for name in ("step", "tokens", "generated"))
    if not (counts_fit and _is_number(complete["seconds"])):
        return None
    if not (isinstance(metrics, dict) and isinstance(phases, dict)):
        return None
    numbers = {name: v for name, v in metrics.items() if v is None or _is_number(v)}
    return complete | {
        "metrics": _finite(numbers),
        "phases": {name: value for name, value in phases.items() if _is_number(value)},
    }


def _event_row(row: JsonRow) -> JsonRow | None:
    defaults: JsonRow = {"detail": {}, "id": ""}
    complete = defaults | row
    detail, kind = complete["detail"], complete.get("kind")
    if kind not in list(EventKind) or not _is_count(complete.get("step")):
        return None
    if not (isinstance(complete["id"], str) and isinstance(detail, dict)):
        return None
    if kind == EventKind.CHANGED and not (
        isinstance(detail.get("knob"), str)
        and detail.keys() >= {"from", "to"}
        and _is_scalar(detail.get("from"))
        and _is_scalar(detail.get("to"))
    ):
        return None
    has_message = isinstance(detail.get("message"), str)
    if kind in (EventKind.REJECTED, EventKind.FAILED) and not has_message:
        return None
    return complete | {"detail": _clean_texts(detail)}


def sample_row(row: JsonRow) -> JsonRow | None:
    """Check a sample: a completion with its step and its index within the step.

    A reward that is not finite becomes None.
    """
    texts = [row.get(name, "") for name in ("prompt", "completion")]
    numbers = [row.get(name) for name in ("reward", "advantage", "gold", "length")]
    fits = (
        _is_count(row.get("step"))
        and _is_count(row.get("index"))
        and all(isinstance(text, str) for text in texts)
        and all(v is None or isinstance(v, bool) or _is_number(v) for v in numbers)
        and all(map(_is_scalar, row.values()))
    )
    return _clean_texts(_finite({"prompt": ""} | row)) if fits else None


def _is_number(value: Any) -> bool:
    return type(value) is float or type(value) is int and abs(value) < MAX_COUNT


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < MAX_COUNT


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, str | bool) or _is_number(value)


def _finite(row: Mapping[str, Any]) -> JsonRow:
    return {
        name: None if type(value) is float and not math.isfinite(value) else value
        for name, value in row.items()
    }


def _clean(text: str) -> str:
    """The text without halves of surrogate pairs, which nothing can show."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def _clean_texts(row: Mapping[str, Any]) -> JsonRow:
    return {name: _clean(value) if isinstance(value, str) else value for name, value in row.items()}
