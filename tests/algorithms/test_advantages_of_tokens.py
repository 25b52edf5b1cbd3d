"""What each token of a completion was worth: shaped rewards, GAE and whitening, by hand."""

import math

import pytest
import torch

from lab.algorithms.advantages import (
    adapt_kl_factor,
    explained_variance,
    gae,
    kl_shaped_rewards,
    whiten,
)
from lab.errors import LabError

WHOLE = torch.ones(1, 2, dtype=torch.bool)
EXACT = {"rtol": 0, "atol": 1e-6}


def row(*values):
    return torch.tensor([values], dtype=torch.float64)


def noise(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_penalty_lies_on_every_token_and_the_score_on_the_last():
    shaped = kl_shaped_rewards(
        torch.tensor([5.0], dtype=torch.float64), row(-1, -1), row(-2, -3), WHOLE, beta=0.1
    )
    torch.testing.assert_close(shaped, row(-0.1, 4.8), **EXACT)


def test_prompt_and_padding_get_no_reward_whatever_stands_there():
    mask = torch.tensor([[False, True, True, False], [False, True, False, False]])
    logps = torch.full((2, 4), float("nan"), dtype=torch.float64).masked_fill(mask, -1.0)
    frozen = torch.full((2, 4), float("inf"), dtype=torch.float64).masked_fill(mask, -1.5)
    shaped = kl_shaped_rewards(
        torch.tensor([1.0, -2.0], dtype=torch.float64), logps, frozen, mask, beta=0.2
    )
    torch.testing.assert_close(
        shaped, torch.tensor([[0, -0.1, 0.9, 0], [0, -2.1, 0, 0]], dtype=torch.float64), **EXACT
    )


def test_the_shaped_rewards_of_a_completion_sum_to_the_score_less_beta_times_the_log_ratio():
    mask = torch.tensor([[False, True, True, True], [True, True, False, False]])
    logps, frozen, scores = noise(2, 4, seed=0), noise(2, 4, seed=1), noise(2, seed=2)
    shaped = kl_shaped_rewards(scores, logps, frozen, mask, beta=0.3)
    torch.testing.assert_close(shaped.sum(1), scores - 0.3 * ((logps - frozen) * mask).sum(1))


def test_gae_by_hand():
    advantages, returns = gae(row(0, 1), row(0.5, 0.8), WHOLE, gamma=1.0, lam=0.5)
    torch.testing.assert_close(advantages, row(0.4, 0.2), **EXACT)
    torch.testing.assert_close(returns, row(0.9, 1.0), **EXACT)


@pytest.mark.parametrize("gamma", [1.0, 0.9, 0.0])
@pytest.mark.parametrize("lam", [0.95, 1.0, 0.0])
def test_gae_is_the_double_sum_written_out(gamma, lam):
    spans = [(1, 6), (0, 3), (2, 3)]  # first token and the one after the last, for each completion
    rewards, values = noise(3, 6, seed=0), noise(3, 6, seed=1)
    mask = torch.zeros(3, 6, dtype=torch.bool)
    for i, (start, end) in enumerate(spans):
        mask[i, start:end] = True
    advantages, returns = gae(rewards, values, mask, gamma=gamma, lam=lam)
    for i, (start, end) in enumerate(spans):
        for t in range(start, end):
            deltas = [
                rewards[i, s] + (gamma * values[i, s + 1] if s + 1 < end else 0) - values[i, s]
                for s in range(t, end)
            ]
            assert advantages[i, t].item() == pytest.approx(
                sum((gamma * lam) ** k * d.item() for k, d in enumerate(deltas)), abs=1e-12
            )
    assert (advantages[~mask] == 0).all() and (returns[~mask] == 0).all()
    torch.testing.assert_close(returns[mask], (advantages + values)[mask])


def test_with_lambda_1_and_gamma_1_the_return_is_the_sum_of_the_rewards_to_come_whatever_the_critic_says():
    rewards = row(1, 2, 4)
    for seed in range(3):
        _, returns = gae(
            rewards, noise(1, 3, seed=seed), torch.ones(1, 3).bool(), gamma=1.0, lam=1.0
        )
        torch.testing.assert_close(returns, row(7, 6, 4))


def test_whitened_advantages_have_mean_0_and_std_1_on_the_mask_and_the_mean_is_not_added_back():
    mask = torch.rand(5, 7, generator=torch.Generator().manual_seed(0)) > 0.3
    white = whiten(noise(5, 7, seed=0) * 3 + 10, mask, epsilon_std=0.0)
    assert white[mask].mean().item() == pytest.approx(0, abs=1e-12) and white[
        mask
    ].std().item() == pytest.approx(1, abs=1e-12)
    assert (white[~mask] == 0).all()
    torch.testing.assert_close(
        whiten(row(1, 2, 3), torch.ones(1, 3).bool(), epsilon_std=0.0), row(-1, 0, 1)
    )
    assert whiten(row(2, 2, 2), torch.ones(1, 3).bool()).tolist() == [[0, 0, 0]]


def test_explained_variance_by_hand():
    assert explained_variance(row(0, 1), row(0, 2), WHOLE).item() == pytest.approx(0.75)
    assert explained_variance(row(0, 2), row(0, 2), WHOLE).item() == 1
    assert explained_variance(row(7, 7), row(0, 2), WHOLE).item() == 0
    assert explained_variance(row(2, 0), row(0, 2), WHOLE).item() == pytest.approx(-3)
    assert math.isnan(explained_variance(row(0, 1), row(2, 2), WHOLE).item())


@pytest.mark.parametrize(
    ("kl", "factor"), [(9.0, 1.02), (5.4, 0.99), (6.0, 1.0), (0.0, 0.98), (1e9, 1.02)]
)
def test_the_adapted_factor_by_hand(kl, factor):
    assert adapt_kl_factor(1.0, kl, 6.0) == pytest.approx(factor)
    assert adapt_kl_factor(3.0, kl, 6.0) == pytest.approx(3 * factor)


@pytest.mark.parametrize(
    "call",
    [
        lambda x: kl_shaped_rewards(torch.zeros(2), x, x, WHOLE, beta=0.1),
        lambda x: kl_shaped_rewards(torch.zeros(1), x, x[:, :1], WHOLE, beta=0.1),
        lambda x: gae(x, x[:, :1], WHOLE, gamma=1.0, lam=1.0),
        lambda x: gae(x[0], x[0], WHOLE[0], gamma=1.0, lam=1.0),
        lambda x: whiten(x, WHOLE[:, :1]),
        lambda x: whiten(x, ~WHOLE),
        lambda x: explained_variance(x, x[0], WHOLE),
        lambda x: adapt_kl_factor(1.0, 1.0, 0.0),
    ],
)
def test_bad_arguments_raise_a_lab_error_that_says_what_is_taken(call):
    with pytest.raises(LabError, match="take"):
        call(row(1, 2))


def test_epsilon_std_makes_whitened_advantages_smaller():
    white = whiten(row(1, 2, 3), torch.ones(1, 3).bool(), epsilon_std=1.0)
    torch.testing.assert_close(white, row(-0.5, 0, 0.5))


def test_two_tokens_can_be_whitened():
    white = whiten(row(0, 2), WHOLE, epsilon_std=0.0)
    torch.testing.assert_close(white, row(-math.sqrt(0.5), math.sqrt(0.5)))


def test_after_the_last_token_nothing_is_expected_whatever_the_critic_says_there():
    mask = torch.tensor([[True, False]])
    advantages, returns = gae(row(1, 9), row(0.5, 7), mask, gamma=1.0, lam=1.0)
    assert advantages.tolist() == [[0.5, 0]] and returns.tolist() == [[1, 0]]


def test_by_default_whitening_adds_a_ten_thousandth_to_the_std():
    white = whiten(row(1, 2, 3), torch.ones(1, 3).bool())
    torch.testing.assert_close(white, row(-1 / 1.0001, 0, 1 / 1.0001))


def test_the_explained_share_does_not_depend_on_the_unit_of_the_reward():
    assert explained_variance(row(0, 2), row(0, 4), WHOLE).item() == pytest.approx(0.75)


def test_a_kl_target_may_lie_below_one_nat():
    assert adapt_kl_factor(1.0, 0.55, 0.5) == pytest.approx(1.01)
