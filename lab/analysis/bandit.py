"""A world small enough to count: one prompt, K responses, exact expectations. The derivation of DPO
can be checked in it line by line.

A world is three things: the reference's probabilities of the K responses, their rewards, and β.
"""

import torch

from lab.algorithms.losses import dpo_loss
from lab.errors import LabError

NEWTON_STEPS = 50  # 7 are taken where rewards differ by 3, 27 where they differ by 60


def _checked(reference: torch.Tensor, rewards: torch.Tensor, beta: float) -> None:
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
    """What RLHF maximises, arXiv 2305.18290, Eq. 3 (https://arxiv.org/abs/2305.18290): E_π[r] −
    β·KL(π‖π_ref).

    Shapes: three (K,) → scalar. Units: those of the reward. Raises `LabError` for an unfit
    reference or β. Anchor: the reference itself has KL 0, so its objective is its mean reward.
    """
    _checked(reference, rewards, beta)
    return (policy * rewards).sum() - beta * torch.special.xlogy(policy, policy / reference).sum()


def partition(reference: torch.Tensor, rewards: torch.Tensor, *, beta: float) -> torch.Tensor:
    """Z = Σ_y π_ref(y)·exp(r(y)/β), below Eq. 4 of arXiv 2305.18290.

    Shapes: (K,), (K,) → scalar. Raises `LabError` for an unfit reference or β.
    Anchor: equal rewards r give exp(r/β), whatever the reference.
    """
    _checked(reference, rewards, beta)
    return (reference * (rewards / beta).exp()).sum()


def optimal_policy(reference: torch.Tensor, rewards: torch.Tensor, *, beta: float) -> torch.Tensor:
    """The policy that maximises the objective, arXiv 2305.18290, Eq. 4: π*(y) =
    π_ref(y)·exp(r(y)/β) / Z.

    Shapes: (K,), (K,) → (K,), which sums to 1. Raises `LabError` for an unfit reference or β.
    Anchor: π_ref = ½, ½ with rewards log 3·β, 0 gives ¾, ¼.
    """
    _checked(reference, rewards, beta)
    return (reference.log() + rewards / beta).softmax(0)


def implied_rewards(policy: torch.Tensor, reference: torch.Tensor, *, beta: float) -> torch.Tensor:
    """The reward that a policy implies, arXiv 2305.18290, Eq. 5 without its last term:
    β·log(π(y)/π_ref(y)).

    For the optimal policy it is r(y) − β·log Z: the true reward but for a constant, which no
    preference sees. Shapes: (K,), (K,) → (K,). Units: those of the reward. Anchor: the reference
    implies 0 everywhere.
    """
    return beta * (policy / reference).log()


def preferences(rewards: torch.Tensor) -> torch.Tensor:
    """Bradley-Terry, arXiv 2305.18290, Eq. 1: how often row i is preferred to column j, σ(r_i −
    r_j).

    Shapes: (K,) → (K, K). A constant added to all rewards changes nothing.
    Anchor: a lead of log 3 is preferred ¾ of the time.
    """
    return torch.sigmoid(rewards[:, None] - rewards[None, :])


def dpo_optimum(reference: torch.Tensor, rewards: torch.Tensor, *, beta: float) -> torch.Tensor:
    """The policy at which the DPO loss is smallest when every pair is seen as often as
    Bradley-Terry says, found from the loss alone.

    The loss is `lab.algorithms.losses.dpo_loss`, its expectation a sum over all ordered pairs. It starts
    at the reference and takes Newton's steps, with slope and curvature from autograd: the loss is
    convex in the log-ratios. Runs in float64. Shapes: (K,), (K,) → (K,). Raises `LabError` for an
    unfit reference or β. Anchor: it is `optimal_policy`, though no reward enters but through the
    preferences.
    """
    _checked(reference, rewards, beta)
    reference, rewards = reference.double(), rewards.double()
    weights, k = preferences(rewards).flatten(), len(rewards)
    chosen, rejected = (
        index.flatten() for index in torch.meshgrid(torch.arange(k), torch.arange(k), indexing="ij")
    )
    frozen, last = reference.log(), reference.new_zeros(1)

    def loss(ratios: torch.Tensor) -> torch.Tensor:
        logps = (frozen + torch.cat([ratios, last])).log_softmax(0)
        losses, _ = dpo_loss(
            logps[chosen], logps[rejected], frozen[chosen], frozen[rejected], beta=beta
        )
        return (weights * losses).sum()

    ratios = reference.new_zeros(
        k - 1
    )  # of the first K − 1 responses, less that of the last: pairs see only differences
    for _ in range(NEWTON_STEPS):
        ratios.requires_grad_(True)
        (slopes,) = torch.autograd.grad(loss(ratios), ratios, create_graph=True)
        curvature = torch.stack(
            [torch.autograd.grad(slope, ratios, retain_graph=True)[0] for slope in slopes]
        )
        step = torch.linalg.solve(curvature, slopes.detach())
        ratios = ratios.detach() - step
        if step.abs().max() < 1e-10:
            break
    return (frozen + torch.cat([ratios, last])).softmax(0)
