"""Curves of pass@k: their intervals over seeds and prompts, words for the differences from the base, and
where a curve crosses that of the base.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lab.analysis.comparison_words import judge
from lab.analysis.crossed_design import Scores, crossed_difference, crossed_mean
from lab.analysis.statistics import SHARE, Interval, pass_at_k

BASE = "base"
MARGIN = 0.02
"""Differences in pass@k below this do not matter, as in the tuned comparison."""
_NOTHING = 1e-9
"""A smaller difference is rounding."""
SET_TITLES = {
    "default": "Chains of 3 to 6 operations",
    "harder": "Chains of {fewest} to {most} operations",
}
"""The sets of chains, each with its title."""
CURVES = {"pass": "right answer", "worked": "right answer, every step written and right"}
"""The curves, each with the completions that it counts."""
Counts = Sequence[Sequence[int]]
"""For every seed the number of right completions of every prompt."""


def scores_at(counts: Counts, samples: int, k: int) -> Scores:
    """Return pass@k of every seed and prompt, from right completions out of `samples`."""
    return [[pass_at_k(samples, correct, k) for correct in seed] for seed in counts]


def curve(counts: Counts, samples: int, ks: Sequence[int]) -> dict[str, list[float]]:
    """Return the mean of pass@k over seeds and prompts, and half its 95 % interval, for every k."""
    points = [crossed_mean(scores_at(counts, samples, k)).interval for k in ks]
    return {"mean": [p.mean for p in points], "half": [p.half for p in points]}


def differences_from_base(
    counts: Mapping[str, Counts], samples: int, ks: Sequence[int]
) -> dict[str, list[dict[str, Any]]]:
    """Return for every arm but the base, and every k, pass@k minus that of the base, paired over prompts,
    with the word that `judge` gives: all arms and k are one family.
    """
    base = {k: scores_at(counts[BASE], samples, k) for k in ks}
    pairs = [(arm, k) for arm in counts if arm != BASE for k in ks]
    judged = judge(
        [crossed_difference(scores_at(counts[arm], samples, k), base[k]) for arm, k in pairs],
        margin=MARGIN,
    )
    found: dict[str, list[dict[str, Any]]] = {arm: [] for arm in counts if arm != BASE}
    for (arm, k), one in zip(pairs, judged):
        interval = asdict(one.difference.interval)
        found[arm].append({"k": k} | interval | {"word": one.word, "p": one.p_value})
    return found


@dataclass(frozen=True)
class Crossing:
    """Where a curve that starts above the base's falls below it.

    `k` is None where the difference does not change its sign within the measured k. `low` and `high`
    are the ends of the 95 % interval: between them the interval of the difference holds 0. Each is None
    where it lies outside the measured k.
    """

    k: float | None
    low: float | None
    high: float | None

    def text(self, largest: int) -> str:
        """Return text such as "k = 23 (8 to 61)"; `largest` is the largest measured k."""
        if self.k is None:
            return f"none up to k = {largest}"
        low = "1" if self.low is None else f"{self.low:.0f}"
        high = f"beyond {largest}" if self.high is None else f"{self.high:.0f}"
        return f"k = {self.k:.0f} ({low} to {high})"


def crossing(points: Sequence[Mapping[str, Any]]) -> Crossing:
    """Return where the difference from the base falls from above 0 to below it, read from straight lines
    over log k, with its 95 % interval.

    Anchor: +0.1 at k = 1 and −0.1 at k = 4, each ± 0.05, cross at k = 2; the ends are √2 and √8.
    """
    ks = [float(point["k"]) for point in points]
    means = [float(point["mean"]) for point in points]
    halves = [float(point["half"]) for point in points]
    return Crossing(
        _falls_below_zero(ks, means),
        _falls_below_zero(ks, [m - h for m, h in zip(means, halves)]),
        _falls_below_zero(ks, [m + h for m, h in zip(means, halves)]),
    )


def _falls_below_zero(ks: Sequence[float], values: Sequence[float]) -> float | None:
    """The last k at which the line through the values falls from above 0 to below it; a line that only
    reaches 0 does not fall below it.
    """
    found = None
    for i in range(len(ks) - 1):
        before, after = values[i], values[i + 1]
        if before > _NOTHING >= after and any(value < -_NOTHING for value in values[i + 1 :]):
            share = before / (before - after)
            found = math.exp(math.log(ks[i]) + share * math.log(ks[i + 1] / ks[i]))
    return found


def point_text(points: Mapping[str, Sequence[float]], index: int) -> str:
    """Return a point of a curve as text, such as "0.93 ± 0.02"."""
    return Interval(points["mean"][index], points["half"][index]).text(2, SHARE)


def set_title(table: Mapping[str, Any], name: str) -> str:
    """Return the title of a set of chains."""
    return SET_TITLES[name].format(**table["plan"])


def rows_of(table: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """Return the rows of one set of chains, the base first."""
    return [row for row in table["rows"] if row["set"] == name]


def word_at(table: Mapping[str, Any], row: Mapping[str, Any], curve: str, k: int) -> str:
    """Return the word for the difference of a policy from the base at k."""
    return str(row[f"{curve}_differences"][table["plan"]["ks"].index(k)]["word"])


def words_sentence(
    table: Mapping[str, Any], name: str, curve: str, k: int, arms: Sequence[str] = ()
) -> str:
    """Return the policies by the word for their difference from the base at k: `arms`, or all if none is
    named.

    Example: "At k = 4, against the base: better: DPO, GRPO; not told apart: SFT."
    """
    by_word: dict[str, list[str]] = {}
    for row in rows_of(table, name):
        if row["arm"] != BASE and (row["arm"] in arms or not arms):
            method, _, more = row["title"].partition(", ")
            title = f"{method} ({more})" if more else method
            by_word.setdefault(word_at(table, row, curve, k), []).append(title)
    if len(by_word) == 1:
        (word,) = by_word
        return f"At k = {k}, against the base: all {word}."
    listed = "; ".join(f"{word}: {', '.join(titles)}" for word, titles in sorted(by_word.items()))
    return f"At k = {k}, against the base: {listed}."


def curve_sentence(
    table: Mapping[str, Any], name: str, curve: str, arms: Sequence[str] = ()
) -> str:
    """Return the words for one curve on one set of chains at the smallest and the largest k, with the
    value of the base at both, for `arms`, or for all if none is named.
    """
    ks = table["plan"]["ks"]
    (base,) = (row for row in rows_of(table, name) if row["arm"] == BASE)
    first, last = (point_text(base[curve], at) for at in (0, -1))
    words = " ".join(words_sentence(table, name, curve, k, arms) for k in (ks[0], ks[-1]))
    return (
        f"{set_title(table, name)}; {CURVES[curve]}. The base goes from {first} at k = {ks[0]} to {last} at"
        f" k = {ks[-1]}. {words}"
    )
