"""Statistics of a group of G completions: advantages, their error, dead groups, and the credit of
each token.
"""

import random
from collections.abc import Sequence

import torch

from lab.algorithms.advantages import dead_group_probability, dead_groups, group_advantages
from lab.algorithms.policy_losses import grpo_loss
from lab.algorithms.reductions import fixed_length, sequence_mean, token_mean
from lab.distributed.cpu_threads import one_thread
from lab.errors import unknown

ADVANTAGE_VARIANTS = ("group", "population", "none", "batch")

ARTICLE_REWARDS = (6.015, 5.666, 5.652, 5.633, 5.468, 4.788, 4.742, 3.870)
"""Rewards that round to those printed in the article, 6.0 5.7 5.7 5.6 5.5 4.8 4.7 3.9, and that
give the advantages printed there.
"""

ARTICLE_ADVANTAGES = (1.19, 0.66, 0.64, 0.61, 0.36, -0.67, -0.74, -2.06)


def shuffled_indices(size: int, seed: int) -> list[int]:
    """Return the indices 0 to `size` − 1 in an order that depends on the arguments alone. The first G
    are a group, the first 2G a larger group that contains it.
    """
    return random.Random(f"group/{seed}").sample(range(size), size)


def mean_and_std(rewards: Sequence[float], population: bool = False) -> tuple[float, float]:
    """Return mean and standard deviation of the rewards of one group: the unbiased one (divided by
    G − 1) or that of the population (divided by G).

    Anchor: 1, 0, 0, 0 have mean 0.25, std 0.5, population std 0.433013.
    """
    group = torch.tensor(rewards, dtype=torch.float64)
    return group.mean().item(), group.std(correction=0 if population else 1).item()


def advantages_by_variant(
    rewards: Sequence[float], variant: str, others: Sequence[float] = ()
) -> list[float]:
    """Return the advantages of one group: the variants "group", "none" and "batch" are the scales of
    `lab.algorithms.advantages.group_advantages`, "population" divides by the population std.

    `others` are the rewards of the other groups of the batch, whole groups of the same size; only
    "batch" uses them. Anchor: 1, 0, 0, 0 give the first one 1.4997 ("group": 0.0001 is
    added to the std), 1.7317 ("population"), 0.75 ("none").
    """
    if variant not in ADVANTAGE_VARIANTS:
        raise unknown("variant", variant, list(ADVANTAGE_VARIANTS))
    size, group = len(rewards), torch.tensor(rewards, dtype=torch.float64)
    if variant == "population":
        return (
            group_advantages(group, size, scale="none") / (group.std(correction=0) + 1e-4)
        ).tolist()
    if variant == "batch":
        group = torch.cat([group, torch.tensor(others, dtype=torch.float64)])
    return group_advantages(group, size, scale=variant)[:size].tolist()


def advantage_error(
    rewards: Sequence[float], group_size: int, *, draws: int = 2000, seed: int = 0
) -> float:
    """Return the root mean square error of the advantages of `draws` random groups, in std.

    A group is drawn with replacement from `rewards`, the pool of a prompt. The exact advantage is
    (r − mean) / std over the whole pool. Returns NaN for a pool of equal rewards, where it is not
    defined.
    """
    pool = torch.tensor(rewards, dtype=torch.float64)
    spread = pool.std(correction=0)
    if not spread > 0:
        return float("nan")
    indices = torch.randint(
        len(pool), (draws * group_size,), generator=torch.Generator().manual_seed(seed)
    )
    estimates = group_advantages(pool[indices], group_size, scale="group")
    return (estimates - ((pool - pool.mean()) / spread)[indices]).square().mean().sqrt().item()


def dead_group_share(pools: Sequence[Sequence[float]], group_size: int) -> float:
    """Return the share of dead groups when the pool of each prompt is split into consecutive groups."""
    whole_groups = [
        torch.tensor(pool[: len(pool) - len(pool) % group_size], dtype=torch.float64)
        for pool in pools
    ]
    return (
        torch.cat([dead_groups(pool, group_size) for pool in whole_groups]).double().mean().item()
    )


def expected_dead_share(pass_rates: Sequence[float], group_size: int) -> float:
    """Return the mean of p^G + (1 − p)^G over the pass rates p of the prompts."""
    return sum(dead_group_probability(p, group_size) for p in pass_rates) / len(pass_rates)


def token_credit(
    advantages: Sequence[float], lengths: Sequence[int], reduction: str, max_length: int
) -> list[float]:
    """Return how much the loss falls per nat that one token of each completion gains, at ρ = 1 and
    without a KL term.

    This is minus the gradient of the reduced GRPO loss with respect to the log-probability of the
    token; it is equal for all tokens of a completion. Anchor: A = 1 and −1 with 2 and 8 tokens: `sequence_mean` ½/2 =
    0.25 and −0.0625, `token_mean` ±0.1, `fixed_length` of 10 ±0.05.
    """
    reductions = {
        "sequence_mean": sequence_mean,
        "token_mean": token_mean,
        "fixed_length": lambda losses, mask: fixed_length(losses, mask, max_length),
    }
    if reduction not in reductions:
        raise unknown("reduction", reduction, list(reductions))
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    logps = torch.zeros(mask.shape, dtype=torch.float64, requires_grad=True)
    losses, _ = grpo_loss(
        logps,
        torch.zeros_like(logps),
        None,
        torch.tensor(advantages, dtype=torch.float64),
        mask,
        beta=0.0,
        epsilon=0.2,
        epsilon_high=0.2,
        kl_estimator="k3",
    )
    (gradient,) = torch.autograd.grad(reductions[reduction](losses, mask), logps)
    return (-gradient[:, 0]).tolist()


@one_thread()
def clip_curves(
    epsilon: float, epsilon_high: float, ratios: Sequence[float]
) -> dict[str, dict[str, list[float]]]:
    """Return the GRPO loss of a token with advantage 1 ("above") and −1 ("below") over its ratio, and
    its pull on log π, which is minus the slope.
    """
    curves = {}
    for name, advantage in (("above", 1.0), ("below", -1.0)):
        logps = torch.tensor(ratios, dtype=torch.float64).log()[:, None].requires_grad_()
        losses, metrics = grpo_loss(
            logps,
            torch.zeros_like(logps),
            None,
            torch.full((len(ratios),), advantage, dtype=torch.float64),
            torch.ones_like(logps, dtype=torch.bool),
            beta=0.0,
            epsilon=epsilon,
            epsilon_high=epsilon_high,
            kl_estimator="k3",
        )
        (gradient,) = torch.autograd.grad(losses.sum(), logps)
        curves[name] = {
            "loss": losses[:, 0].tolist(),
            "pull": (-gradient[:, 0]).tolist(),
            "clipped": metrics["clip_ratio/region_mean"][:, 0].tolist(),
        }
    return curves
