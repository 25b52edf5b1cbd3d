"""The answer that a measured number gives to a prediction, and the noise within which it gives none."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from math import hypot
from statistics import fmean, stdev
from typing import NamedTuple

from lab.errors import LabError

NORMAL_95 = 1.96
"""Half the width of a 95 % interval in standard errors."""


class Answer(NamedTuple):
    """The option that a number supports, and the distance from the number to the nearest one that
    supports another option.
    """

    option: str
    apart: float


def between(options: Sequence[str], value: float, *limits: float) -> Answer:
    """Return the answer for options that stand for intervals of a number, in ascending order; `limits`
    separate them.

    Anchor: the options "low", "middle" and "high" with the limits 0.7 and 0.9 give for 0.82 the
    option "middle", 0.08 apart. Raises `LabError` when the limits do not fit the options.
    """
    if len(limits) != len(options) - 1 or list(limits) != sorted(limits):
        raise LabError(
            f"limits are {limits}, but {len(options)} options take {len(options) - 1} numbers in"
            " ascending order."
        )
    return Answer(options[bisect_right(limits, value)], min(abs(value - one) for one in limits))


def largest(values: Mapping[str, float]) -> Answer:
    """Return the option with the largest number; it is apart by its lead over the second.

    Anchor: {"a": 1, "b": 4, "c": 2} gives "b", 2 apart. Raises `LabError` for fewer than two.
    """
    if len(values) < 2:
        raise LabError(f"values has {len(values)} options, but a comparison takes at least 2.")
    first, second = sorted(values, key=lambda option: -values[option])[:2]
    return Answer(first, values[first] - values[second])


def share_noise(share: float, count: int) -> float:
    """Return half the width of the 95 % interval of a share of `count` independent cases, by Agresti and
    Coull: two successes and two failures are added, so that a share of 0 or 1 has noise too.

    Anchor: 0.5 of 96 gives 1.96·√(0.25/100) = 0.098.
    """
    middle = (share * count + 2) / (count + 4)
    return NORMAL_95 * (middle * (1 - middle) / (count + 4)) ** 0.5


def difference_noise(first: float, second: float, count: int) -> float:
    """Return half the width of the 95 % interval of the difference of two shares of `count` cases each.

    Anchor: 0.5 and 0.5 of 96 give √2·0.098 = 0.1386.
    """
    return (share_noise(first, count) ** 2 + share_noise(second, count) ** 2) ** 0.5


def seed_noise(recorded: Sequence[float], *values: float) -> float:
    """Return half the width of the 95 % interval of a difference of single runs, whose relative standard
    deviation is that of `recorded`, the same measure of several seeds.

    Anchor: seeds 1, 2, 3 have a relative standard deviation of 1/2, so runs of 3 and 4 give
    1.96·½·5 = 4.9.
    """
    relative = stdev(recorded) / abs(fmean(recorded))
    return NORMAL_95 * relative * hypot(*values)
