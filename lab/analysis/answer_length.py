"""The record of the length of right and wrong answers in words."""

from collections.abc import Mapping
from typing import Any

from lab.analysis.comparison_words import recorded_text

REDUCTIONS = {
    "sequence_mean": "mean over each completion (GRPO)",
    "token_mean": "mean over all tokens (DAPO)",
    "fixed_length": "sum over a constant (Dr. GRPO)",
}
"""The reductions with their words."""
KINDS = ("right", "wrong")


def unit(table: Mapping[str, Any]) -> str:
    """Return the unit in which lengths are compared."""
    return "tokens / full scratchpad" if table["plan"]["operations"] else "tokens"


def task_text(table: Mapping[str, Any]) -> str:
    """Return the task of a record in words."""
    if operations := table["plan"]["operations"]:
        return f"chains of {operations[0]} to {operations[1]} operations"
    return "sums of two numbers with SmolLM2-135M"


def compared(one: Mapping[str, Any]) -> str:
    """Return what a comparison of the record compares."""
    if "grows" in one:
        return f"{REDUCTIONS[one['grows']]}: end − middle of training"
    return f"{REDUCTIONS[one['first']]} − {REDUCTIONS[one['second']]}"


def comparisons_of(table: Mapping[str, Any], kind: str) -> dict[tuple[str, ...], Mapping[str, Any]]:
    """Return the comparisons of right or of wrong completions: two reductions at the end by their names,
    and growth by the name of its reduction.
    """
    return {
        (one["grows"],) if "grows" in one else (one["first"], one["second"]): one
        for one in table["comparisons"]
        if one["kind"] == kind
    }


def length_sentence(table: Mapping[str, Any], kind: str) -> str:
    """Return how long right or wrong completions are at the end under sequence_mean, against the other two
    reductions and against the middle of training.
    """
    found = comparisons_of(table, kind)
    parts = [
        f"{compared(found[names])} is {recorded_text(found[names])}"
        for names in (
            ("sequence_mean", "fixed_length"),
            ("sequence_mean", "token_mean"),
            ("sequence_mean",),
        )
    ]
    return (
        f"Length of {kind} completions on {task_text(table)}, differences in {unit(table)}:"
        f" {'; '.join(parts)}."
    )
