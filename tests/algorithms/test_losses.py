"""The objectives against hand-worked numbers, formulas written out here in float64, finite
differences and small worlds solved exactly.
"""

import math
from functools import partial

import pytest
import torch
from torch.autograd import gradcheck

from lab.algorithms.losses import (
    dpo_loss,
    ipo_loss,
    ipo_token_mean_loss,
    kto_loss,
    kto_reference_point,
    reward_model_loss,
    sft_loss,
)
from lab.algorithms.policy_losses import grpo_loss, ppo_loss, value_loss
from lab.algorithms.reductions import batch_mean, fixed_length, sequence_mean, token_mean
from lab.errors import LabError

LOG_2 = 0.693147
EXACT = {"rtol": 0, "atol": 1e-6}
PLAIN = {"beta": 0.0, "epsilon": 0.2, "epsilon_high": 0.2, "kl_estimator": "k3"}


def tensor(*values, grad=False):
    return torch.tensor(values, dtype=torch.float64, requires_grad=grad)


def noise(*shape, seed=0, scale=1.0, grad=False):
    return (
        scale
        * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    ).requires_grad_(grad)


def sigmoid(x):
    return 1 / (1 + torch.exp(-x))


def pair_of_gap(h, chosen=-20.0, rejected=-30.0):
    """Arguments of a preference loss, one pair, whose h is as given."""
    return tensor(chosen), tensor(rejected), tensor(chosen - h / 4), tensor(rejected + 3 * h / 4)


def same_gradient(value, written_out, *inputs):
    """Both scalars have the same gradient in every input, by autograd."""
    for got, expected in zip(
        torch.autograd.grad(value, inputs, retain_graph=True),
        torch.autograd.grad(written_out, inputs),
    ):
        torch.testing.assert_close(got, expected)


# Preference losses


@pytest.mark.parametrize("beta", [0.01, 0.1, 0.5, 5.0])
def test_dpo_loss_at_the_reference_is_log_2_for_every_beta(beta):
    losses, metrics = dpo_loss(tensor(-7.0), tensor(-9.0), tensor(-7.0), tensor(-9.0), beta=beta)
    assert losses.item() == pytest.approx(LOG_2, abs=1e-6)
    assert metrics["rewards/margins"].item() == 0 and metrics["rewards/accuracies"].item() == 0


def test_dpo_loss_by_hand():
    losses, metrics = dpo_loss(*pair_of_gap(10.0), beta=0.1)
    assert losses.item() == pytest.approx(0.313262, abs=1e-6)  # −log σ(1)
    assert metrics["rewards/margins"].item() == pytest.approx(1.0)
    assert metrics["rewards/accuracies"].item() == 1


def test_dpo_gradient_is_minus_beta_times_the_probability_of_being_wrong():
    # Rafailov et al., the gradient after Eq. 7: −β·σ(−β·h)·(∇log π(y_w) − ∇log π(y_l))
    chosen, rejected = noise(6, seed=1, scale=9, grad=True), noise(6, seed=2, scale=9, grad=True)
    frozen = noise(6, seed=3, scale=9), noise(6, seed=4, scale=9)
    dpo_loss(chosen, rejected, *frozen, beta=0.3)[0].sum().backward()
    h = (chosen - frozen[0] - rejected + frozen[1]).detach()
    torch.testing.assert_close(chosen.grad, -0.3 * sigmoid(-0.3 * h))
    torch.testing.assert_close(rejected.grad, 0.3 * sigmoid(-0.3 * h))


def test_a_larger_beta_gives_dpo_a_larger_gradient_at_the_reference_that_saturates_earlier():
    def slope(h, beta):
        chosen, rejected, *frozen = pair_of_gap(h)
        chosen.requires_grad_()
        return -torch.autograd.grad(
            dpo_loss(chosen, rejected, *frozen, beta=beta)[0].sum(), chosen
        )[0].item()

    assert slope(0.0, 0.1) == pytest.approx(0.05) and slope(0.0, 1.0) == pytest.approx(0.5)
    assert slope(10.0, 1.0) < 1e-3 * slope(0.0, 1.0)
    assert slope(10.0, 0.1) > 0.5 * slope(0.0, 0.1)


