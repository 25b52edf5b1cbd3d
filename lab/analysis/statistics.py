"""Means over seeds and their 95 % intervals."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from lab.errors import LabError

T_975 = (
    12.706,
    4.303,
    3.182,
    2.776,
    2.571,
    2.447,
    2.365,
    2.306,
    2.262,
    2.228,
    2.201,
    2.179,
    2.160,
    2.145,
    2.131,
    2.120,
    2.110,
    2.101,
    2.093,
    2.086,
)
"""97.5 % quantiles of Student's t with 1 to 20 degrees of freedom."""
MOST_SEEDS = len(T_975) + 1


@dataclass(frozen=True)
class Interval:
    """A mean over seeds; `half` is half the width of its 95 % interval."""

    mean: float
    half: float

    def text(self, digits: int = 2) -> str:
        """Such as "0.93 ± 0.02"."""
        return f"{self.mean:.{digits}f} ± {self.half:.{digits}f}"

    def signed(self) -> str:
        """Of a difference, such as "+0.19 ± 0.14"."""
        return f"{self.mean:+.2f} ± {self.half:.2f}".replace("-", "−")

    def sure(self) -> bool | None:
        """Of a difference: whether it is above zero; None where the interval holds zero."""
        return None if abs(self.mean) <= self.half else self.mean > 0


def half_width(n: int) -> float:
    """Half the width of the 95 % interval of a mean of `n` values, in units of their standard
    deviation: t/√n.

    Raises `LabError` for fewer than two values and for more than 21. Anchor: 3 values have t =
    4.303, so 2.484.
    """
    if n < 2:
        raise LabError(f"An interval takes at least two seeds, but there is {n}. Raise --seeds.")
    if n > MOST_SEEDS:
        raise LabError(f"There are {n} seeds, but at most {MOST_SEEDS} are compared.")
    return T_975[n - 2] / math.sqrt(n)


def interval(values: Sequence[float]) -> Interval:
    """Mean and Student's t interval of independent values. Raises `LabError` for fewer than two.

    Anchor: 1, 2, 3 have mean 2 and standard deviation 1, so half = 4.303/√3 = 2.484.
    """
    half = half_width(len(values))
    return Interval(fmean(values), half * stdev(values))


def paired_interval(first: Sequence[float], second: Sequence[float]) -> Interval:
    """Interval of first minus second, seed by seed: both see the same data order, prompts and
    noise, which then cancel.
    """
    if len(first) != len(second):
        raise LabError(
            f"Paired values come from the same seeds, but there are {len(first)} and {len(second)}."
        )
    return interval([a - b for a, b in zip(first, second)])
