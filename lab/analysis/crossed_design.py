"""Errors of means over seeds and test prompts, where every seed answers the same prompts."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lab.analysis.comparison_words import Difference
from lab.errors import LabError

Scores = Sequence[Sequence[float]]
"""For every seed the score of every prompt, such as 1 for a right completion."""


def crossed_mean(scores: Scores) -> Difference:
    """Return the mean over seeds and prompts as a difference from 0, with the error of both.

    Seeds and prompts are crossed random effects without replication. With the mean squares of seeds,
    prompts and rest, Var(mean) = (MS_seeds + MS_prompts − MS_rest) / (S·P). The rest is subtracted only
    as far as the larger of the other two terms remains. The degrees of freedom are Satterthwaite's.

    Raises `LabError` for fewer than two seeds or prompts. Anchor: scores 0, 1 of one seed and 0, 1 of
    another have MS_seeds = MS_rest = 0 and MS_prompts = 1: standard error √(1/4) = 0.5.
    """
    return _combine(_table(scores), [_table(scores)])


def crossed_difference(first: Scores, second: Scores) -> Difference:
    """Return first minus second, paired over prompts and unpaired over seeds.

    Both answer the same prompts, so a prompt's difficulty cancels. Their seeds are independent, so the
    variances over seeds add up.

    Raises `LabError` when the numbers of prompts differ, and for fewer than two seeds or prompts.
    """
    a, b = _table(first), _table(second)
    if a.shape[1] != b.shape[1]:
        raise LabError(
            f"The arms answered {a.shape[1]} and {b.shape[1]} prompts. Compare arms that answered the"
            " same test prompts."
        )
    return _combine(a.mean(0, keepdims=True) - b.mean(0, keepdims=True), [a, b])


def _combine(values: NDArray[np.float64], tables: Sequence[NDArray[np.float64]]) -> Difference:
    """The mean of `values` (rows, P), whose error over seeds is the sum of that of `tables` (S, P)."""
    prompt_means = values.mean(0)
    prompts = len(prompt_means)
    seed_terms = [(table.mean(1).var(ddof=1) / len(table), len(table) - 1) for table in tables]
    prompt_term = prompt_means.var(ddof=1) / prompts
    rest = sum(_rest(table) / table.size for table in tables)
    terms = [*seed_terms, (prompt_term, prompts - 1)]
    seeds_total = sum(term for term, _ in seed_terms)
    variance = max(seeds_total + prompt_term - rest, seeds_total, prompt_term)
    spread = sum(term**2 / degrees for term, degrees in terms)
    total = seeds_total + prompt_term
    degrees = total**2 / spread if spread else sum(degrees for _, degrees in terms)
    return Difference(float(values.mean()), math.sqrt(variance), float(degrees))


def _rest(table: NDArray[np.float64]) -> float:
    """The mean square of what neither the seed nor the prompt explains."""
    seeds, prompts = table.shape
    left = table - table.mean(0) - table.mean(1, keepdims=True) + table.mean()
    return float((left**2).sum() / ((seeds - 1) * (prompts - 1)))


def _table(scores: Scores) -> NDArray[np.float64]:
    table = np.asarray(scores, dtype=float)
    if table.ndim != 2 or min(table.shape) < 2:
        raise LabError(
            f"The scores have the shape {table.shape}, but take at least 2 seeds of at least 2 prompts"
            " each. Raise --seeds."
        )
    return table
