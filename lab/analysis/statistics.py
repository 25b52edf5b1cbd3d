"""Statistics of repeated measurements: intervals over seeds, intervals of shares, and pass@k."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from lab.errors import LabError

# fmt: off
T_975 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
)
# fmt: on
"""97.5 % quantiles of Student's t with 1 to 20 degrees of freedom."""
Z_975 = 1.959964
"""97.5 % quantile of the normal distribution."""
MAX_SEEDS = 100
"""The most seeds that a command accepts."""


@dataclass(frozen=True)
class Interval:
    """A mean over seeds; `half` is half the width of its 95 % interval."""

    mean: float
    half: float

    def text(self, digits: int = 2) -> str:
        """Return text such as "0.93 ± 0.02"."""
        return f"{self.mean:.{digits}f} ± {self.half:.{digits}f}"

    def signed(self, digits: int = 2) -> str:
        """Return a difference as text, such as "+0.19 ± 0.14"."""
        return f"{self.mean:+.{digits}f} ± {self.half:.{digits}f}".replace("-", "−")

    def is_positive(self) -> bool | None:
        """Return whether a difference is above zero, or None if the interval contains zero."""
        return None if abs(self.mean) <= self.half else self.mean > 0


def t_quantile(degrees: int) -> float:
    """Return the 97.5 % quantile of Student's t with `degrees` degrees of freedom.

    Up to 20 it is a table; beyond, the expansion in 1/ν around the normal quantile z (Abramowitz and
    Stegun, Handbook of Mathematical Functions, 26.7.5) to the order ν⁻³:

    t = z + (z³ + z)/(4ν) + (5z⁵ + 16z³ + 3z)/(96ν²) + (3z⁷ + 19z⁵ + 17z³ − 15z)/(384ν³)

    Raises `LabError` for fewer than one. Anchor: 3 give 3.182, 30 give 2.042, 120 give 1.980.
    """
    if degrees < 1:
        raise LabError(f"Student's t takes at least 1 degree of freedom, but got {degrees}.")
    if degrees <= len(T_975):
        return T_975[degrees - 1]
    z = Z_975
    return (
        z
        + (z**3 + z) / (4 * degrees)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * degrees**3)
    )


def half_width(n: int) -> float:
    """Return half the width of the 95 % interval of a mean of `n` values, in units of their standard
    deviation: t/√n.

    Raises `LabError` for fewer than two values. Anchor: 3 values have t = 4.303, so 2.484.
    """
    if n < 2:
        raise LabError(f"An interval takes at least two seeds, but there is {n}. Raise --seeds.")
    return t_quantile(n - 1) / math.sqrt(n)


def interval(values: Sequence[float]) -> Interval:
    """Return the mean and Student's t interval of independent values.

    Raises `LabError` for fewer than two.
    Anchor: 1, 2, 3 have mean 2 and standard deviation 1, so half = 4.303/√3 = 2.484.
    """
    half = half_width(len(values))
    return Interval(fmean(values), half * stdev(values))


def paired_interval(first: Sequence[float], second: Sequence[float]) -> Interval:
    """Return the interval of first minus second, seed by seed. What both arms of a seed share, such as
    the held-out prompts, cancels.

    Raises `LabError` when the numbers of values differ.
    """
    if len(first) != len(second):
        raise LabError(
            f"Paired values come from the same seeds, but there are {len(first)} and {len(second)}."
        )
    return interval([a - b for a, b in zip(first, second)])


def wilson_interval(share: float, n: int, z: float = Z_975) -> tuple[float, float]:
    """Return the 95 % score interval of a share seen in `n` trials (Wilson 1927).

    (p + z²/2n ± z·√(p(1 − p)/n + z²/4n²)) / (1 + z²/n)

    Anchor: share 0.5 and n = 100 give (0.404, 0.596).
    """
    centre = share + z * z / (2 * n)
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return (centre - spread) / (1 + z * z / n), (centre + spread) / (1 + z * z / n)


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Return the unbiased estimate of the probability that at least one of k completions is right,
    from `correct` right ones of n (arXiv 2107.03374, Eq. 1).

    1 − C(n − c, k) / C(n, k)

    Raises `LabError` unless 1 ≤ k ≤ n. Anchor: n = 4, correct = 1, k = 2 give 1 − 3/6 = 0.5.
    """
    if not 1 <= k <= n:
        raise LabError(
            f"pass@{k} needs at least {k} samples per prompt, but there are {n}. Raise the samples"
            " or lower k."
        )
    return 1.0 - math.comb(n - correct, k) / math.comb(n, k)
