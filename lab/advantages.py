"""What a completion was worth, compared with what was expected."""

import torch

from lab.errors import LabError


def _groups(rewards: torch.Tensor, group_size: int) -> torch.Tensor:
    if rewards.ndim != 1 or group_size < 2 or len(rewards) % group_size:
        raise LabError(f"rewards are {tuple(rewards.shape)} and group_size is {group_size}, but take (N,) and a divisor of N that is at least 2.")
    return rewards.view(-1, group_size)


def group_advantages(rewards: torch.Tensor, group_size: int, *, scale: str, epsilon_std: float = 1e-4) -> torch.Tensor:
    """GRPO's advantage, arXiv 2402.03300, §4.1.2: A_i = (r_i − mean) / (std + ε_std) within the G completions of a prompt.

    `scale`: "group" divides by the group's unbiased std, as TRL does; "batch" by the std of all rewards; "none" by nothing,
    as in Dr. GRPO (arXiv 2503.20783). A group of equal rewards has advantage 0.

    Shapes: rewards (N,), the G of a prompt next to each other → (N,). Units: standard deviations, or reward for "none".
    Raises `LabError` when N is not a multiple of G, G < 2 or the scale is unknown.
    Anchor: rewards 1, 0, 0, 0 in a group of 4: mean 0.25, unbiased std 0.5, so the right one gets 1.5 (1.4997 with ε_std).
    """
    groups = _groups(rewards, group_size)
    centred = groups - groups.mean(1, keepdim=True)
    if scale == "group":
        centred = centred / (groups.std(1, keepdim=True) + epsilon_std)
    elif scale == "batch":
        centred = centred / (rewards.std() + epsilon_std)
    elif scale != "none":
        raise LabError(f"Unknown scale '{scale}'. Accepted: group, batch, none.")
    return centred.masked_fill(dead_groups(rewards, group_size)[:, None], 0.0).flatten()


def dead_groups(rewards: torch.Tensor, group_size: int) -> torch.Tensor:
    """Which groups have all rewards equal, and so no gradient: (N,) → (N / G,) bool. Counted by the group's own rewards.

    Anchor: rewards 1, 1, 0, 1 in groups of 2: the first is dead, the second is not.
    """
    groups = _groups(rewards, group_size)
    return (groups == groups[:, :1]).all(1)


def dead_group_probability(pass_rate: float, group_size: int) -> float:
    """Chance that G independent 0/1 rewards are all equal: p^G + (1−p)^G. At p = 0.5 and G = 4 it is 0.125."""
    return pass_rate**group_size + (1 - pass_rate) ** group_size


def leave_one_out(rewards: torch.Tensor, group_size: int) -> torch.Tensor:
    """RLOO's advantage, arXiv 2402.14740: r_i − mean of the other G − 1 rewards, which is G / (G−1)·(r_i − mean).

    Shapes: (N,) → (N,). Units: reward. Anchor: rewards 1, 0, 0, 0 give 1, −1/3, −1/3, −1/3.
    """
    groups = _groups(rewards, group_size)
    return (groups - (groups.sum(1, keepdim=True) - groups) / (group_size - 1)).flatten()
