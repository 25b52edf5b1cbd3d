"""The derivation of DPO in numbers: every step, computed for a bandit with five responses."""

from dataclasses import dataclass

import torch

from lab.analysis.bandit import (
    dpo_optimum,
    implied_rewards,
    objective,
    optimal_policy,
    partition,
    preferences,
)
from lab.distributed.cpu_threads import one_thread

RESPONSES = (
    "right, with its steps",
    "right, at once",
    "right, but rambling",
    "wrong, with its steps",
    "wrong, at once",
)
REFERENCE_POLICY = (0.10, 0.25, 0.05, 0.15, 0.45)
REWARDS = (2.0, 1.0, 0.5, -0.5, -1.0)


@dataclass(frozen=True)
class Derivation:
    """The results of all steps at one β. Lists follow `RESPONSES`; `errors` holds the numerical error
    of each identity.
    """

    beta: float
    optimal: list[float]
    best_objective: float
    reference_objective: float
    log_partition: float
    implied: list[float]
    preferred: float
    preferred_by_policy: float
    dpo: list[float]
    kl: float
    errors: dict[str, float]


@one_thread()
def derive(beta: float) -> Derivation:
    """Return every step of the derivation at `beta`, computed in float64."""
    reference, rewards = (
        torch.tensor(REFERENCE_POLICY, dtype=torch.float64),
        torch.tensor(REWARDS, dtype=torch.float64),
    )
    policy = optimal_policy(reference, rewards, beta=beta)
    log_z = partition(reference, rewards, beta=beta).log()
    implied = implied_rewards(policy, reference, beta=beta)
    optimum = dpo_optimum(reference, rewards, beta=beta)
    best = objective(policy, reference, rewards, beta=beta)
    true, by_policy = preferences(rewards), preferences(implied)
    return Derivation(
        beta=beta,
        optimal=policy.tolist(),
        best_objective=best.item(),
        reference_objective=objective(reference, reference, rewards, beta=beta).item(),
        log_partition=log_z.item(),
        implied=implied.tolist(),
        preferred=true[0, 4].item(),
        preferred_by_policy=by_policy[0, 4].item(),
        dpo=optimum.tolist(),
        kl=torch.special.xlogy(policy, policy / reference).sum().item(),
        errors={
            "objective": abs(best - beta * log_z).item(),
            "reward": (rewards - implied - beta * log_z).abs().max().item(),
            "preference": (true - by_policy).abs().max().item(),
            "dpo": (optimum - policy).abs().max().item(),
        },
    )
