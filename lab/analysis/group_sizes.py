"""Which group size of the experiment "groups" is best: the words for every two sizes."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from lab.analysis.comparison_words import judge, recorded_difference
from lab.analysis.statistics import SHARE, Interval

BUDGETS = {"rollouts": "equally many completions", "prompts": "equally many prompts"}


@dataclass(frozen=True)
class BestSize:
    """The group size with the highest mean gold accuracy of a budget, the sizes that are worse, and those
    that are not told apart from it.
    """

    size: int
    gold: Interval
    worse: tuple[int, ...]
    not_told_apart: tuple[int, ...]


def best_sizes(table: Mapping[str, Any]) -> dict[str, BestSize]:
    """Return the best size by budget. All pairs of sizes of both budgets are one family, because the best
    one is picked after the runs.
    """
    gold = {
        (row["budget"], row["group_size"]): Interval(**row["final"]["gold/accuracy"])
        for row in table["rows"]
    }
    pairs = [(a, b) for a, b in combinations(gold, 2) if a[0] == b[0]]
    judged = judge([recorded_difference(gold[a], gold[b], table["seeds"]) for a, b in pairs])
    told = {frozenset(pair) for pair, judgement in zip(pairs, judged) if judgement.is_sure}
    found = {}
    for budget in dict.fromkeys(of for of, _ in gold):
        sizes = [size for of, size in gold if of == budget]
        best = max(sizes, key=lambda size: gold[budget, size].mean)
        others = [size for size in sizes if size != best]
        worse = [g for g in others if frozenset({(budget, best), (budget, g)}) in told]
        found[budget] = BestSize(
            best, gold[budget, best], tuple(worse), tuple(g for g in others if g not in worse)
        )
    return found


def best_sizes_sentence(table: Mapping[str, Any]) -> str:
    """Return the best size of each budget and its comparison with the others, in numbers."""
    parts = []
    for budget, best in best_sizes(table).items():
        said = [
            f"{word} G = {_listed(sizes)}"
            for word, sizes in (
                ("better than", best.worse),
                ("not told apart from", best.not_told_apart),
            )
            if sizes
        ]
        parts.append(
            f"With {BUDGETS[budget]} in an update, G = {best.size} has the highest mean gold accuracy,"
            f" {best.gold.text(2, SHARE)}; it is {' and '.join(said)}."
        )
    return " ".join(parts)


def _listed(sizes: tuple[int, ...]) -> str:
    *first, last = map(str, sizes)
    return f"{', '.join(first)} and {last}" if first else last
