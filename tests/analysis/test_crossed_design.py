"""Means over seeds and prompts: the interval holds the error of both."""

import numpy as np
import pytest

from lab.analysis.crossed_design import crossed_difference, crossed_mean
from lab.errors import LabError


def draws(rng, prompt_effects, seeds, mean, seed_spread):
    """Scores of `seeds` seeds on prompts with these effects: seed effect and independent noise."""
    shape = seeds, len(prompt_effects)
    return (
        mean + prompt_effects + rng.normal(0, seed_spread, (seeds, 1)) + rng.normal(0, 0.3, shape)
    )


def test_the_error_of_two_equal_seeds_is_that_of_their_prompts():
    found = crossed_mean([[0, 1], [0, 1]])
    assert (found.mean, found.standard_error) == (0.5, pytest.approx(0.5))


def test_the_error_of_prompts_that_are_all_equal_is_that_of_the_seeds():
    found = crossed_mean([[1, 1, 1], [2, 2, 2], [3, 3, 3]])
    assert found.mean == pytest.approx(2) and found.standard_error == pytest.approx(1 / 3**0.5)
    assert found.degrees == pytest.approx(2)


def test_every_part_of_the_variance_by_hand():
    # Means of seeds 1 and 2 (variance 1/2), of prompts 0, 2, 2.5 (7/4); the rest has sum of squares 1
    # on 2 degrees of freedom: (1/2)/2 + (7/4)/3 − (1/2)/6 = 3/4.
    found = crossed_mean([[0, 1, 2], [0, 3, 3]])
    assert found.mean == pytest.approx(1.5)
    assert found.standard_error**2 == pytest.approx(0.75)


@pytest.mark.parametrize("seed_spread, prompt_spread", [(0.2, 0.5), (0.02, 1.0), (0.3, 0.0)])
def test_the_interval_of_a_mean_holds_the_truth_in_95_of_100_draws(seed_spread, prompt_spread):
    rng = np.random.default_rng(5)
    held = 0
    for _ in range(1000):
        found = crossed_mean(draws(rng, rng.normal(0, prompt_spread, 40), 8, 0.7, seed_spread))
        held += abs(found.mean - 0.7) <= found.interval.half
    assert 930 <= held <= 985  # Binomial error of 1,000 draws, and an approximate variance.


def test_the_interval_of_a_difference_holds_the_truth_in_95_of_100_draws():
    rng = np.random.default_rng(6)
    held = 0
    for _ in range(1000):
        shared = rng.normal(0, 1.0, 40)
        first = draws(rng, shared + rng.normal(0, 0.1, 40), 8, 0.5, 0.2)
        second = draws(rng, shared + rng.normal(0, 0.1, 40), 8, 0.2, 0.05)
        found = crossed_difference(first, second)
        held += abs(found.mean - 0.3) <= found.interval.half
    assert 930 <= held <= 985


def test_what_both_arms_find_hard_cancels_in_their_difference():
    hard = np.linspace(-5, 5, 30)
    rng = np.random.default_rng(1)
    first, second = draws(rng, hard, 6, 1.0, 0.01), draws(rng, hard, 6, 0.0, 0.01)
    assert crossed_difference(first, second).standard_error < 0.05
    assert crossed_mean(first).standard_error > 0.4


def test_seeds_are_not_paired():
    seeds = [[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]
    assert crossed_difference(seeds, seeds).standard_error == pytest.approx((1 / 3 + 1 / 3) ** 0.5)


@pytest.mark.parametrize("scores", [[], [[1.0, 0.0]], [[1.0], [0.0]]])
def test_fewer_than_two_seeds_or_prompts_are_refused(scores):
    with pytest.raises(LabError, match="at least 2 seeds of at least 2 prompts"):
        crossed_mean(scores)


def test_arms_with_other_prompts_are_not_compared():
    with pytest.raises(LabError, match="2 and 3 prompts"):
        crossed_difference([[1, 0], [0, 0]], [[1, 0, 1], [0, 0, 1]])
