"""A bandit: one prompt and K responses, so that every expectation is an exact sum. Each step of the
derivation of DPO can be checked in it.

A bandit has three parts: the reference's probabilities of the K responses, their rewards, and β.
"""

import torch

from lab.algorithms.losses import dpo_loss
from lab.errors import LabError

NEWTON_STEPS = 50  # Rewards that differ by 3 need 7 steps, rewards that differ by 60 need 27.


def _check_bandit(reference: torch.Tensor, rewards: torch.Tensor, beta: float) -> None:
    if reference.ndim != 1 or reference.shape != rewards.shape or len(reference) < 2:
        raise LabError(
            f"reference is {tuple(reference.shape)} and rewards {tuple(rewards.shape)}: both take"
            " (K,) with K of at least 2 responses."
        )
    if not (reference > 0).all() or not torch.isclose(reference.sum(), reference.new_ones(())):
        raise LabError(
            f"reference is {reference.tolist()}, but takes positive probabilities that sum to 1."
        )
    if not beta > 0:
        raise LabError(f"beta is {beta}, but takes a number above 0.")


def objective(
    policy: torch.Tensor, reference: torch.Tensor, rewards: torch.Tensor, *, beta: float
) -> torch.Tensor:
    """Return the objective of RLHF (arXiv 2305.18290, Eq. 3, https://arxiv.org/abs/2305.18290).

    E_π[r] − β·KL(π‖π_ref)

    Shapes: three (K,) → scalar. Units: those of the reward. Raises `LabError` for an unfit
    reference or β. Anchor: the reference itself has KL 0, so its objective is its mean reward.
    """
    _check_bandit(reference, rewards, beta)
    return (policy * rewards).sum() - beta * torch.special.xlogy(policy, policy / reference).sum()


def partition(reference: torch.Tensor, rewards: torch.Tensor, *, beta: float) -> torch.Tensor:
    """Return the partition function Z (arXiv 2305.18290, below Eq. 4).

    Z = Σ_y π_ref(y)·exp(r(y)/β)

    Shapes: (K,), (K,) → scalar. Raises `LabError` for an unfit reference or β.
    Anchor: equal rewards r give exp(r/β), whatever the reference.
    """
    _check_bandit(reference, rewards, beta)
    return (reference * (rewards / beta).exp()).sum()


def optimal_policy(reference: torch.Tensor, rewards: torch.Tensor, *, beta: float) -> torch.Tensor:
    """Return the policy that maximises the objective (arXiv 2305.18290, Eq. 4).

    π*(y) = π_ref(y)·exp(r(y)/β) / Z

    Shapes: (K,), (K,) → (K,), which sums to 1. Raises `LabError` for an unfit reference or β.
    Anchor: π_ref = ½, ½ with rewards log 3·β, 0 gives ¾, ¼.
    """
    _check_bandit(reference, rewards, beta)
    return (reference.log() + rewards / beta).softmax(0)


def implied_rewards(policy: torch.Tensor, reference: torch.Tensor, *, beta: float) -> torch.Tensor:
    """Return the reward that a policy implies (arXiv 2305.18290, Eq. 5 without its last term).

    r̂(y) = β·log(π(y)/π_ref(y))

    For the optimal policy it is r(y) − β·log Z: the true reward up to a constant, which does not
    change any preference. Shapes: (K,), (K,) → (K,). Units: those of the reward. Anchor: the reference
    implies 0 everywhere.
    """
    return beta * (policy / reference).log()


def preferences(rewards: torch.Tensor) -> torch.Tensor:
    """Return the Bradley-Terry probability that response i (row) is preferred to response j (column)
    (arXiv 2305.18290, Eq. 1).

    P(i ≻ j) = σ(r_i − r_j)

    Shapes: (K,) → (K, K). A constant added to all rewards changes nothing.
    Anchor: a lead of log 3 is preferred ¾ of the time.
    """
    return torch.sigmoid(rewards[:, None] - rewards[None, :])


def dpo_optimum(reference: torch.Tensor, rewards: torch.Tensor, *, beta: float) -> torch.Tensor:
    """Return the policy that minimises the expected DPO loss when pairs are preferred with the
    Bradley-Terry probabilities, computed from the loss alone.

    The loss is `lab.algorithms.losses.dpo_loss`; its expectation is a sum over all ordered pairs.
    Newton's method starts at the reference, with gradient and Hessian from autograd: the loss is
    convex in the log-ratios. The computation is in float64. Shapes: (K,), (K,) → (K,). Raises
    `LabError` for an unfit reference or β.
    Anchor: the result equals `optimal_policy`, although rewards enter only through the preferences.
    """
    _check_bandit(reference, rewards, beta)
    reference, rewards = reference.double(), rewards.double()
    weights, k = preferences(rewards).flatten(), len(rewards)
    chosen, rejected = (
        index.flatten() for index in torch.meshgrid(torch.arange(k), torch.arange(k), indexing="ij")
    )
    reference_logps, last = reference.log(), reference.new_zeros(1)

    def loss(ratios: torch.Tensor) -> torch.Tensor:
        logps = (reference_logps + torch.cat([ratios, last])).log_softmax(0)
        losses, _ = dpo_loss(
            logps[chosen],
            logps[rejected],
            reference_logps[chosen],
            reference_logps[rejected],
            beta=beta,
        )
        return (weights * losses).sum()

    # Log-ratios of the first K − 1 responses minus that of the last: only differences matter.
    ratios = reference.new_zeros(k - 1)
    for _ in range(NEWTON_STEPS):
        gradient = torch.autograd.functional.jacobian(loss, ratios)
        hessian = torch.autograd.functional.hessian(loss, ratios)
        step = torch.linalg.solve(hessian, gradient)
        ratios = ratios - step
        if step.abs().max() < 1e-10:
            break
    return (reference_logps + torch.cat([ratios, last])).softmax(0)
