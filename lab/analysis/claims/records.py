"""The recorded results that measure the claims."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import Any

from lab.analysis.comparison_words import (
    NOT_TOLD_APART,
    Difference,
    Judgement,
    judge,
    recorded_difference,
    unpaired_difference,
)
from lab.analysis.recorded_results import Comparison, load_result
from lab.analysis.statistics import Interval, possible_range

Table = Mapping[str, Any]


class Records:
    """Recorded results by name, each read when it is first needed.

    `changed` holds tables that stand in for the recorded ones, such as those of a new measurement.
    """

    def __init__(self, changed: Mapping[str, Table] | None = None) -> None:
        self._tables: dict[str, Table] = dict(changed or {})

    def __getitem__(self, name: str) -> Table:
        if name not in self._tables:
            self._tables[name] = load_result(name)
        return self._tables[name]

    @cached_property
    def tuned(self) -> "TunedResults":
        """All methods with tuned settings, at equal tokens and at equal KL."""
        return TunedResults(self["tuned"])

    @cached_property
    def large_model(self) -> dict[str, Table]:
        """By arm, the recorded cost of one update of a model with 1.2 billion weights on a GPU."""
        rows = self["resources-h100"]["rows"]
        return {row["arm"]: row for row in rows if row["size"] == "1.2b"}

    def peak_gib(self, arm: str) -> float:
        """Return the peak memory of one update of that model, in GiB."""
        return float(self.large_model[arm]["measured"]) / 2**30

    @cached_property
    def tokens(self) -> Comparison:
        """All methods and judges at defaults and equal tokens."""
        return Comparison(dict(self["chain-tokens"]))

    @property
    def times_from(self) -> str:
        """The seeds and the device of the times, which are not those of the other records."""
        return f"{self.tokens.seeds} seeds, {self.tokens.table['device']}"


@dataclass(frozen=True)
class TunedComparison:
    """First minus second in gold accuracy with its 95 % interval; the word holds for all comparisons of
    its view together.
    """

    interval: Interval
    word: str

    @property
    def text(self) -> str:
        """The difference in words, such as "+0.06 ± 0.03, better"."""
        return f"{self.interval.signed()}, {self.word}"


class TunedResults:
    """The record "tuned". A view is "defaults", "tokens" or "kl"."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self._rows = {(row["view"], row["arm"]): row for row in table["rows"]}

    @property
    def base(self) -> str:
        """Gold accuracy before training, as text."""
        return self._interval(self.table["base"]["gold/accuracy"]).text()

    @property
    def base_mean(self) -> float:
        """Gold accuracy before training."""
        return float(self.table["base"]["gold/accuracy"]["mean"])

    def arms(self, view: str = "tokens") -> list[str]:
        """Return the arms of a view, the highest gold accuracy first."""
        found = [arm for of, arm in self._rows if of == view]
        return sorted(found, key=lambda arm: -self.mean(arm, view))

    def title(self, arm: str) -> str:
        """Return the title of an arm, such as "GRPO, rule"."""
        return str(self.table["titles"][arm])

    def mean(self, arm: str, view: str = "tokens", measure: str = "gold/accuracy") -> float:
        """Return the mean over seeds."""
        return float(self._rows[view, arm][measure]["mean"])

    def text(self, arm: str, view: str = "tokens", measure: str = "gold/accuracy") -> str:
        """Return text such as "0.89 ± 0.02"."""
        found = self._interval(self._rows[view, arm][measure])
        return found.text(2, possible_range(measure))

    def seeds(self, view: str = "tokens") -> int:
        """Return the number of seeds that all arms of a view have."""
        return min(row["seeds"] for (of, _), row in self._rows.items() if of == view)

    def compare(self, first: str, second: str, view: str = "tokens") -> TunedComparison:
        """Return `first` minus `second`, with the word of the record.

        Raises `KeyError` for two arms that the view does not compare.
        """
        turned = {"better": "worse", "worse": "better"}
        for one in self.table["comparisons"][view]:
            if (one["first"], one["second"]) == (first, second):
                return TunedComparison(self._interval(one), one["word"])
            if (one["first"], one["second"]) == (second, first):
                flipped = Interval(-one["mean"], one["half"])
                return TunedComparison(flipped, turned.get(one["word"], one["word"]))
        raise KeyError((first, second, view))

    def gain(self, arm: str) -> Judgement:
        """Return the gold accuracy of `arm` at equal tokens minus that before training."""
        before = self._interval(self.table["base"]["gold/accuracy"])
        after = self._interval(self._rows["tokens", arm]["gold/accuracy"])
        (word,) = judge([recorded_difference(after, before, self.seeds())])
        return word

    def order_text(self, view: str = "tokens") -> str:
        """Return which arm of a view has the highest mean, and the words for it and every other arm."""
        best, *others = self.arms(view)
        words = {
            "better": "better than",
            "worse": "worse than",
            NOT_TOLD_APART: "not told apart from",
        }
        by_word: dict[str, list[str]] = {}
        for arm in others:
            word = self.compare(best, arm, view).word
            by_word.setdefault(words.get(word, f"{word} of"), []).append(self.title(arm))
        said = "; ".join(f"{word} {listed(titles)}" for word, titles in by_word.items())
        return f"{self.title(best)} has the highest mean, {self.text(best, view)}. It is {said}."

    def against_text(self, first: str, others: Sequence[str], view: str = "tokens") -> str:
        """Return `first` minus each of the others, such as "GRPO minus DPO +0.02 ± 0.01, better"."""
        return "; ".join(
            f"{self.title(first)} minus {self.title(other)} {self.compare(first, other, view).text}"
            for other in others
        )

    def spread_difference(self, first: str, second: str) -> Difference:
        """Return how much farther the seeds of `first` lie from their median than those of `second`, at
        equal tokens (Brown and Forsythe 1974, with Welch's error).
        """
        distances = []
        for arm in (first, second):
            values = self._rows["tokens", arm]["by_seed"]
            distances.append(distances_from_median(values))
        return unpaired_difference(*distances)

    def range_text(self, arm: str) -> str:
        """Return the lowest and highest gold accuracy over seeds, at equal tokens."""
        row = self._rows["tokens", arm]
        return f"{row['lowest']:.2f} to {row['highest']:.2f}"

    @staticmethod
    def _interval(measure: Table) -> Interval:
        return Interval(measure["mean"], measure["half"])


def distances_from_median(values: Sequence[float]) -> list[float]:
    """Return how far each value lies from the median. Anchor: 1, 2, 6 give 1, 0, 4."""
    centre = median(values)
    return [abs(value - centre) for value in values]


def listed(words: Sequence[str]) -> str:
    """Return words as a list in a sentence: "a; b and c", since a title may hold a comma."""
    *first, last = words
    return f"{'; '.join(first)} and {last}" if first else last


def percent(share: float) -> str:
    """Return a share such as 0.32 as "32 %"."""
    return f"{100 * share:.0f} %"


def number(value: float, digits: int = 1) -> str:
    """Return a number with a typographic minus."""
    return f"{value:.{digits}f}".replace("-", "−")