def test_dpo_stays_finite_where_the_sigmoid_is_zero():
    chosen, rejected, *frozen = pair_of_gap(-1e4)
    losses, _ = dpo_loss(chosen.requires_grad_(), rejected, *frozen, beta=1.0)
    losses.sum().backward()
    assert losses.item() == pytest.approx(1e4) and chosen.grad.item() == pytest.approx(-1.0)


@pytest.mark.parametrize(("beta", "cost"), [(0.1, 25.0), (0.5, 1.0), (1.0, 0.25)])
def test_ipo_loss_at_the_reference_is_the_square_of_its_target(beta, cost):
    assert ipo_loss(tensor(-7.0), tensor(-9.0), tensor(-7.0), tensor(-9.0), beta=beta)[
        0
    ].item() == pytest.approx(cost, abs=1e-6)
    args = (
        tensor(-7.0),
        tensor(-9.0),
        tensor(-7.0),
        tensor(-9.0),
        torch.tensor([3]),
        torch.tensor([8]),
    )
    assert ipo_token_mean_loss(*args, beta=beta)[0].item() == pytest.approx(cost, abs=1e-6)


def test_ipo_costs_nothing_at_its_target_where_the_margin_is_one_half():
    losses, metrics = ipo_loss(*pair_of_gap(5.0), beta=0.1)
    assert losses.item() == pytest.approx(0, abs=1e-6)
    assert metrics["rewards/margins"].item() == pytest.approx(0.5, abs=1e-6)


def test_ipo_pulls_back_a_pair_that_went_too_far_and_dpo_never_does():
    def slope(loss):
        chosen, rejected, *frozen = pair_of_gap(8.0)
        return torch.autograd.grad(
            loss(chosen.requires_grad_(), rejected, *frozen, beta=0.1)[0].sum(), chosen
        )[0].item()

    assert slope(ipo_loss) == pytest.approx(2 * (8 - 5))
    assert slope(dpo_loss) < 0


def test_ipo_token_mean_by_hand():
    args = (
        tensor(-4.0),
        tensor(-6.0),
        tensor(-6.0),
        tensor(-6.0),
        torch.tensor([2]),
        torch.tensor([4]),
    )  # h̄ = 2/2 − 0/4 = 1
    assert ipo_token_mean_loss(*args, beta=0.5)[0].item() == pytest.approx(0, abs=1e-6)
    losses, metrics = ipo_token_mean_loss(*args, beta=0.25)
    assert losses.item() == pytest.approx(1, abs=1e-6)
    assert metrics["rewards/margins"].item() == pytest.approx(0.25)  # β·h̄, not β·h = 0.5
    assert metrics["logps/chosen"].item() == -4 and metrics["logps/rejected"].item() == -6


def test_the_two_forms_of_ipo_agree_on_completions_of_one_token_and_differ_on_longer_ones():
    args = [noise(5, seed=s, scale=3) for s in range(4)]
    ones, fours = torch.ones(5).long(), torch.full((5,), 4)
    torch.testing.assert_close(
        ipo_token_mean_loss(*args, ones, ones, beta=0.2)[0], ipo_loss(*args, beta=0.2)[0]
    )
    torch.testing.assert_close(
        ipo_token_mean_loss(*args, fours, fours, beta=0.2)[0],
        ipo_loss(*(a / 4 for a in args), beta=0.2)[0],
    )
    assert not torch.allclose(
        ipo_token_mean_loss(*args, fours, fours, beta=0.2)[0], ipo_loss(*args, beta=0.2)[0]
    )


def test_gradients_of_ipo_agree_with_the_formula_written_out():
    policy = noise(6, seed=1, scale=3, grad=True), noise(6, seed=2, scale=3, grad=True)
    frozen = noise(6, seed=3, scale=3), noise(6, seed=4, scale=3)
    long, short = torch.tensor([3, 9, 1, 4, 7, 2]), torch.tensor([5, 2, 8, 1, 1, 6])
    h = policy[0] - frozen[0] - (policy[1] - frozen[1])
    same_gradient(ipo_loss(*policy, *frozen, beta=0.2)[0].sum(), (h - 2.5).square().sum(), *policy)
    h = (policy[0] - frozen[0]) / long - (policy[1] - frozen[1]) / short
    same_gradient(
        ipo_token_mean_loss(*policy, *frozen, long, short, beta=0.2)[0].sum(),
        (h - 2.5).square().sum(),
        *policy,
    )


