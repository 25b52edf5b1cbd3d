"""The shapes of the lines that a run folder holds, so that no reader meets a key that is missing or
a value of another type.

A shape takes the object of a line and returns it with the keys that its readers use, or None for a
line of another shape, which is passed over.
"""

import math
from collections.abc import Mapping
from typing import Any

JsonRow = dict[str, Any]
MAX_COUNT = 2**53  # A whole number beyond it is none that a run has counted.


def metrics_row(row: JsonRow) -> JsonRow | None:
    """A step or an event, as `lab.runs.metrics` writes them. A metric that is not finite becomes
    None, and one that is no number is left out; what later versions added gets its default.
    """
    if row.get("type") == "step":
        return _step(row)
    return _event(row) if row.get("type") == "event" else None


def _step(row: JsonRow) -> JsonRow | None:
    whole = {"seconds": 0.0, "tokens": 0, "phases": {}, "generated": 0} | row
    metrics, phases = whole.get("metrics"), whole["phases"]
    fits = (
        all(_is_count(whole.get(name)) for name in ("step", "tokens", "generated"))
        and _is_number(whole["seconds"])
        and isinstance(metrics, dict)
    )
    if not fits or not isinstance(phases, dict):
        return None
    return whole | {
        "metrics": _finite(
            {name: value for name, value in metrics.items() if value is None or _is_number(value)}
        ),
        "phases": {name: value for name, value in phases.items() if _is_number(value)},
    }


def _event(row: JsonRow) -> JsonRow | None:
    whole = {"detail": {}, "id": ""} | row
    detail, kind = whole["detail"], whole.get("kind")
    fits = (
        _is_count(whole.get("step"))
        and isinstance(kind, str)
        and isinstance(whole["id"], str)
        and isinstance(detail, dict)
    )
    if (
        not fits
        or kind == "changed"
        and not (
            isinstance(detail.get("knob"), str)
            and _is_scalar(detail.get("from"))
            and _is_scalar(detail.get("to"))
        )
    ):
        return None
    if kind in ("rejected", "failed") and not isinstance(detail.get("message"), str):
        return None
    return whole | {"kind": _clean(kind), "detail": _cleaned(detail)}


def sample_row(row: JsonRow) -> JsonRow | None:
    """A completion, or what else a method shows of a step: a row that tells its step and its place
    there. A reward that is not finite becomes None.
    """
    texts, numbers = (
        [row.get(name, "") for name in ("prompt", "completion")],
        [row.get(name) for name in ("reward", "advantage", "gold", "length")],
    )
    fits = (
        _is_count(row.get("step"))
        and _is_count(row.get("index"))
        and all(isinstance(text, str) for text in texts)
        and all(v is None or isinstance(v, bool) or _is_number(v) for v in numbers)
        and all(map(_is_scalar, row.values()))
    )
    return _cleaned(_finite({"prompt": ""} | row)) if fits else None


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


def _cleaned(row: Mapping[str, Any]) -> JsonRow:
    return {name: _clean(value) if isinstance(value, str) else value for name, value in row.items()}
