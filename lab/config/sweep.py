"""A sweep: one knob over several values, every other knob alike, each with several seeds."""

import math
from collections.abc import Mapping
from typing import Any

from lab.config.methods import METHODS, make_config
from lab.config.schema import declared_settings
from lab.errors import LabError, unknown

SWEPT_SETTINGS = ("beta", "group_size", "learning_rate")
VALUES: dict[str, str] = {
    "beta": "0.05, 0.1, 0.2, 0.5",
    "group_size": "2, 4, 8, 16",
    "learning_rate": "0.0002, 0.0005, 0.001",
}
"""What a sweep offers first; for β and G the values of the article."""
MAX_RUNS = 64  # runs


def sweepable(method: str) -> list[str]:
    """The knobs of a method that a sweep is offered for."""
    return [name for name in declared_settings(METHODS[method].config) if name in SWEPT_SETTINGS]


def sweep_runs(
    method: str, knobs: Mapping[str, Any], knob: str, values: str, seeds: int
) -> list[dict[str, Any]]:
    """The knobs of every run of a sweep; `values` are numbers between commas. The first seed of
    every value comes before the second of any.

    Raises `LabError` for a value that is no number, that the knob does not take, or that stands
    there twice, and for too many runs.
    """
    if knob not in sweepable(method):
        raise unknown(f"setting for a sweep of {method}", knob, sweepable(method))
    kind = declared_settings(METHODS[method].config)[knob].kind
    numbers = [_number(knob, word.strip(), kind) for word in values.split(",") if word.strip()]
    if not numbers:
        raise LabError(
            f"No value of {knob} is given. Write numbers between commas, such as {VALUES[knob]}."
        )
    for value in numbers:
        if numbers.count(value) > 1:
            raise LabError(
                f"{value:g} stands in the values of {knob} more than once. More runs of one value"
                " are more seeds."
            )
    if len(numbers) * seeds > MAX_RUNS:
        raise LabError(
            f"{len(numbers)} values with {seeds} seeds are {len(numbers) * seeds} runs, and a sweep"
            f" takes at most {MAX_RUNS}. Give fewer values or seeds."
        )
    made = [
        dict(knobs) | {knob: value, "seed": knobs.get("seed", 0) + i}
        for i in range(seeds)
        for value in numbers
    ]
    for one in made:
        make_config(method, one)
    return made


def _number(knob: str, word: str, kind: type) -> Any:
    try:
        value = kind(word)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise LabError(
            f"'{word}' is no value of {knob}, which takes"
            f" {'whole numbers' if kind is int else 'numbers'} between commas, such as"
            f" {VALUES[knob]}."
        )
    return value
