"""Group-relative advantages against tables worked out by hand."""

import math
from itertools import product

import pytest
import torch

from lab.algorithms.advantages import (
    dead_group_probability,
    dead_groups,
    group_advantages,
    impute_missing_rewards,
    leave_one_out_advantages,
)
from lab.errors import LabError

PRINTED = [6.0, 5.7, 5.7, 5.6, 5.5, 4.8, 4.7, 3.9]  # the article's eight rewards


def one_right_of(group_size):
    rewards = torch.zeros(group_size, dtype=torch.float64)
    rewards[0] = 1
    return rewards


def by_population_std(rewards):
    """Advantages with the std that divides by G instead of G − 1, which makes it smaller by √((G −
    1) / G).
    """
    size = len(rewards)
    return group_advantages(rewards, size, scale="group", epsilon_std=0.0) * math.sqrt(
        size / (size - 1)
    )


def test_one_right_of_four_gets_one_and_a_half():
    advantages = group_advantages(one_right_of(4), 4, scale="group", epsilon_std=0.0)
    torch.testing.assert_close(
        advantages, torch.tensor([1.5, -0.5, -0.5, -0.5], dtype=torch.float64)
    )


@pytest.mark.parametrize(
    ("group_size", "unbiased", "population", "none"),
    [
        (4, 1.50, 1.73, 0.75),
        (8, 2.475, 2.646, 0.875),
        (16, 3.75, 3.87, 0.94),
        (32, 5.48, 5.57, 0.97),
    ],
)
def test_the_advantage_of_one_right_of_g_grows_with_g(group_size, unbiased, population, none):
    rewards, g = one_right_of(group_size), group_size
    values = [
        group_advantages(rewards, g, scale="group", epsilon_std=0.0),
        by_population_std(rewards),
        group_advantages(rewards, g, scale="none"),
    ]
    closed_forms = [(g - 1) / math.sqrt(g), math.sqrt(g - 1), 1 - 1 / g]
    for value, closed_form, table in zip(values, closed_forms, (unbiased, population, none)):
        assert value[0].item() == pytest.approx(closed_form, abs=1e-6)
        assert value[0].item() == pytest.approx(
            table, abs=6e-3
        )  # the table has two or three digits after the point
        assert value[1:].sum().item() == pytest.approx(-closed_form, abs=1e-6)


def test_epsilon_std_lowers_the_advantage_by_its_share_of_the_std():
    assert group_advantages(one_right_of(4), 4, scale="group")[0].item() == pytest.approx(
        0.75 / 0.5001, abs=1e-12
    )


def test_at_g_2_the_advantage_is_the_same_whatever_the_gap():
    for gap in (1e-2, 1.0, 100.0):
        advantages = group_advantages(
            torch.tensor([0.0, gap], dtype=torch.float64), 2, scale="group", epsilon_std=0.0
        )
        torch.testing.assert_close(
            advantages, torch.tensor([-math.sqrt(0.5), math.sqrt(0.5)], dtype=torch.float64)
        )


def test_the_articles_eight_rewards_as_printed():
    rewards = torch.tensor(PRINTED, dtype=torch.float64)
    assert rewards.mean().item() == pytest.approx(5.2375, abs=1e-6)  # printed 5.23
    assert rewards.std(correction=0).item() == pytest.approx(0.659, abs=5e-4)
    expected = torch.tensor(
        [1.16, 0.70, 0.70, 0.55, 0.40, -0.66, -0.82, -2.03], dtype=torch.float64
    )
    torch.testing.assert_close(
        by_population_std(rewards), expected, rtol=0, atol=5e-3
    )  # two digits after the point


def test_the_articles_printed_advantages_come_from_rewards_that_round_to_the_printed_ones():
    # The article prints rewards with one digit and advantages computed from unrounded ones, which
    # it does not give. These are ours.
    rewards = torch.tensor(
        [6.015, 5.666, 5.652, 5.633, 5.468, 4.788, 4.742, 3.870], dtype=torch.float64
    )
    assert [round(r, 1) for r in rewards.tolist()] == PRINTED
    assert round(rewards.mean().item(), 2) == 5.23
    expected = torch.tensor(
        [1.19, 0.66, 0.64, 0.61, 0.36, -0.67, -0.74, -2.06], dtype=torch.float64
    )
    torch.testing.assert_close(
        by_population_std(rewards), expected, rtol=0, atol=5e-3
    )  # two digits after the point


def test_every_group_has_its_own_mean_and_std():
    rewards = torch.tensor([1.0, 3.0, 10.0, 30.0])
    torch.testing.assert_close(
        group_advantages(rewards, 2, scale="none"), torch.tensor([-1.0, 1.0, -10.0, 10.0])
    )
    torch.testing.assert_close(
        group_advantages(rewards, 2, scale="group", epsilon_std=0.0),
        torch.tensor([-1.0, 1.0, -1.0, 1.0]) * math.sqrt(0.5),
    )


def test_batch_scale_divides_by_the_unbiased_std_of_all_rewards_but_subtracts_the_groups_mean():
    rewards = torch.tensor([1.0, 3.0, 10.0, 30.0], dtype=torch.float64)
    deviations = [r - 11 for r in (1, 3, 10, 30)]
    std = math.sqrt(sum(d * d for d in deviations) / 3)
    expected = torch.tensor([-1.0, 1.0, -10.0, 10.0], dtype=torch.float64) / (std + 1e-4)
    torch.testing.assert_close(group_advantages(rewards, 2, scale="batch"), expected)


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_advantages_of_a_group_sum_to_zero_and_a_dead_group_gets_exactly_zero(scale):
    rewards = torch.tensor(
        [0.1, 0.1, 0.1, 0.7, 0.2, 0.2]
    )  # the mean of three times 0.1 is not exactly 0.1 in float32
    advantages = group_advantages(rewards, 3, scale=scale)
    assert advantages[:3].tolist() == [0.0, 0.0, 0.0]
    assert advantages[3:].sum().item() == pytest.approx(0, abs=1e-6)
    assert advantages[3] > 0 > advantages[4]