def test_reward_model_by_hand():
    losses, metrics = reward_model_loss(tensor(2.0, 3.0, 0.0), tensor(2.0, 2.0, 1.0))
    torch.testing.assert_close(losses, tensor(0.693147, 0.313262, 1.313262), **EXACT)
    assert metrics["rewards/margins"].tolist() == [0, 1, -1] and metrics[
        "rewards/accuracies"
    ].tolist() == [0, 1, 0]


def test_reward_model_does_not_see_a_constant_added_to_all_rewards():
    chosen, rejected = noise(5, seed=1, grad=True), noise(5, seed=2, grad=True)
    losses, _ = reward_model_loss(chosen, rejected)
    torch.testing.assert_close(reward_model_loss(chosen + 7, rejected + 7)[0], losses)
    losses.sum().backward()
    torch.testing.assert_close(chosen.grad, -sigmoid(-(chosen - rejected)).detach())
    torch.testing.assert_close(rejected.grad, -chosen.grad)


def test_a_token_of_probability_one_half_costs_sft_log_2():
    losses, metrics = sft_loss(tensor(0.5).log()[None])
    assert losses.item() == pytest.approx(LOG_2, abs=1e-6) and metrics == {}


# KTO


def one_kto(r, z, good, beta=0.1, desirable_weight=1.0, undesirable_weight=1.0):
    return kto_loss(
        tensor(-5 + r),
        tensor(-5.0),
        torch.tensor([good]),
        torch.tensor(z, dtype=torch.float64),
        beta=beta,
        desirable_weight=desirable_weight,
        undesirable_weight=undesirable_weight,
    )


@pytest.mark.parametrize("z", [0.0, 2.5])
def test_kto_loss_at_the_reference_point_is_half_the_weight_of_its_kind(z):
    for good, weight in ((True, 1.2), (False, 0.7)):
        losses, _ = one_kto(z, z, good, desirable_weight=1.2, undesirable_weight=0.7)
        assert losses.item() == pytest.approx(weight / 2, abs=1e-6)


def test_kto_loss_by_hand():
    assert one_kto(13.0, 3.0, True)[0].item() == pytest.approx(0.268941, abs=1e-6)  # 1 − σ(1)
    assert one_kto(13.0, 3.0, False)[0].item() == pytest.approx(0.731059, abs=1e-6)  # 1 − σ(−1)
    assert one_kto(13.0, 3.0, True, desirable_weight=2.0)[0].item() == pytest.approx(
        0.537883, abs=1e-6
    )


def test_kto_gradients_agree_with_the_formula_written_out():
    logps, reference = noise(8, seed=1, scale=8, grad=True), noise(8, seed=2, scale=8)
    good, z = torch.tensor([True, False] * 4), torch.tensor(0.9, dtype=torch.float64)
    r = logps - reference
    written_out = sum(
        1.3 * (1 - sigmoid(0.2 * (r[i] - z))) if good[i] else 0.6 * (1 - sigmoid(0.2 * (z - r[i])))
        for i in range(8)
    )
    losses, _ = kto_loss(
        logps, reference, good, z, beta=0.2, desirable_weight=1.3, undesirable_weight=0.6
    )
    assert losses.sum().item() == pytest.approx(written_out.item(), rel=1e-10)
    same_gradient(losses.sum(), written_out, logps)


def test_kto_saturates_on_both_sides_so_hopeless_and_finished_examples_barely_pull():
    def slope(r):
        logps = tensor(r, grad=True)
        kto_loss(
            logps,
            tensor(0.0),
            torch.tensor([True]),
            torch.tensor(0.0),
            beta=0.1,
            desirable_weight=1.0,
            undesirable_weight=1.0,
        )[0].sum().backward()
        return -logps.grad.item()

    assert slope(0.0) == pytest.approx(0.1 / 4)
    assert slope(100.0) == pytest.approx(slope(-100.0))
    assert 0 < slope(100.0) < 1e-3 * slope(0.0)


