"""How far gold accuracy falls when one setting of a method is divided or multiplied by a factor."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lab.analysis.comparison_words import (
    Difference,
    Judgement,
    independent_difference,
    judge,
    unpaired_difference,
)

Table = Mapping[str, Any]


@dataclass(frozen=True)
class Fall:
    """Gold accuracy of a method with its central settings minus that with its worst recorded change.

    `knob` is the setting that is changed, and `end` is "low" (divided) or "high" (multiplied).
    """

    knob: str
    end: str
    difference: Difference


def falls(table: Table) -> dict[str, Fall]:
    """Return for every method of the experiment "sensitivity" the change of one setting with the lowest
    mean gold accuracy.
    """
    runs = {name: [run["gold/accuracy"] for run in found] for name, found in table["runs"].items()}
    worst: dict[str, Fall] = {}
    for row in table["rows"]:
        method, knob = row["method"], row["knob"]
        for end in ("low", "high"):
            fall = Fall(
                knob,
                end,
                unpaired_difference(runs[f"{method}-centre"], runs[f"{method}-{knob}-{end}"]),
            )
            if method not in worst or fall.difference.mean > worst[method].difference.mean:
                worst[method] = fall
    return worst


def compare_falls(table: Table, method: str, others: Sequence[str]) -> dict[str, Judgement]:
    """Return for each of the other methods whether the fall of `method` is "larger" or "smaller"; all are
    one family.
    """
    found = falls(table)
    judged = judge(
        [
            independent_difference(found[method].difference, found[other].difference)
            for other in others
        ],
        words=("larger", "smaller"),
    )
    return dict(zip(others, judged))
