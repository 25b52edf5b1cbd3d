"""What a completion was worth, compared with what was expected of it."""

import torch

from lab.errors import LabError, unknown

SCALES = ("group", "batch", "none")


def _groups(rewards: torch.Tensor, group_size: int) -> torch.Tensor:
    """(N,) → (N / G, G): the G completions of a prompt stand next to each other."""
    if rewards.ndim != 1 or not rewards.is_floating_point():
        raise LabError(f"rewards are {tuple(rewards.shape)} of {rewards.dtype}, but take (N,) floating-point numbers.")
    if group_size < 2 or not len(rewards) or len(rewards) % group_size:
        raise LabError(f"group_size is {group_size} for {len(rewards)} rewards, but takes a divisor of their number that is at least 2: "
                       "rewards hold whole groups, and one completion alone has nothing to be compared with.")
    return rewards.view(-1, group_size)


def group_advantages(rewards: torch.Tensor, group_size: int, *, scale: str, epsilon_std: float = 1e-4) -> torch.Tensor:
    """GRPO's advantage, arXiv 2402.03300, §4.1.2 (https://arxiv.org/abs/2402.03300): better or worse than the prompt's other answers.

    A_i = (r_i − mean(r)) / (std(r) + ε_std)

    The mean is always the group's. `scale` chooses the std, always the unbiased one as in TRL: "group" the group's own, "batch"
    that of all rewards, "none" divides by nothing (Dr. GRPO, arXiv 2503.20783). A group of equal rewards has advantage
    exactly 0, whatever the scale.
    Shapes: rewards (N,), the G of a prompt next to each other → (N,). Units: standard deviations; for "none" those of the reward.
    Raises `LabError` when N is not a multiple of G, G < 2 or the scale is unknown.
    Anchor: rewards 1, 0, 0, 0 with G = 4: mean 1/4, std 1/2, so (with ε_std = 0) the right one gets 1.5, the others −0.5. At G = 2 any
    two different rewards get ±0.707107.
    """
    if scale not in SCALES:
        raise unknown("scale", scale, list(SCALES))
    groups = _groups(rewards, group_size)
    advantages = groups - groups.mean(1, keepdim=True)
    if scale == "group":
        advantages = advantages / (groups.std(1, keepdim=True) + epsilon_std)
    if scale == "batch":
        advantages = advantages / (rewards.std() + epsilon_std)
    return advantages.masked_fill(dead_groups(rewards, group_size)[:, None], 0.0).flatten()


def dead_groups(rewards: torch.Tensor, group_size: int) -> torch.Tensor:
    """Which groups have all rewards equal, and so no gradient; decided by the group's own rewards, whatever the scale.

    dead = (r_1 = r_2 = … = r_G)

    Shapes: (N,) → (N / G,) bool. Raises `LabError` as `group_advantages` does.
    Anchor: rewards 1, 1, 0, 1 with G = 2: the first group is dead, the second is not.
    """
    groups = _groups(rewards, group_size)
    return (groups == groups[:, :1]).all(1)


def dead_group_probability(pass_rate: float, group_size: int) -> float:
    """Chance that the G answers to a prompt are all right or all wrong, when each is right with probability p on its own.

    P(dead) = p^G + (1 − p)^G

    Raises `LabError` when p is not in [0, 1] or G < 2.
    Anchor: p = 0.5 and G = 4 give 2/16 = 0.125.
    """
    if not 0 <= pass_rate <= 1 or group_size < 2:
        raise LabError(f"pass_rate is {pass_rate} and group_size {group_size}, but they take a number from 0 to 1 and one of at least 2.")
    return pass_rate**group_size + (1 - pass_rate) ** group_size


def leave_one_out(rewards: torch.Tensor, group_size: int) -> torch.Tensor:
    """RLOO's advantage, arXiv 2402.14740, §2.3 (https://arxiv.org/abs/2402.14740): the baseline leaves the completion itself out.

    A_i = r_i − mean(r_j, j ≠ i), which is G / (G − 1)·(r_i − mean(r))

    Shapes: (N,) → (N,). Units: those of the reward. Raises `LabError` as `group_advantages` does.
    Anchor: rewards 1, 0, 0, 0 with G = 4 give 1, −1/3, −1/3, −1/3.
    """
    return group_advantages(rewards, group_size, scale="none") * group_size / (group_size - 1)