def test_kto_metrics_are_kept_apart_by_kind_with_nan_for_the_other():
    _, metrics = kto_loss(
        tensor(-3.0, -8.0),
        tensor(-5.0, -5.0),
        torch.tensor([True, False]),
        torch.tensor(0.0),
        beta=0.5,
        desirable_weight=3.0,
        undesirable_weight=4.0,
    )
    nan = float("nan")
    expected = {
        "rewards/chosen": tensor(1.0, nan),
        "rewards/rejected": tensor(nan, -1.5),
        "logps/chosen": tensor(-3.0, nan),
        "logps/rejected": tensor(nan, -8.0),
    }
    assert metrics.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(metrics[name], expected[name], equal_nan=True)


def test_kto_reference_point_is_the_mean_of_the_log_ratios_but_never_negative():
    assert kto_reference_point(tensor(-3.0, -2.0), tensor(-4.0, -4.0)).item() == pytest.approx(1.5)
    assert kto_reference_point(tensor(-5.0, -4.0), tensor(-4.0, -4.0)).item() == 0


def test_no_gradient_passes_through_the_reference_point():
    policy = tensor(-3.0, -2.0, grad=True)
    z = kto_reference_point(policy, tensor(-4.0, -4.0))
    assert z.ndim == 0 and not z.requires_grad


def test_a_reference_point_from_one_example_raises_a_lab_error():
    with pytest.raises(LabError, match="at least 2 examples, but got 1"):
        kto_reference_point(tensor(-3.0), tensor(-4.0))


# GRPO


def one_token(ratio, advantage, **knobs):
    """GRPO's loss and metrics of one token with the given ratio."""
    args = (
        tensor(math.log(ratio))[None],
        tensor(0.0)[None],
        None,
        tensor(advantage),
        torch.ones(1, 1).bool(),
    )
    return grpo_loss(*args, **(PLAIN | knobs))


@pytest.mark.parametrize(
    ("ratio", "advantage", "cost", "clipped"),
    [
        (1.5, 1.0, -1.2, 1),
        (0.5, -1.0, 0.8, 1),  # clipped: the ratio has already moved where the advantage pushes it
        (1.5, -1.0, 1.5, 0),
        (0.5, 1.0, -0.5, 0),  # not clipped: it has moved the wrong way and is pulled back in full
        (1.1, 2.0, -2.2, 0),
        (0.9, -2.0, 1.8, 0),
    ],
)
def test_grpo_clips_a_ratio_only_on_the_side_that_its_advantage_pushes_it_to(
    ratio, advantage, cost, clipped
):
    losses, metrics = one_token(ratio, advantage)
    assert losses.item() == pytest.approx(cost, abs=1e-6)
    assert metrics["clip_ratio/region_mean"].item() == clipped
    assert metrics["ratio"].item() == pytest.approx(ratio)


def test_epsilon_high_moves_the_upper_edge_alone():
    assert one_token(1.5, 1.0, epsilon_high=0.28)[0].item() == pytest.approx(-1.28, abs=1e-6)
    assert one_token(0.5, -1.0, epsilon_high=0.28)[0].item() == pytest.approx(0.8, abs=1e-6)
    assert one_token(0.5, -1.0, epsilon=0.4)[0].item() == pytest.approx(0.6, abs=1e-6)


def test_a_clipped_token_has_no_gradient():
    logps = tensor(math.log(1.5), math.log(1.5), 0.0, grad=True)
    args = (
        logps[:, None],
        torch.zeros(3, 1).double(),
        None,
        tensor(1.0, -1.0, 1.0),
        torch.ones(3, 1).bool(),
    )
    grpo_loss(*args, **PLAIN)[0].sum().backward()
    torch.testing.assert_close(logps.grad, tensor(0.0, 1.5, -1.0))


def ragged(seed=0, rows=4, length=6):
    """Token tensors and masks with prompts of 1-2 tokens and completions of different lengths."""
    current, old, reference = (noise(rows, length, seed=seed + s, scale=0.3) - 2 for s in range(3))
    mask = torch.zeros(rows, length, dtype=torch.bool)
    for row, (start, end) in enumerate([(1, 3), (2, 6), (1, 5), (2, 3)]):
        mask[row, start:end] = True
    return current.requires_grad_(), old, reference, mask


def test_on_policy_the_loss_is_zero_and_the_gradient_is_not():
    logps, _, _, mask = ragged()
    advantages = tensor(1.5, -0.5, -0.5, -0.5)
    losses, metrics = grpo_loss(logps, logps.detach(), None, advantages, mask, **PLAIN)
    loss = sequence_mean(losses, mask)
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert metrics["ratio"][mask].unique().tolist() == [1.0]
    assert metrics["clip_ratio/region_mean"][mask].sum() == 0
    loss.backward()
    torch.testing.assert_close(
        logps.grad, -advantages[:, None] * mask / mask.sum(1, keepdim=True) / 4
    )
    assert logps.grad.norm() > 0.1


