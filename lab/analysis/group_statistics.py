"""What a group of G completions says about each of them, how sure it is of that, and what each
token gets of it.
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
"""Rewards of ours that round to those the article prints, 6.0 5.7 5.7 5.6 5.5 4.8 4.7 3.9, and
whose advantages are those that it prints.
"""

ARTICLE_ADVANTAGES = (1.19, 0.66, 0.64, 0.61, 0.36, -0.67, -0.74, -2.06)


def shuffled_indices(size: int, seed: int) -> list[int]:
    """The places 0 to `size` − 1 in an order that depends on the arguments alone: its first G are a
    group, the first 2G a larger one around it.
    """
    return random.Random(f"group/{seed}").sample(range(size), size)


def mean_and_std(rewards: Sequence[float], population: bool = False) -> tuple[float, float]:
    """Mean and standard deviation of one group's rewards, the unbiased one (divided by G − 1) or
    the population's (by G).

    Anchor: 1, 0, 0, 0 have mean 0.25, std 0.5, population std 0.433013.
    """
    group = torch.tensor(rewards, dtype=torch.float64)
    return group.mean().item(), group.std(correction=0 if population else 1).item()


def advantages_by_variant(
    rewards: Sequence[float], variant: str, others: Sequence[float] = ()
) -> list[float]:
    """The advantages of one group by `lab.algorithms.advantages`: "group", "none" and "batch" are
    its scales, "population" divides by the population std.

    `others` are the rewards of the other groups of the batch, whole groups of the same size; only
    "batch" looks at them. Anchor: 1, 0, 0, 0 give the first one 1.4997 ("group", for 0.0001 is
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
    """How far a group's advantages lie from those that the whole pool of a prompt gives, root mean
    square over `draws` groups.

    A group is drawn from the pool with replacement, so that the pool is its population: the truth
    is (r − mean) / std of all of it. NaN for a pool of equal rewards, which has no truth to miss.
    """
    pool = torch.tensor(rewards, dtype=torch.float64)
    spread = pool.std(correction=0)
    if not spread > 0:
        return float("nan")
    picked = torch.randint(
        len(pool), (draws * group_size,), generator=torch.Generator().manual_seed(seed)
    )
    found = group_advantages(pool[picked], group_size, scale="group")
    return (found - ((pool - pool.mean()) / spread)[picked]).square().mean().sqrt().item()


def dead_group_share(pools: Sequence[Sequence[float]], group_size: int) -> float:
    """Share of dead groups when every prompt's pool is cut into groups as it was sampled."""
    cut = [
        torch.tensor(pool[: len(pool) - len(pool) % group_size], dtype=torch.float64)
        for pool in pools
    ]
    return torch.cat([dead_groups(pool, group_size) for pool in cut]).double().mean().item()


def expected_dead_share(pass_rates: Sequence[float], group_size: int) -> float:
    """p^G + (1 − p)^G, the mean over prompts of which each has a pass rate of its own."""
    return sum(dead_group_probability(p, group_size) for p in pass_rates) / len(pass_rates)


def token_credit(
    advantages: Sequence[float], lengths: Sequence[int], reduction: str, max_length: int
) -> list[float]:
    """By how much the loss falls per nat that one token of each completion gains, at ρ = 1 and
    without a KL term.

    It is minus the gradient of the reduced GRPO loss for that token's log-probability, the same for
    every token of a completion. Anchor: A = 1 and −1 with 2 and 8 tokens: `sequence_mean` ½/2 =
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
    reductions[reduction](losses, mask).backward()
    return (-logps.grad[:, 0]).tolist()


@one_thread()
def clip_curves(
    epsilon: float, epsilon_high: float, ratios: Sequence[float]
) -> dict[str, dict[str, list[float]]]:
    """The GRPO loss of a token with advantage 1 and −1 over its ratio, and minus its slope: what
    still pulls at log π there.
    """
    found = {}
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
        losses.sum().backward()
        found[name] = {
            "loss": losses[:, 0].tolist(),
            "pull": (-logps.grad[:, 0]).tolist(),
            "clipped": metrics["clip_ratio/region_mean"][:, 0].tolist(),
        }
    return found
