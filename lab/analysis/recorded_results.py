"""Results of experiments that the lab ships: small JSON files, each with its command, device and
versions.
"""

import json
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from lab.analysis.comparison_words import (
    Difference,
    Judgement,
    judge,
    paired_difference,
    unpaired_difference,
)
from lab.analysis.statistics import Interval, possible_range

RESULTS_FOLDER = Path(__file__).parents[1] / "assets" / "results"
SHARED_NOISE = (frozenset({"dpo", "ipo"}), frozenset({"ppo", "online_dpo", "grpo@model"}))
"""Arms that share more of a seed's luck than the adapter's first weights: DPO and IPO read the same
pairs in the same order, and the others have the same reward model. Only these are compared seed by seed.
"""
ARTICLE_COMPARISONS = (
    ("ppo@gold", "ppo"),
    ("ipo", "dpo"),
    ("kto", "dpo"),
    ("online_dpo@gold", "dpo"),
    ("online_dpo@gold", "online_dpo"),
    ("grpo", "dpo"),
    ("grpo", "ppo@gold"),
)
"""The comparisons of gold accuracy at equal tokens that the claims of the article need: one family."""


def load_result(name: str) -> dict[str, Any]:
    """Return the table of a recorded comparison or experiment, as `lab.experiments` wrote it."""
    return json.loads((RESULTS_FOLDER / f"{name}.json").read_text("utf-8"))


def is_recorded(name: str) -> bool:
    """Return whether the lab ships the table of an experiment."""
    return (RESULTS_FOLDER / f"{name}.json").is_file()


def recorded_result(name: str) -> dict[str, Any] | None:
    """Return the table of a recorded experiment, or None if it has not been recorded."""
    return load_result(name) if is_recorded(name) else None


def peak_memory_by_arm() -> dict[str, int]:
    """Return the measured peak of one update in bytes, by arm, for the first model of the recorded
    resources; the result is empty if they have not been recorded.
    """
    rows = (recorded_result("resources") or {"rows": []})["rows"]
    return {row["arm"]: row["measured"] for row in rows if row["size"] == rows[0]["size"]}


class Comparison:
    """A recorded comparison. Its methods take an arm and a measure, by default gold accuracy."""

    def __init__(self, table: dict[str, Any]) -> None:
        self.table, self.base, self.seeds = table, table["base"], table["plan"]["seeds"]
        self._rows = {row["method"]: row for row in table["methods"]}

    def title(self, arm: str) -> str:
        """Return the title of an arm, such as "GRPO, rule"."""
        return self._rows[arm]["title"]

    def mean(self, arm: str, measure: str = "gold/accuracy") -> float:
        """Return the mean over seeds."""
        return self._rows[arm][measure]["mean"]

    def half(self, arm: str, measure: str = "gold/accuracy") -> float:
        """Return half the width of the 95 % interval."""
        return self._rows[arm][measure]["half"]

    def interval(self, arm: str, measure: str = "gold/accuracy") -> Interval:
        """Return the mean over seeds with its 95 % interval."""
        return Interval(self.mean(arm, measure), self.half(arm, measure))

    def text(self, arm: str, measure: str = "gold/accuracy") -> str:
        """Return text such as "0.93 ± 0.02"."""
        return self.interval(arm, measure).text(2, possible_range(measure))

    def spread(self, arm: str, measure: str = "gold/accuracy") -> float:
        """Return the highest minus the lowest value over the seeds."""
        values = [run[measure] for run in self.table["runs"][arm]]
        return max(values) - min(values)

    def has(self, arm: str) -> bool:
        """Return whether the comparison measured an arm."""
        return arm in self._rows

    def seeds_of(self, measure: str = "gold/accuracy") -> int:
        """Return the number of seeds behind a measure."""
        return self.seeds

    def differences(self) -> list[tuple[str, str, Judgement]]:
        """Return every two arms and the word for their difference in gold accuracy."""
        return judged_differences(self.table["runs"])

    def differences_note(self) -> str:
        """Return the sentence under a table of the differences that says how their words were found."""
        return family_note(len(self.differences()))

    def difference(self, first: str, second: str, measure: str = "gold/accuracy") -> Difference:
        """Return `first` minus `second`."""
        return arm_difference(self.table["runs"], first, second, measure)

    def judge(
        self,
        pairs: Sequence[tuple[str, str]],
        measure: str = "gold/accuracy",
        *,
        margin: float | None = None,
        words: tuple[str, str] = ("better", "worse"),
    ) -> list[Judgement]:
        """Return the words for a family of comparisons, each a pair of arms."""
        return judge([self.difference(*p, measure) for p in pairs], margin=margin, words=words)

    def judge_article(self, first: str, second: str) -> Judgement:
        """Return the word for one of the article's comparisons, judged in their family.

        Raises `KeyError` for a pair of arms that is not one of them.
        """
        family = [pair for pair in ARTICLE_COMPARISONS if set(pair) <= self._rows.keys()]
        return dict(zip(family, self.judge(family)))[first, second]


def shares_noise(first: str, second: str) -> bool:
    """Return whether two arms of a comparison share a seed's luck in training."""
    return any({first, second} <= arms for arms in SHARED_NOISE)


def arm_difference(
    runs: Mapping[str, Sequence[Mapping[str, float]]], first: str, second: str, measure: str
) -> Difference:
    """Return `first` minus `second` over the runs of each arm: seed by seed where the arms share noise, and
    for the proxy reward, which one reward model a seed gives to all arms; otherwise unpaired.
    """
    values = [[run[measure] for run in runs[arm]] for arm in (first, second)]
    is_paired = measure == "proxy" or shares_noise(first, second)
    return (paired_difference if is_paired else unpaired_difference)(*values)


def judged_differences(
    runs: Mapping[str, Sequence[Mapping[str, float]]], measure: str = "gold/accuracy"
) -> list[tuple[str, str, Judgement]]:
    """Return every two arms of a comparison and the word for their difference; all are one family."""
    pairs = list(combinations(runs, 2))
    judgements = judge([arm_difference(runs, *pair, measure) for pair in pairs])
    return [(*pair, judgement) for pair, judgement in zip(pairs, judgements)]


def family_note(number: int) -> str:
    """Return the sentence under a table of comparisons that says how their words were found."""
    return (
        "The words hold for all comparisons together: the p-values are corrected for their number"
        f" ({number}) by Holm's method, so that the chance of even one wrong “better” or “worse” is at"
        " most 5 %. The number behind ± belongs to one comparison alone. DPO and IPO, which read the same"
        " pairs in the same order, and methods with the same reward model are compared seed by seed; all"
        " others unpaired. “Not told apart” does not say that two methods are equal."
    )


def relative_cost(
    table: dict[str, Any], measure: str, methods: dict[str, str], to: str
) -> dict[str, dict[str, float]]:
    """Return a measure in percent of that of arm `to`: the mean over seeds of the ratio, and half of
    its range over seeds. `methods` maps a name to its arm.
    """
    percentages = {}
    for name, arm in methods.items():
        ratios = [
            100 * a[measure] / b[measure] for a, b in zip(table["runs"][arm], table["runs"][to])
        ]
        percentages[name] = {
            "mean": sum(ratios) / len(ratios),
            "half": (max(ratios) - min(ratios)) / 2,
        }
    return percentages
