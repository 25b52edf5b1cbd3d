"""Student's t distribution, with any positive number of degrees of freedom."""

import math
from functools import cache

from lab.errors import LabError

_MAX_TERMS = 10_000
_PRECISION = 1e-15


def t_two_sided(t: float, degrees: float) -> float:
    """Return the probability that |T| exceeds |t|, where T has Student's t distribution.

    It is the regularised incomplete beta function I_x(ν/2, ½) at x = ν/(ν + t²) (Abramowitz and Stegun,
    Handbook of Mathematical Functions, 26.7.1).

    Raises `LabError` unless `degrees` is positive. Anchor: t = 1 with 1 degree gives ½; t = 4.3027 with
    2 gives 0.05.
    """
    if not degrees > 0:
        raise LabError(
            f"Student's t takes a positive number of degrees of freedom, but got {degrees:g}."
        )
    if math.isinf(t):
        return 0.0
    total = degrees + t * t
    return _incomplete_beta(degrees / total, t * t / total, degrees / 2, 0.5)


@cache
def t_quantile(degrees: float) -> float:
    """Return the 97.5 % quantile of Student's t: |T| exceeds it with probability 0.05.

    Raises `LabError` unless `degrees` is positive. Anchor: 3 give 3.182, 30 give 2.042, 120 give 1.980.
    """
    low, high = 0.0, 2.0
    while t_two_sided(high, degrees) > 0.05:
        low, high = high, 2 * high
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if t_two_sided(middle, degrees) > 0.05 else (low, middle)
    return high


def _incomplete_beta(x: float, rest: float, a: float, b: float) -> float:
    """Return I_x(a, b), with `rest` = 1 − x."""
    if x == 0 or rest == 0:
        return 0.0 if x == 0 else 1.0
    if x > (a + 1) / (a + b + 2):
        return 1 - _incomplete_beta(rest, x, b, a)
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log(rest)
    )
    return front * _continued_fraction(x, a, b) / a


def _continued_fraction(x: float, a: float, b: float) -> float:
    """Evaluate the continued fraction of I_x(a, b) (Abramowitz and Stegun, 26.5.8) by Lentz's method."""
    d = 1 / (1 - (a + b) * x / (a + 1))
    c, value = 1.0, d
    for m in range(1, _MAX_TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d, c = 1 / (1 + even * d), 1 + even / c
        value *= c * d
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d, c = 1 / (1 + odd * d), 1 + odd / c
        value *= c * d
        if abs(c * d - 1) < _PRECISION:
            break
    return value