def test_on_policy_the_gradient_is_reinforce_with_a_baseline():
    logits, ids = noise(5, 7, seed=1, grad=True), torch.tensor([[3], [0], [6], [3], [1]])
    logps, advantages, mask = (
        logits.log_softmax(-1).gather(1, ids),
        noise(5, seed=2),
        torch.ones(5, 1).bool(),
    )
    same_gradient(
        grpo_loss(logps, logps.detach(), None, advantages, mask, **PLAIN)[0].sum(),
        -(advantages[:, None] * logps).sum(),
        logits,
    )


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3", "k3_corrected"])
def test_grpo_agrees_with_the_formula_written_out_token_by_token(estimator):
    logps, old, reference, mask = ragged()
    advantages = tensor(1.5, -0.7, 0.4, -1.2)
    total = 0
    for b in range(4):
        for t in range(6):
            if mask[b, t]:
                ratio, x = torch.exp(logps[b, t] - old[b, t]), reference[b, t] - logps[b, t]
                clipped = torch.clamp(ratio, 0.9, 1.25)
                kl = {
                    "k1": -x,
                    "k2": x * x / 2,
                    "k3": torch.exp(x) - x - 1,
                    "k3_corrected": ratio * (torch.exp(x) - x - 1),
                }[estimator]
                total = total - torch.min(ratio * advantages[b], clipped * advantages[b]) + 0.4 * kl
    losses, _ = grpo_loss(
        logps,
        old,
        reference,
        advantages,
        mask,
        beta=0.4,
        epsilon=0.1,
        epsilon_high=0.25,
        kl_estimator=estimator,
    )
    assert losses.sum().item() == pytest.approx(total.item(), rel=1e-10)
    same_gradient(losses.sum(), total, logps)


def test_grpo_gradients_agree_with_finite_differences():
    logps, old, reference, mask = ragged()
    advantages = tensor(1.5, -0.7, 0.4, -1.2)
    for estimator in ("k1", "k2", "k3", "k3_corrected"):
        loss = partial(
            grpo_loss,
            advantages=advantages,
            completion_mask=mask,
            **(PLAIN | {"beta": 0.4, "kl_estimator": estimator}),
        )
        assert gradcheck(lambda z, loss=loss: loss(z, old, reference)[0], logps)


def test_prompt_and_padding_have_no_loss_and_no_gradient_whatever_stands_there():
    logps, old, reference, mask = ragged()
    advantages, knobs = (
        tensor(1.5, -0.7, 0.4, -1.2),
        PLAIN | {"beta": 0.4, "kl_estimator": "k3_corrected"},
    )
    plain, _ = grpo_loss(logps, old, reference, advantages, mask, **knobs)
    wanted = torch.autograd.grad(plain.sum(), logps)[0]
    junk = [
        old.masked_fill(~mask, float("nan")),
        reference.masked_fill(~mask, -1e4),
    ]  # −1e4 would overflow the ratio
    losses, metrics = grpo_loss(logps, *junk, advantages, mask, **knobs)
    losses.sum().backward()
    assert losses[~mask].abs().sum() == 0 and logps.grad[~mask].abs().sum() == 0
    torch.testing.assert_close(losses, plain)
    torch.testing.assert_close(logps.grad, wanted)
    assert all(
        value[~mask].isnan().all() and not value[mask].isnan().any() for value in metrics.values()
    )


def test_adding_padding_changes_no_reduction_of_grpo():
    logps, old, reference, mask = ragged()
    advantages, knobs = tensor(1.5, -0.7, 0.4, -1.2), PLAIN | {"beta": 0.4}

    def reductions(*args):
        losses, _ = grpo_loss(*args, **knobs)
        return torch.stack(
            [
                sequence_mean(losses, args[-1]),
                token_mean(losses, args[-1]),
                fixed_length(losses, args[-1], 10),
            ]
        )

    wider = [torch.cat([x, noise(4, 3, seed=9)], 1) for x in (logps, old, reference)]
    padded = reductions(*wider, advantages, torch.cat([mask, torch.zeros(4, 3).bool()], 1))
    torch.testing.assert_close(padded, reductions(logps, old, reference, advantages, mask))


