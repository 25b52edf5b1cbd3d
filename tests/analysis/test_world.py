import math

import pytest
import torch

from lab.analysis.bandit import (
    dpo_optimum,
    implied_rewards,
    objective,
    optimal_policy,
    partition,
    preferences,
)
from lab.errors import LabError

REFERENCE = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)
REWARDS = torch.tensor([0.0, 1.0, -1.0, 2.0], dtype=torch.float64)


def test_two_responses_by_hand():
    half = torch.tensor([0.5, 0.5])
    assert optimal_policy(
        half, torch.tensor([0.1 * math.log(3), 0.0]), beta=0.1
    ).tolist() == pytest.approx([0.75, 0.25])
    assert partition(half, torch.tensor([2.0, 2.0]), beta=0.5).item() == pytest.approx(
        math.exp(4), rel=1e-6
    )
    assert preferences(torch.tensor([math.log(3), 0.0]))[0, 1].item() == pytest.approx(0.75)
    assert objective(half, half, torch.tensor([1.0, 3.0]), beta=0.7).item() == pytest.approx(2.0)


@pytest.mark.parametrize("beta", [0.2, 1.0, 5.0])
def test_no_policy_beats_the_optimal_one(beta):
    best = objective(optimal_policy(REFERENCE, REWARDS, beta=beta), REFERENCE, REWARDS, beta=beta)
    noise = torch.Generator().manual_seed(0)
    for _ in range(200):
        other = torch.rand(4, generator=noise, dtype=torch.float64).softmax(0)
        assert objective(other, REFERENCE, REWARDS, beta=beta) < best
    assert best.item() == pytest.approx(
        beta * partition(REFERENCE, REWARDS, beta=beta).log().item(), rel=1e-9
    )  # The optimum is β·log Z.


@pytest.mark.parametrize("beta", [0.2, 1.0, 5.0])
def test_the_optimal_policy_implies_the_true_rewards_but_for_a_constant_that_cancels(beta):
    implied = implied_rewards(optimal_policy(REFERENCE, REWARDS, beta=beta), REFERENCE, beta=beta)
    assert (
        REWARDS - implied - beta * partition(REFERENCE, REWARDS, beta=beta).log()
    ).abs().max() < 1e-9
    assert (preferences(implied) - preferences(REWARDS)).abs().max() < 1e-9


@pytest.mark.parametrize("beta", [0.3, 1.0, 5.0])
def test_the_optimum_of_dpo_is_the_optimal_policy_of_rlhf(beta):
    assert (
        dpo_optimum(REFERENCE, REWARDS, beta=beta) - optimal_policy(REFERENCE, REWARDS, beta=beta)
    ).abs().max() < 1e-6


def test_a_larger_beta_keeps_the_optimal_policy_nearer_to_the_reference():
    distances = [
        (optimal_policy(REFERENCE, REWARDS, beta=beta) - REFERENCE).abs().sum().item()
        for beta in (0.1, 0.5, 2.0, 10.0)
    ]
    assert distances == sorted(distances, reverse=True)


@pytest.mark.parametrize(
    "reference, rewards, beta, says",
    [
        ([0.5, 0.4], [1.0, 2.0], 1.0, "sum to 1"),
        ([1.0, 0.0], [1.0, 2.0], 1.0, "positive"),
        ([0.5, 0.5], [1.0], 1.0, "both take"),
        ([0.5, 0.5], [1.0, 2.0], 0.0, "above 0"),
    ],
)
def test_an_unfit_world_is_refused(reference, rewards, beta, says):
    with pytest.raises(LabError, match=says):
        optimal_policy(torch.tensor(reference), torch.tensor(rewards), beta=beta)