def test_a_group_is_dead_by_its_own_rewards():
    rewards = torch.tensor([1.0, 1.0, 0.0, 1.0])
    assert dead_groups(rewards, 2).tolist() == [True, False]
    assert dead_groups(rewards, 4).tolist() == [False]


def test_rewards_that_differ_by_little_are_not_dead():
    assert dead_groups(torch.tensor([1.0, 1.0 + 1e-6]), 2).tolist() == [False]


@pytest.mark.parametrize(
    ("pass_rate", "table"),
    [
        (0.02, {4: 0.922, 8: 0.851, 16: 0.724, 32: 0.524}),
        (0.1, {4: 0.656, 8: 0.430, 16: 0.185, 32: 0.034}),
        (0.2, {4: 0.411, 8: 0.168, 16: 0.028, 32: 0.001}),
        (0.5, {4: 0.125, 8: 0.008, 16: 0.0, 32: 0.0}),
    ],
)
def test_the_table_of_dead_groups(pass_rate, table):
    for group_size, printed in table.items():
        assert dead_group_probability(pass_rate, group_size) == pytest.approx(
            printed, abs=6e-4
        )  # three digits after the point


def test_dead_group_probability_is_the_share_of_all_outcomes_that_dead_groups_finds():
    p, size = 0.3, 5
    outcomes = torch.tensor(list(product([0.0, 1.0], repeat=size)))
    weights = (outcomes * p + (1 - outcomes) * (1 - p)).double().prod(1)
    assert weights[dead_groups(outcomes.flatten(), size)].sum().item() == pytest.approx(
        dead_group_probability(p, size), abs=1e-6
    )
    assert dead_group_probability(0.5, 4) == 0.125


def test_leave_one_out_compares_with_the_mean_of_the_others():
    torch.testing.assert_close(
        leave_one_out_advantages(one_right_of(4), 4),
        torch.tensor([1.0, -1 / 3, -1 / 3, -1 / 3], dtype=torch.float64),
    )
    rewards = torch.randn(12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for i, advantage in enumerate(leave_one_out_advantages(rewards, 4).tolist()):
        first = i - i % 4
        others = [rewards[j].item() for j in range(first, first + 4) if j != i]
        assert advantage == pytest.approx(rewards[i].item() - sum(others) / 3, abs=1e-12)


@pytest.mark.parametrize(
    ("rewards", "group_size"),
    [
        (torch.zeros(6), 4),
        (torch.zeros(6), 1),
        (torch.zeros(6), 0),
        (torch.zeros(0), 2),
        (torch.zeros(2, 3), 3),
        (torch.zeros(6).long(), 3),
    ],
)
def test_rewards_that_are_not_whole_groups_raise_a_lab_error(rewards, group_size):
    for call in (
        lambda: group_advantages(rewards, group_size, scale="group"),
        lambda: dead_groups(rewards, group_size),
        lambda: leave_one_out_advantages(rewards, group_size),
    ):
        with pytest.raises(LabError, match="take"):
            call()


def test_an_unknown_scale_names_the_valid_ones():
    with pytest.raises(LabError, match="Did you mean 'group'.*Accepted: batch, group, none"):
        group_advantages(torch.zeros(4), 4, scale="groups")


@pytest.mark.parametrize(("pass_rate", "group_size"), [(-0.1, 4), (1.1, 4), (0.5, 1)])
def test_a_pass_rate_outside_0_to_1_or_a_group_of_one_raises_a_lab_error(pass_rate, group_size):
    with pytest.raises(LabError, match="pass_rate"):
        dead_group_probability(pass_rate, group_size)


def test_a_missing_reward_is_left_out_of_the_mean_and_the_std_of_its_own_group():
    nan = float("nan")
    rewards = torch.tensor([4.0, 2.0, nan, 1.0, 1.0, 4.0], dtype=torch.float64)
    found = group_advantages(rewards, 3, scale="group", epsilon_std=0.0)
    root = math.sqrt(0.5)
    expected = [root, -root, 0.0, -1 / math.sqrt(3), -1 / math.sqrt(3), 2 / math.sqrt(3)]
    assert found.tolist() == pytest.approx(expected)


def test_a_group_of_two_is_dead_with_the_probability_of_two_equal_answers():
    assert dead_group_probability(0.5, 2) == 0.5
    assert (dead_group_probability(0.0, 2), dead_group_probability(1.0, 2)) == (1.0, 1.0)


def test_a_missing_reward_becomes_the_mean_of_the_others_and_0_where_there_is_no_other():
    nan = math.nan
    assert impute_missing_rewards(torch.tensor([1.0, nan, 0.0])).tolist() == [1.0, 0.5, 0.0]
    assert impute_missing_rewards(torch.tensor([nan, nan])).tolist() == [0.0, 0.0]


def test_a_missing_reward_decides_nothing_about_its_group():
    nan = math.nan
    assert dead_groups(torch.tensor([1.0, nan, 1.0]), 3).tolist() == [True]
    assert dead_groups(torch.tensor([1.0, nan, 0.0]), 3).tolist() == [False]
    assert dead_groups(torch.tensor([nan, nan]), 2).tolist() == [True]