def test_a_dead_group_gives_no_gradient_and_with_a_kl_term_only_that_of_the_kl():
    logps, old, reference, mask = ragged()
    dead = torch.zeros(4, dtype=torch.float64)
    losses, _ = grpo_loss(logps, old, None, dead, mask, **PLAIN)
    assert torch.autograd.grad(losses.sum(), logps)[0].abs().sum() == 0
    losses, _ = grpo_loss(logps, old, reference, dead, mask, **(PLAIN | {"beta": 0.5}))
    same_gradient(
        losses.sum(),
        0.5 * ((torch.exp(reference - logps) - (reference - logps) - 1) * mask).sum(),
        logps,
    )


def test_beta_zero_needs_no_reference_and_any_other_beta_does():
    logps, old, _, mask = ragged()
    grpo_loss(logps, old, None, tensor(1.0, 1.0, 1.0, 1.0), mask, **PLAIN)
    with pytest.raises(LabError, match="beta is 0.04.*takes reference_token_logps"):
        grpo_loss(logps, old, None, tensor(1.0, 1.0, 1.0, 1.0), mask, **(PLAIN | {"beta": 0.04}))


# The KL term, by enumeration of a vocabulary


def mean_gradient_of_the_kl_term(estimator):
    """The gradient in the logits that GRPO's KL term has on average, over every token of a
    vocabulary of 5 weighted by its probability.
    """
    logits, reference = noise(5, seed=1, grad=True), noise(5, seed=2).log_softmax(0)
    logps = logits.log_softmax(0)
    losses, _ = grpo_loss(
        logps[:, None],
        logps.detach()[:, None],
        reference[:, None],
        torch.zeros(5, dtype=torch.float64),
        torch.ones(5, 1).bool(),
        **(PLAIN | {"beta": 1.0, "kl_estimator": estimator}),
    )
    weights = logps.detach().exp()
    (gradient,) = torch.autograd.grad((weights * losses[:, 0]).sum(), logits, retain_graph=True)
    reverse, forward = (
        (logps.exp() * (logps - reference)).sum(),
        (reference.exp() * (reference - logps)).sum(),
    )
    return (
        gradient,
        torch.autograd.grad(reverse, logits, retain_graph=True)[0],
        torch.autograd.grad(forward, logits)[0],
    )


@pytest.mark.parametrize(
    ("estimator", "what"),
    [("k1", "zero"), ("k2", "reverse"), ("k3", "forward"), ("k3_corrected", "reverse")],
)
def test_the_mean_gradient_of_each_kl_term(estimator, what):
    gradient, reverse, forward = mean_gradient_of_the_kl_term(estimator)
    assert not torch.allclose(reverse, forward, rtol=1e-2)
    torch.testing.assert_close(
        gradient,
        {"zero": torch.zeros(5, dtype=torch.float64), "reverse": reverse, "forward": forward}[what],
    )


# Two actions (Azar et al., §5.3-5.4): y_1 is always preferred


def trained_probability(loss, beta, rate, steps):
    """π(y_1) after gradient descent on two logits, from a reference that likes both actions
    equally.
    """
    logits = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    reference = tensor(0.5).log()
    for _ in range(steps):
        logps = logits.log_softmax(0)
        (gradient,) = torch.autograd.grad(
            loss(logps[:1], logps[1:], reference, reference, beta=beta)[0].sum(), logits
        )
        logits = (logits - rate * gradient).detach().requires_grad_()
    return logits.softmax(0)[0].item()


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_with_two_actions_dpo_goes_to_certainty_for_every_beta(beta):
    assert trained_probability(dpo_loss, beta, rate=20 / beta**2, steps=600) > 0.9999


@pytest.mark.parametrize("beta", [0.2, 0.5, 1.0])
def test_with_two_actions_ipo_stops_at_sigma_of_1_over_2_beta(beta):
    assert trained_probability(ipo_loss, beta, rate=0.1, steps=200) == pytest.approx(
        1 / (1 + math.exp(-1 / (2 * beta))), abs=1e-6
    )


# Reductions


