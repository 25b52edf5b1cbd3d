"""The preference losses as curves: each along the one number that it depends on, its slope from
autograd, computed by `lab.algorithms.losses`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lab.algorithms.losses import dpo_loss, ipo_loss, kto_loss
from lab.distributed.cpu_threads import one_thread
from lab.errors import unknown

PAIRWISE_LOSSES = {"dpo": dpo_loss, "ipo": ipo_loss}


@dataclass(frozen=True)
class LossCurve:
    """A loss at every x, and the push there: minus the slope, so that it is positive where descent
    raises x.
    """

    x: list[float]
    loss: list[float]
    push: list[float]


def _profile(x: torch.Tensor, losses: torch.Tensor) -> LossCurve:
    (slope,) = torch.autograd.grad(losses.sum(), x)
    return LossCurve(x.tolist(), losses.tolist(), (0.0 - slope).tolist())


@one_thread()
def along_margin(method: str, margins: Sequence[float], *, beta: float) -> LossCurve:
    """`lab.algorithms.losses.dpo_loss` or `ipo` as a function of the margin h, in nats.

    Raises `LabError` for another method. Anchor: DPO at h = 0 costs log 2 and pushes β/2; IPO at β
    = 0.1 costs 25 there, pushes 10, and pushes 0 at h = 5.
    """
    if method not in PAIRWISE_LOSSES:
        raise unknown("pairwise method", method, list(PAIRWISE_LOSSES))
    h = torch.tensor(list(margins), dtype=torch.float64, requires_grad=True)
    rest = torch.zeros_like(h)
    return _profile(h, PAIRWISE_LOSSES[method](h, rest, rest, rest, beta=beta)[0])


@one_thread()
def along_ratio(
    desirable: bool, ratios: Sequence[float], *, beta: float, z: float, weight: float
) -> LossCurve:
    """`lab.algorithms.losses.kto_loss` as a function of r = log π − log π_ref of a completion, in nats;
    `weight` is λ of its kind.

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
    return _profile(r, losses)


@one_thread()
def two_actions(
    method: str, betas: Sequence[float], looks: Sequence[int], *, rate: float
) -> list[list[float]]:
    """The margin h at the updates `looks`, for each β, where there are two responses, the reference
    takes either half the time and y₁ is always preferred.

    The world of arXiv 2310.12036, §5.4. The policy is σ(h) for y₁; Adam with β₁ = 0.9, β₂ = 0.999
    walks down the loss from h = 0 with the step `rate`. Raises `LabError` for another method.
    Anchor: IPO at β = 0.5 comes to rest at h = 1, where π(y₁) = σ(1) = 0.731059; DPO goes on.
    """
    if method not in PAIRWISE_LOSSES:
        raise unknown("pairwise method", method, list(PAIRWISE_LOSSES))
    beta, half = (
        torch.tensor(list(betas), dtype=torch.float64),
        torch.full((len(betas),), 0.5, dtype=torch.float64).log(),
    )
    h = torch.zeros(len(betas), dtype=torch.float64)
    first, second, found = torch.zeros_like(h), torch.zeros_like(h), []
    for step in range(max(looks) + 1):
        if step in looks:
            found.append(h.tolist())
        h.requires_grad_(True)
        logps = torch.stack([torch.nn.functional.logsigmoid(h), torch.nn.functional.logsigmoid(-h)])
        losses, _ = PAIRWISE_LOSSES[method](logps[0], logps[1], half, half, beta=beta)
        (slope,) = torch.autograd.grad(losses.sum(), h)
        first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
        h = h.detach() - rate * (first / (1 - 0.9 ** (step + 1))) / (
            (second / (1 - 0.999 ** (step + 1))).sqrt() + 1e-12
        )
    return [list(one) for one in zip(*found)]
