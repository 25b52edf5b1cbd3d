"""The clipped losses of policy and critic, by hand."""

import math

import pytest
import torch

from lab.algorithms.policy_losses import grpo_loss, ppo_loss, value_loss

EXACT = {"rtol": 0, "atol": 1e-6}


def row(*values):
    return torch.tensor([values], dtype=torch.float64)


def noise(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    ("ratio", "advantage", "cost", "clipped"),
    [
        (1.5, 1, -1.2, 1),
        (0.5, -1, 0.8, 1),
        (1.5, -1, 1.5, 0),
        (0.5, 1, -0.5, 0),
        (1.1, 2, -2.2, 0),
        (1.0, 3, -3, 0),
    ],
)
def test_ppo_by_hand(ratio, advantage, cost, clipped):
    mask = torch.ones(1, 1).bool()
    losses, metrics = ppo_loss(row(math.log(ratio)), row(0), row(advantage), mask, epsilon=0.2)
    assert losses.item() == metrics["loss/policy"].item() == pytest.approx(cost)
    assert metrics["clip_ratio/region_mean"].item() == clipped and metrics[
        "ratio"
    ].item() == pytest.approx(ratio)


def test_ppo_with_one_advantage_for_all_tokens_of_a_completion_is_grpo_without_its_kl_term():
    mask = torch.tensor([[False, True, True, True], [True, True, False, False]])
    logps, old, advantage = noise(2, 4, seed=0), noise(2, 4, seed=1), noise(2, seed=2)
    one, _ = ppo_loss(logps, old, advantage[:, None].expand(2, 4), mask, epsilon=0.2)
    other, _ = grpo_loss(
        logps,
        old,
        None,
        advantage,
        mask,
        beta=0.0,
        epsilon=0.2,
        epsilon_high=0.2,
        kl_estimator="k3",
    )
    torch.testing.assert_close(one, other, **EXACT)


@pytest.mark.parametrize(
    ("value", "cost", "slope"),
    [
        (0.1, 0.405, -0.9),
        (0.5, 0.32, 0.0),
        (-0.5, 1.125, -1.5),
        (0.2, 0.32, None),
        (0.0, 0.5, -1.0),
        (3.0, 2.0, 2.0),
    ],
)
def test_the_value_clip_by_hand(value, cost, slope):
    values = row(value).requires_grad_()
    losses, metrics = value_loss(values, row(0), row(1), torch.ones(1, 1).bool(), epsilon_value=0.2)
    assert losses.item() == metrics["loss/value"].item() == pytest.approx(cost)
    losses.sum().backward()
    if slope is not None:  # at the edge of the clip the slope jumps
        assert values.grad.item() == pytest.approx(slope)


def test_prompt_and_padding_cost_nothing_and_have_no_gradient_whatever_stands_there():
    mask, bad = (
        torch.tensor([[False, True, False]]),
        torch.tensor([[float("nan"), -1.0, float("inf")]], dtype=torch.float64),
    )
    for call in (
        lambda x: ppo_loss(x, bad, bad, mask, epsilon=0.2),
        lambda x: value_loss(x, bad, bad, mask, epsilon_value=0.2),
    ):
        x = row(-3, -1.1, -2).requires_grad_()
        losses, metrics = call(x)
        assert losses[~mask].tolist() == [0, 0] and losses.isfinite().all()
        assert all(m[~mask].isnan().all() and m[mask].isfinite().all() for m in metrics.values())
        losses.sum().backward()
        assert x.grad[~mask].tolist() == [0, 0]


def test_the_value_clip_holds_a_value_that_falls_towards_its_target():
    losses, _ = value_loss(row(-0.5), row(0), row(-1), torch.ones(1, 1).bool(), epsilon_value=0.2)
    assert losses.item() == pytest.approx(0.5 * 0.8**2)


@pytest.mark.parametrize("ratio", [1.5, 0.5])
def test_a_token_of_advantage_0_counts_as_clipped_in_neither_loss(ratio):
    mask, logps = torch.ones(1, 1).bool(), row(math.log(ratio))
    _, of_ppo = ppo_loss(logps, row(0), row(0), mask, epsilon=0.2)
    _, of_grpo = grpo_loss(
        logps,
        row(0),
        None,
        row(0)[0],
        mask,
        beta=0.0,
        epsilon=0.2,
        epsilon_high=0.2,
        kl_estimator="k3",
    )
    for metrics in (of_ppo, of_grpo):
        assert metrics["clip_ratio/region_mean"].item() == 0


def test_a_ratio_at_the_edge_of_its_range_is_not_clipped():
    mask, edges = torch.ones(1, 2).bool(), torch.tensor([[0.5, 2.0]], dtype=torch.float64)
    _, of_ppo = ppo_loss(edges.log(), row(0, 0), row(-1, -1), mask, epsilon=0.5)
    assert of_ppo["clip_ratio/region_mean"].tolist() == [[0, 0]]
    _, of_ppo = ppo_loss(edges.log(), row(0, 0), row(1, 1), mask, epsilon=1.0)
    assert of_ppo["clip_ratio/region_mean"].tolist() == [[0, 0]]


def test_the_value_clip_counts_from_the_old_value():
    losses, _ = value_loss(row(0.5), row(1), row(0), torch.ones(1, 1).bool(), epsilon_value=0.2)
    assert losses.item() == pytest.approx(0.5 * 0.8**2)