LOSSES, MASK = (
    tensor([1.0, 1.0, 9.0], [9.0, 4.0, 9.0]),
    torch.tensor([[1, 1, 0], [0, 1, 0]], dtype=torch.bool),
)


def test_reductions_by_hand():
    assert batch_mean(tensor(1.0, 2.0, 6.0)).item() == 3
    assert sequence_mean(LOSSES, MASK).item() == 2.5
    assert token_mean(LOSSES, MASK).item() == 2
    assert fixed_length(LOSSES, MASK, 10).item() == pytest.approx(0.3)


def test_a_mask_of_integers_counts_as_one_of_booleans():
    for reduce in (sequence_mean, token_mean, lambda losses, mask: fixed_length(losses, mask, 10)):
        assert reduce(LOSSES, MASK.long()).item() == reduce(LOSSES, MASK).item()


def test_reductions_weigh_a_token_differently():
    losses = torch.ones(2, 4, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0]], dtype=torch.bool)
    long, short = (0, 0), (1, 0)
    for loss, weights in (
        (sequence_mean(losses, mask), (1 / 8, 1 / 2)),
        (token_mean(losses, mask), (1 / 5, 1 / 5)),
        (fixed_length(losses, mask, 10), (1 / 20, 1 / 20)),
    ):
        (gradient,) = torch.autograd.grad(loss, losses)
        assert (gradient[long].item(), gradient[short].item()) == pytest.approx(weights)
        assert gradient[~mask].abs().sum() == 0


def test_pieces_of_a_batch_with_the_total_of_the_whole_sum_to_the_whole():
    _, _, losses, mask = ragged()
    tokens = int(mask.sum())
    for pieces in ([slice(0, 1), slice(1, 4)], [slice(i, i + 1) for i in range(4)]):
        cuts = [(losses[p], mask[p]) for p in pieces]
        assert sum(batch_mean(x[:, 0], 4) for x, _ in cuts).item() == pytest.approx(
            batch_mean(losses[:, 0]).item()
        )
        assert sum(sequence_mean(x, m, 4) for x, m in cuts).item() == pytest.approx(
            sequence_mean(losses, mask).item()
        )
        assert sum(token_mean(x, m, tokens) for x, m in cuts).item() == pytest.approx(
            token_mean(losses, mask).item()
        )
        assert sum(fixed_length(x, m, 10, 4) for x, m in cuts).item() == pytest.approx(
            fixed_length(losses, mask, 10).item()
        )


def test_without_the_totals_unequal_pieces_would_not_sum_to_the_whole():
    means = [token_mean(LOSSES[i : i + 1], MASK[i : i + 1]).item() for i in range(2)]
    assert means == [1, 4] and token_mean(LOSSES, MASK).item() == 2 != sum(means) / 2


def test_a_completion_without_tokens_adds_nothing_and_an_empty_mask_costs_nothing():
    empty = torch.zeros(2, 3).bool()
    assert sequence_mean(LOSSES, torch.stack([MASK[0], empty[0]])).item() == 0.5
    assert token_mean(LOSSES, empty).item() == sequence_mean(LOSSES, empty).item() == 0


# What all objectives share


def every_objective():
    """Each objective with fresh float64 inputs: name → (policy tensors, call)."""
    a, b, c, d = (noise(4, seed=s, scale=4) for s in range(4))
    lengths = torch.tensor([2, 5, 1, 3])
    logps, old, reference, mask = ragged()
    good = torch.tensor([True, False, True, False])
    z = torch.tensor(0.3, dtype=torch.float64)
    weights = {"desirable_weight": 1.0, "undesirable_weight": 1.5}
    knobs = PLAIN | {"beta": 0.1}
    return {
        "sft": ((logps.detach(),), sft_loss),
        "reward_model": ((a, b), reward_model_loss),
        "dpo": ((a, b), lambda x, y: dpo_loss(x, y, c, d, beta=0.1)),
        "ipo": ((a, b), lambda x, y: ipo_loss(x, y, c, d, beta=0.1)),
        "ipo_token_mean": (
            (a, b),
            lambda x, y: ipo_token_mean_loss(x, y, c, d, lengths, lengths.flip(0), beta=0.1),
        ),
        "kto": ((a,), lambda x: kto_loss(x, b, good, z, beta=0.1, **weights)),
        "grpo": (
            (logps.detach(),),
            lambda x: grpo_loss(x, old, reference, noise(4, seed=8), mask, **knobs),
        ),
        "ppo": ((logps.detach(),), lambda x: ppo_loss(x, old, reference, mask, epsilon=0.2)),
        "value_loss": (
            (logps.detach(),),
            lambda x: value_loss(x, old, reference, mask, epsilon_value=0.2),
        ),
    }


