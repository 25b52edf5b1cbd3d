"""The preference losses of `lab.algorithms.losses` as curves, with slopes from autograd."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lab.algorithms.losses import dpo_loss, ipo_loss, kto_loss
from lab.distributed.cpu_threads import one_thread
from lab.errors import unknown

PAIRWISE_LOSSES = {"dpo": dpo_loss, "ipo": ipo_loss}


@dataclass(frozen=True)
class LossCurve:
    """A loss at every x, and the push there: minus the slope, which is positive where gradient descent
    raises x.
    """

    x: list[float]
    loss: list[float]
    push: list[float]


def _loss_curve(x: torch.Tensor, losses: torch.Tensor) -> LossCurve:
    (slope,) = torch.autograd.grad(losses.sum(), x)
    return LossCurve(x.tolist(), losses.tolist(), (0.0 - slope).tolist())


@one_thread()
def along_margin(method: str, margins: Sequence[float], *, beta: float) -> LossCurve:
    """Return `lab.algorithms.losses.dpo_loss` or `ipo_loss` as a function of the margin h, in nats.

    Raises `LabError` for another method. Anchor: DPO at h = 0 costs log 2 and pushes β/2; IPO at β
    = 0.1 costs 25 there, pushes 10, and pushes 0 at h = 5.
    """
    if method not in PAIRWISE_LOSSES:
        raise unknown("pairwise method", method, list(PAIRWISE_LOSSES))
    h = torch.tensor(list(margins), dtype=torch.float64, requires_grad=True)
    zero = torch.zeros_like(h)
    return _loss_curve(h, PAIRWISE_LOSSES[method](h, zero, zero, zero, beta=beta)[0])


def equal_push_margin(low: float, high: float) -> float:
    """Return the margin h > 0, in nats, at which the DPO losses with β = `low` and β = `high` push
    equally hard; above it the smaller β pushes harder.

    It solves low·σ(−low·h) = high·σ(−high·h) by bisection. At h ≤ 0 the larger β pushes harder, and the
    ratio of the pushes falls with h. Anchor: 0.05 and 0.5 push equally at h = 6.24, with 0.0211.
    """
    left, right = 0.0, 1.0

    def larger_pushes_harder(h: float) -> bool:
        pushes = [along_margin("dpo", (h,), beta=beta).push[0] for beta in (low, high)]
        return pushes[1] > pushes[0]

    while larger_pushes_harder(right):
        right *= 2
    for _ in range(40):
        middle = (left + right) / 2
        left, right = (middle, right) if larger_pushes_harder(middle) else (left, middle)
    return right


@one_thread()
def along_ratio(
    desirable: bool, ratios: Sequence[float], *, beta: float, z: float, weight: float
) -> LossCurve:
    """Return `lab.algorithms.losses.kto_loss` as a function of r = log π − log π_ref of a completion,
    in nats; `weight` is its λ.

    Anchor: at r = z it costs λ/2 and pushes ±λβ/4: up when desirable, down when not.
    """
    r = torch.tensor(list(ratios), dtype=torch.float64, requires_grad=True)
    kind = torch.full(r.shape, desirable)
    losses, _ = kto_loss(
        r,
        torch.zeros_like(r),
        kind,
        torch.tensor(z, dtype=torch.float64),
        beta=beta,
        desirable_weight=weight,
        undesirable_weight=weight,
    )
    return _loss_curve(r, losses)


@one_thread()
def two_actions(
    method: str, betas: Sequence[float], looks: Sequence[int], *, rate: float
) -> list[list[float]]:
    """Return, for each β, the margin h in nats at the updates `looks`, in a world of two responses: the
    reference gives both the probability ½, and y₁ is always preferred (arXiv 2310.12036, section 5).

    The policy is π(y₁) = σ(h). Adam with β₁ = 0.9, β₂ = 0.999 and learning rate `rate` minimises the
    loss from h = 0. Adam is written out: that of torch imports its compiler at its first use, which
    takes a second of CPU time. Raises `LabError` for another method.
    Anchor: IPO at β = 0.5 stops at h = 1, where π(y₁) = σ(1) = 0.731059; DPO does not stop.
    """
    if method not in PAIRWISE_LOSSES:
        raise unknown("pairwise method", method, list(PAIRWISE_LOSSES))
    beta = torch.tensor(list(betas), dtype=torch.float64)
    reference = torch.full_like(beta, 0.5).log()
    h = torch.zeros_like(beta, requires_grad=True)
    mean, mean_square = torch.zeros_like(beta), torch.zeros_like(beta)
    margins = []
    for step in range(max(looks) + 1):
        if step in looks:
            margins.append(h.tolist())
        chosen, rejected = torch.nn.functional.logsigmoid(torch.stack([h, -h]))
        losses, _ = PAIRWISE_LOSSES[method](chosen, rejected, reference, reference, beta=beta)
        (gradient,) = torch.autograd.grad(losses.sum(), h)
        mean = 0.9 * mean + 0.1 * gradient
        mean_square = 0.999 * mean_square + 0.001 * gradient**2
        root = (mean_square / (1 - 0.999 ** (step + 1))).sqrt() + 1e-12
        h = (h.detach() - rate * mean / (1 - 0.9 ** (step + 1)) / root).requires_grad_()
    return [list(walk) for walk in zip(*margins)]
