"""Curves of pass@k, and where one falls below that of the base."""

import math
from itertools import combinations

import pytest

from lab.analysis import pass_at_k
from lab.analysis.pass_at_k import Crossing, crossing, curve, differences_from_base


def points(values, half=0.05, ks=(1, 4)):
    return [{"k": k, "mean": value, "half": half} for k, value in zip(ks, values)]


def test_a_curve_averages_the_share_of_subsets_that_hold_a_right_completion():
    # Of 4 completions 1, 3 are right with one seed, and 0, 2 with the other.
    counts = [[1, 3], [0, 2]]
    shares = []
    for correct in (1, 3, 0, 2):
        completions = [True] * correct + [False] * (4 - correct)
        subsets = list(combinations(completions, 2))
        shares.append(sum(any(subset) for subset in subsets) / len(subsets))
    found = curve(counts, 4, (1, 2))
    assert found["mean"] == pytest.approx([6 / 16, sum(shares) / 4])


def test_the_curves_cross_where_the_line_over_log_k_meets_zero():
    found = crossing(points((0.1, -0.1)))
    assert found.k == pytest.approx(2.0)
    assert found.low == pytest.approx(math.sqrt(2)) and found.high == pytest.approx(math.sqrt(8))
    assert found.text(4) == "k = 2 (1 to 3)"


@pytest.mark.parametrize("values", [(0.1, 0.02), (-0.1, 0.1), (-0.2, -0.1)])
def test_a_curve_that_never_falls_below_the_base_has_no_crossing(values):
    assert crossing(points(values)).k is None
    assert crossing(points(values)).text(256) == "none up to k = 256"


def test_a_crossing_that_is_not_sure_has_an_open_end():
    found = crossing(points((0.1, -0.02)))
    assert found.k is not None and found.low is not None and found.high is None
    assert found.text(256).endswith("to beyond 256)")
    assert Crossing(2.0, None, 3.0).text(256) == "k = 2 (1 to 3)"


def test_a_policy_that_only_sharpens_is_better_at_one_and_worse_at_many():
    # The base solves every prompt in 2 of 8; the trained policy half of the prompts always.
    prompts, seeds = 40, 3
    counts = {
        pass_at_k.BASE: [[2] * prompts for _ in range(seeds)],
        "sharp": [[8, 0] * (prompts // 2) for _ in range(seeds)],
    }
    found = differences_from_base(counts, 8, (1, 8))["sharp"]
    assert [one["mean"] for one in found] == pytest.approx([0.5 - 0.25, 0.5 - 1.0])
    assert [one["word"] for one in found] == ["better", "worse"]
    between = crossing(found)
    assert between.k == pytest.approx(8 ** (0.25 / 0.75))