@pytest.mark.parametrize("name", list(every_objective()))
def test_metrics_are_detached_and_have_the_shape_of_the_unreduced_losses(name):
    policy, call = every_objective()[name]
    losses, metrics = call(*(x.requires_grad_() for x in policy))
    assert (
        losses.requires_grad and losses.shape == policy[0].shape and losses.dtype == torch.float64
    )
    for value in metrics.values():
        assert value.shape == losses.shape and not value.requires_grad


@pytest.mark.parametrize("name", list(every_objective()))
def test_gradients_of_every_objective_agree_with_finite_differences(name):
    policy, call = every_objective()[name]
    assert gradcheck(lambda *x: call(*x)[0], [x.requires_grad_() for x in policy])


ROW, ROWS, WIDE = torch.zeros(3), torch.zeros(4), torch.zeros(3, 2)
MASK_32, GOOD, Z = torch.ones(3, 2).bool(), torch.ones(3).bool(), torch.tensor(0.0)
KTO = {"beta": 0.1, "desirable_weight": 1.0, "undesirable_weight": 1.0}


@pytest.mark.parametrize(
    "call",
    [
        lambda: sft_loss(ROW),
        lambda: reward_model_loss(ROW, ROWS),
        lambda: reward_model_loss(ROW[:, None], ROW[:, None]),
        lambda: dpo_loss(ROW, ROW, ROW, ROWS, beta=0.1),
        lambda: dpo_loss(WIDE, WIDE, WIDE, WIDE, beta=0.1),
        lambda: ipo_loss(ROW, ROW, ROW[:1], ROW, beta=0.1),
        lambda: ipo_token_mean_loss(ROW, ROW, ROW, ROW, ROW[:1], ROW, beta=0.1),
        lambda: kto_reference_point(ROW, ROWS),
        lambda: kto_loss(ROW, ROWS, GOOD, Z, **KTO),
        lambda: kto_loss(ROW, ROW, GOOD.long(), Z, **KTO),
        lambda: kto_loss(ROW, ROW, GOOD, ROW, **KTO),
        lambda: grpo_loss(WIDE, WIDE, None, ROWS, MASK_32, **PLAIN),
        lambda: grpo_loss(WIDE, WIDE, None, WIDE, MASK_32, **PLAIN),
        lambda: grpo_loss(WIDE, WIDE[:, :1], None, ROW, MASK_32, **PLAIN),
        lambda: grpo_loss(WIDE, WIDE, WIDE[:, :1], ROW, MASK_32, **PLAIN),
        lambda: grpo_loss(ROW, ROW, None, ROW, GOOD, **PLAIN),
        lambda: ppo_loss(WIDE, WIDE, ROW, MASK_32, epsilon=0.2),
        lambda: ppo_loss(WIDE, WIDE[:, :1], WIDE, MASK_32, epsilon=0.2),
        lambda: value_loss(WIDE, WIDE, WIDE[:1], MASK_32, epsilon_value=0.2),
        lambda: value_loss(ROW, ROW, ROW, GOOD, epsilon_value=0.2),
        lambda: batch_mean(WIDE),
        lambda: sequence_mean(WIDE, MASK_32[:, :1]),
        lambda: token_mean(ROW, GOOD),
        lambda: fixed_length(WIDE, MASK_32[:1], 10),
        lambda: fixed_length(WIDE, MASK_32, 0),
    ],
)
def test_shapes_that_do_not_fit_raise_a_lab_error_that_says_what_is_taken(call):
    with pytest.raises(LabError, match="take"):
        call()


@pytest.mark.parametrize("name", ["k4", "k1_corrected", "k2_corrected"])
def test_an_unknown_kl_estimator_names_the_valid_ones(name):
    with pytest.raises(LabError, match="Accepted: k1, k2, k3, k3_corrected"):
        grpo_loss(WIDE, WIDE, None, ROW, MASK_32, **(PLAIN | {"kl_estimator": name}))
