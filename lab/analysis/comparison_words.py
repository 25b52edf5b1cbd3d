"""The words for a comparison: better, worse, level within a margin, or not told apart.

Every page, report and notebook that judges a difference takes its word from `judge`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from lab.analysis.statistics import Interval
from lab.analysis.student_t import t_quantile, t_two_sided
from lab.errors import LabError

NOT_TOLD_APART = "not told apart"
_NO_SPREAD = 1e-12
"""A standard error below this is rounding: the values do not differ and show no error."""


@dataclass(frozen=True)
class Difference:
    """A measured difference, first minus second, with its standard error and the degrees of freedom of
    that error.
    """

    mean: float
    standard_error: float
    degrees: float

    @property
    def interval(self) -> Interval:
        """The 95 % interval of this one comparison, without a correction for others."""
        return Interval(self.mean, t_quantile(self.degrees) * self.standard_error)

    @property
    def p_value(self) -> float:
        """The two-sided p-value of "there is no difference"; 1 where the values show no error."""
        if self.standard_error < _NO_SPREAD:
            return 1.0
        return t_two_sided(self.mean / self.standard_error, self.degrees)

    def level_p_value(self, margin: float) -> float:
        """Return the p-value of "the difference is at least `margin`", by two one-sided tests
        (Schuirmann 1987); 1 where the values show no error.
        """
        if self.standard_error < _NO_SPREAD:
            return 1.0
        room = (margin - abs(self.mean)) / self.standard_error
        tail = t_two_sided(room, self.degrees) / 2
        return tail if room > 0 else 1 - tail


@dataclass(frozen=True)
class Judgement:
    """A difference and its word. `p_value` is corrected for the `family_size` comparisons that were judged
    together.
    """

    difference: Difference
    word: str
    p_value: float
    family_size: int

    @property
    def is_sure(self) -> bool:
        """Whether the word says that one is better or worse."""
        return self.word != NOT_TOLD_APART and not self.word.startswith("level")

    def text(self, digits: int = 2) -> str:
        """Return text such as "+0.19 ± 0.05, better"."""
        return f"{self.difference.interval.signed(digits)}, {self.word}"


def recorded_text(comparison: Mapping[str, Any], digits: int = 3) -> str:
    """Return a recorded comparison, with its mean, half and word, as text such as "+0.120 ± 0.030, better"."""
    difference = Interval(comparison["mean"], comparison["half"]).signed(digits)
    return f"{difference}, {comparison['word']}"


def paired_difference(first: Sequence[float], second: Sequence[float]) -> Difference:
    """Return first minus second, seed by seed, for arms that share prompts and noise in each seed.

    Raises `LabError` when the numbers of values differ, and for fewer than two.
    Anchor: (3, 5, 4) minus (2, 3, 1) is 1, 2, 3: mean 2, standard error 1/√3, 2 degrees of freedom.
    """
    if len(first) != len(second):
        raise LabError(
            f"Paired values come from the same seeds, but there are {len(first)} and {len(second)}."
            " Compare them unpaired."
        )
    return against_constant([a - b for a, b in zip(first, second)], 0.0)


def unpaired_difference(first: Sequence[float], second: Sequence[float]) -> Difference:
    """Return first minus second for independent values, whose spreads may differ (Welch 1947).

    Raises `LabError` for fewer than two values. Anchor: (1, 2, 3) minus (4, 6, 8): mean −4, standard error
    √(1/3 + 4/3) = 1.291, (5/3)² / ((1/3)²/2 + (4/3)²/2) = 2.941 degrees of freedom.
    """
    return independent_difference(against_constant(first, 0.0), against_constant(second, 0.0))


def against_constant(values: Sequence[float], constant: float) -> Difference:
    """Return the mean of independent values minus a number that has no error of its own.

    Raises `LabError` for fewer than two values.
    """
    if len(values) < 2:
        raise LabError(
            f"A comparison takes at least two seeds, but there is {len(values)}. Raise --seeds."
        )
    error = stdev(values) / math.sqrt(len(values))
    return Difference(fmean(values) - constant, error, len(values) - 1)


def recorded_difference(first: Interval, second: Interval, seeds: int) -> Difference:
    """Return first minus second, unpaired, from two recorded intervals over `seeds` seeds each."""
    return independent_difference(from_interval(first, seeds), from_interval(second, seeds))


def from_interval(interval: Interval, seeds: int, constant: float = 0.0) -> Difference:
    """Return a recorded interval over `seeds` seeds minus a number that has no error of its own. The
    interval of a paired difference gives that difference.

    Raises `LabError` for fewer than two seeds.
    """
    if seeds < 2:
        raise LabError(f"A comparison takes at least two seeds, but there is {seeds}.")
    return Difference(interval.mean - constant, interval.half / t_quantile(seeds - 1), seeds - 1)


def independent_difference(first: Difference, second: Difference) -> Difference:
    """Return `first` minus `second` for two independent differences: the squares of their standard errors
    add up, with Welch's degrees of freedom.

    Anchor: 1 with error 3 and −1 with error 4, both with 9 degrees, give 2 with error 5 and
    625/(81/9 + 256/9) = 16.7 degrees.
    """
    squares = [first.standard_error**2, second.standard_error**2]
    total, degrees = sum(squares), first.degrees + second.degrees
    if math.sqrt(total) >= _NO_SPREAD:
        degrees = total**2 / (squares[0] ** 2 / first.degrees + squares[1] ** 2 / second.degrees)
    return Difference(first.mean - second.mean, math.sqrt(total), degrees)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number (Holm 1979): the smallest of m is multiplied by m, the
    next by m − 1, and so on; none is smaller than one before it or larger than 1.

    Anchor: 0.01, 0.04, 0.03 give 0.03, 0.06, 0.06.
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = highest
    return corrected


def judge(
    differences: Sequence[Difference],
    *,
    margin: float | None = None,
    words: tuple[str, str] = ("better", "worse"),
    error_rate: float = 0.05,
) -> list[Judgement]:
    """Return the word for each comparison of a family: all comparisons among which a reader may pick.

    "level within MARGIN": the difference is surely smaller than `margin`, the smallest difference that
    matters; without a margin nothing is called level. This word comes first: a difference that is sure
    but surely below the margin is level. Otherwise words[0] or words[1] if the difference is surely above
    or below 0, and "not told apart" if neither is sure. "Surely": the p-value, corrected for the number of
    comparisons by `holm`, is at most `error_rate`. For a measure that should be low, such as seconds, turn
    the words round or give others, such as ("slower", "faster").

    Raises `LabError` unless the margin is positive.
    """
    if margin is not None and not margin > 0:
        raise LabError(f"A margin is a positive difference, but got {margin:g}.")
    corrected = holm([d.p_value for d in differences])
    level = holm([1.0 if margin is None else d.level_p_value(margin) for d in differences])
    judgements = []
    for difference, p_value, level_p_value in zip(differences, corrected, level):
        if level_p_value <= error_rate:
            word, p_value = f"level within {margin:g}", level_p_value
        elif p_value <= error_rate:
            word = words[0] if difference.mean > 0 else words[1]
        else:
            word = NOT_TOLD_APART
        judgements.append(Judgement(difference, word, p_value, len(differences)))
    return judgements
