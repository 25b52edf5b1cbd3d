"""The preference losses as curves, with their slopes in closed form.

They are the losses of `lab.algorithms.losses`; the tests compare them with those and with autograd. NumPy
computes them, so that a page can draw its first figure before torch is imported, which takes a second.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lab.errors import unknown

LossAndSlope = tuple[np.ndarray, np.ndarray]


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0.0, -x))  # exact where it is tiny


def _dpo(h: np.ndarray, beta: float | np.ndarray) -> LossAndSlope:
    return np.logaddexp(0.0, -beta * h), -beta * _sigmoid(-beta * h)


def _ipo(h: np.ndarray, beta: float | np.ndarray) -> LossAndSlope:
    distance = h - 1 / (2 * beta)
    return distance**2, 2 * distance


PAIRWISE_LOSSES: dict[str, Callable[[np.ndarray, float | np.ndarray], LossAndSlope]] = {
    "dpo": _dpo,
    "ipo": _ipo,
}
"""By method, the loss and its slope at margins h in nats, each of the shape of h."""


@dataclass(frozen=True)
class LossCurve:
    """A loss at every x, and the push there: minus the slope, which is positive where gradient descent
    raises x.
    """

    x: list[float]
    loss: list[float]
    push: list[float]


def _loss_curve(x: np.ndarray, loss: np.ndarray, slope: np.ndarray) -> LossCurve:
    return LossCurve(x.tolist(), loss.tolist(), (0.0 - slope).tolist())


def along_margin(method: str, margins: Sequence[float], *, beta: float) -> LossCurve:
    """Return `lab.algorithms.losses.dpo_loss` or `ipo_loss` as a function of the margin h, in nats.

    Raises `LabError` for another method. Anchor: DPO at h = 0 costs log 2 and pushes β/2; IPO at β
    = 0.1 costs 25 there, pushes 10, and pushes 0 at h = 5.
    """
    if method not in PAIRWISE_LOSSES:
        raise unknown("pairwise method", method, list(PAIRWISE_LOSSES))
    h = np.array(margins, dtype=float)
    return _loss_curve(h, *PAIRWISE_LOSSES[method](h, beta))


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


def along_ratio(
    desirable: bool, ratios: Sequence[float], *, beta: float, z: float, weight: float
) -> LossCurve:
    """Return `lab.algorithms.losses.kto_loss` as a function of r = log π − log π_ref of a completion,
    in nats; `weight` is its λ.

    Anchor: at r = z it costs λ/2 and pushes ±λβ/4: up when desirable, down when not.
    """
    r, sign = np.array(ratios, dtype=float), 1.0 if desirable else -1.0
    gain = beta * sign * (r - z)
    lost = weight * _sigmoid(-gain)
    return _loss_curve(r, lost, -sign * beta * lost * _sigmoid(gain))


def two_actions(
    method: str, betas: Sequence[float], looks: Sequence[int], *, rate: float
) -> list[list[float]]:
    """Return, for each β, the margin h in nats at the updates `looks`, in a world of two responses: the
    reference gives both the probability ½, and y₁ is always preferred (arXiv 2310.12036, section 5).

    The policy is π(y₁) = σ(h). Adam with β₁ = 0.9, β₂ = 0.999 and learning rate `rate` minimises the
    loss from h = 0. Raises `LabError` for another method.
    Anchor: IPO at β = 0.5 stops at h = 1, where π(y₁) = σ(1) = 0.731059; DPO does not stop.
    """
    if method not in PAIRWISE_LOSSES:
        raise unknown("pairwise method", method, list(PAIRWISE_LOSSES))
    beta = np.array(betas, dtype=float)
    h, mean, mean_square = np.zeros_like(beta), np.zeros_like(beta), np.zeros_like(beta)
    margins = []
    for step in range(max(looks) + 1):
        if step in looks:
            margins.append(h.tolist())
        _, gradient = PAIRWISE_LOSSES[method](h, beta)
        mean = 0.9 * mean + 0.1 * gradient
        mean_square = 0.999 * mean_square + 0.001 * gradient**2
        root = np.sqrt(mean_square / (1 - 0.999 ** (step + 1))) + 1e-12
        h = h - rate * mean / (1 - 0.9 ** (step + 1)) / root
    return [list(walk) for walk in zip(*margins)]
