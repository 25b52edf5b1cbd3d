import math

import pytest
import torch

from lab.algorithms.losses import dpo_loss, ipo_loss, kto_loss
from lab.analysis.loss_curves import along_margin, along_ratio, equal_push_margin, two_actions
from lab.errors import LabError


def test_dpo_costs_log_2_at_margin_0_for_every_beta_and_pushes_half_of_beta():
    for beta in (0.05, 0.1, 0.5):
        found = along_margin("dpo", [0.0, 10.0], beta=beta)
        assert found.loss[0] == pytest.approx(math.log(2)) and found.push[0] == pytest.approx(
            beta / 2
        )
    assert along_margin("dpo", [10.0], beta=0.1).push[0] == pytest.approx(0.1 * 0.268941, abs=1e-6)


def test_above_the_margin_of_equal_push_the_smaller_beta_pushes_harder():
    def push(beta, h):
        return beta / (1 + math.exp(beta * h))

    h = equal_push_margin(0.05, 0.5)
    assert h == pytest.approx(6.2414, abs=1e-3)
    assert push(0.05, h) == pytest.approx(push(0.5, h)) and push(0.05, h + 1) > push(0.5, h + 1)
    assert all(push(0.05, below) < push(0.5, below) for below in (h - 1, 0, -100))


def test_ipo_costs_nothing_at_its_target_and_pulls_back_beyond():
    found = along_margin("ipo", [0.0, 5.0, 6.0], beta=0.1)
    assert found.loss == pytest.approx([25.0, 0.0, 1.0]) and found.push == pytest.approx(
        [10.0, 0.0, -2.0]
    )


def test_kto_is_steepest_at_its_reference_point_up_for_a_thumb_up_and_down_for_a_thumb_down():
    up, down = (
        along_ratio(kind, [3.0, 13.0], beta=0.1, z=3.0, weight=2.0) for kind in (True, False)
    )
    assert up.loss == pytest.approx([1.0, 2 * 0.268941], abs=1e-5) and down.loss == pytest.approx(
        [1.0, 2 * 0.731059], abs=1e-5
    )
    assert (
        up.push[0] == pytest.approx(0.05)
        and down.push[0] == pytest.approx(-0.05)
        and up.push[1] < up.push[0]
    )


def push_of(losses, x):
    """Minus the slope by autograd, per element."""
    return (-torch.autograd.grad(losses.sum(), x)[0]).tolist()


@pytest.mark.parametrize("beta", [0.01, 0.1, 2.0])
@pytest.mark.parametrize(("method", "loss"), [("dpo", dpo_loss), ("ipo", ipo_loss)])
def test_the_pairwise_curves_are_the_losses_that_train(method, loss, beta):
    h = torch.linspace(-300, 300, 61, dtype=torch.float64, requires_grad=True)
    zero = torch.zeros_like(h)
    losses, _ = loss(h, zero, zero, zero, beta=beta)
    found = along_margin(method, h.tolist(), beta=beta)
    assert found.x == h.tolist()
    assert found.loss == pytest.approx(losses.tolist(), rel=1e-12, abs=1e-280)
    assert found.push == pytest.approx(push_of(losses, h), rel=1e-12, abs=1e-280)


@pytest.mark.parametrize("desirable", [True, False])
@pytest.mark.parametrize(("beta", "z", "weight"), [(0.1, 3.0, 1.33), (2.0, 0.0, 7.0)])
def test_the_curves_of_kto_are_the_loss_that_trains(desirable, beta, z, weight):
    r = torch.linspace(-60, 60, 61, dtype=torch.float64, requires_grad=True)
    losses, _ = kto_loss(
        r,
        torch.zeros_like(r),
        torch.full(r.shape, desirable),
        torch.tensor(z, dtype=torch.float64),
        beta=beta,
        desirable_weight=weight,
        undesirable_weight=weight,
    )
    found = along_ratio(desirable, r.tolist(), beta=beta, z=z, weight=weight)
    assert found.loss == pytest.approx(losses.tolist(), rel=1e-12, abs=1e-280)
    # autograd multiplies σ by 1 − σ, which is 0 in float64 where σ is nearly 1
    assert found.push == pytest.approx(push_of(losses, r), rel=1e-12, abs=1e-14)


def test_with_two_actions_ipo_stops_at_its_target_and_dpo_goes_on_for_every_beta():
    betas, looks = (0.1, 0.5, 1.0), (0, 150, 300)
    ipo, dpo = (two_actions(method, betas, looks, rate=0.2) for method in ("ipo", "dpo"))
    assert [walk[0] for walk in ipo + dpo] == [0.0] * 6
    assert [walk[-1] for walk in ipo] == pytest.approx([5.0, 1.0, 0.5], abs=1e-2)
    assert all(walk[2] > walk[1] + 0.3 and walk[2] > 5 for walk in dpo)


def test_two_actions_moves_as_adam_of_torch_does():
    h = torch.zeros((), dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([h], lr=0.2, betas=(0.9, 0.999), eps=1e-12)
    margins = []
    for _ in range(40):
        margins.append(h.item())
        adam.zero_grad()
        # (h_w − h_l − 1/(2β))² with log-ratios log σ(±h) − log ½, whose difference is h
        (h - 1 / (2 * 0.25)).square().backward()
        adam.step()
    (walk,) = two_actions("ipo", [0.25], range(40), rate=0.2)
    assert walk == pytest.approx(margins, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: along_margin("kto", [0.0], beta=0.1),
        lambda: two_actions("grpo", [0.1], [1], rate=0.1),
    ],
)
def test_another_method_is_refused_by_name(wrong):
    with pytest.raises(LabError, match="dpo, ipo"):
        wrong()
