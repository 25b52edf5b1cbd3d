"""Statistics of repeated measurements: intervals over seeds, intervals of shares, and pass@k."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from lab.analysis.student_t import t_quantile
from lab.errors import LabError

Z_975 = 1.959964
"""97.5 % quantile of the normal distribution."""
MAX_SEEDS = 100
"""The most seeds that a command accepts."""


Range = tuple[float, float]
"""The least and the largest possible value of a measure."""
ANY_NUMBER: Range = (-math.inf, math.inf)
SHARE: Range = (0.0, 1.0)
NOT_NEGATIVE: Range = (0.0, math.inf)
LOG_PROBABILITY: Range = (-math.inf, 0.0)
_POSSIBLE: dict[str, Range] = {
    "gold/accuracy": SHARE,
    "gold/format": SHARE,
    "gold/scratchpad_share": SHARE,
    "scratchpad_share": SHARE,
    "repetition": SHARE,
    "distinct_2": SHARE,
    "empty": SHARE,
    "covered": SHARE,
    "right_covered": SHARE,
    "wrong_covered": SHARE,
    "frac_reward_zero_std": SHARE,
    "kl": NOT_NEGATIVE,
    "gold/kl": NOT_NEGATIVE,
    "entropy": NOT_NEGATIVE,
    "length": NOT_NEGATIVE,
    "completions/mean_length": NOT_NEGATIVE,
    "seconds": NOT_NEGATIVE,
    "tokens": NOT_NEGATIVE,
    "updates": NOT_NEGATIVE,
    "reward": (-1.0, 1.0),
}


def possible_range(measure: str) -> Range:
    """Return the least and the largest possible value of a measure."""
    return _POSSIBLE.get(measure, ANY_NUMBER)


@dataclass(frozen=True)
class Interval:
    """A mean over seeds; `half` is half the width of its 95 % interval."""

    mean: float
    half: float

    def ends(self, possible: Range = ANY_NUMBER) -> tuple[float, float]:
        """Return both ends, cut at the possible range. The true mean lies in that range, so the cut
        interval holds it exactly as often as the whole one.
        """
        low, high = possible
        return max(low, self.mean - self.half), min(high, self.mean + self.half)

    def bar(self, possible: Range = ANY_NUMBER) -> tuple[float, float]:
        """Return the lengths of an error bar below and above the mean, cut at the possible range."""
        low, high = possible
        return (
            max(0.0, min(self.half, self.mean - low)),
            max(0.0, min(self.half, high - self.mean)),
        )

    def text(self, digits: int = 2, possible: Range = ANY_NUMBER) -> str:
        """Return text such as "0.93 ± 0.02"; with both ends, "0.99 (0.94 to 1.00)", where the interval is
        cut at the possible range.
        """
        mean, half, low, high = (
            f"{value:.{digits}f}" for value in (self.mean, self.half, *self.ends(possible))
        )
        # Rounded mean ± half may miss the range although neither does unrounded: decide by the text.
        is_cut = float(mean) - float(half) < possible[0] or float(mean) + float(half) > possible[1]
        return f"{mean} ({low} to {high})" if is_cut else f"{mean} ± {half}"

    def signed(self, digits: int = 2) -> str:
        """Return a difference as text, such as "+0.19 ± 0.14"; a mean that rounds to 0 has no sign."""
        mean = f"{self.mean:+.{digits}f}"
        if not mean.strip("+-0."):
            mean = mean[1:]
        return f"{mean} ± {self.half:.{digits}f}".replace("-", "−")


def half_width(n: int) -> float:
    """Return half the width of the 95 % interval of a mean of `n` values, in units of their standard
    deviation: t/√n.

    Raises `LabError` for fewer than two values. Anchor: 3 values have t = 4.3027, so 2.484.
    """
    if n < 2:
        raise LabError(f"An interval takes at least two seeds, but there is {n}. Raise --seeds.")
    return t_quantile(n - 1) / math.sqrt(n)


def interval(values: Sequence[float]) -> Interval:
    """Return the mean and Student's t interval of independent values.

    Raises `LabError` for fewer than two.
    Anchor: 1, 2, 3 have mean 2 and standard deviation 1, so half = 4.3027/√3 = 2.484.
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
