"""Rewards and advantages: how much better a completion, or one of its tokens, was than expected."""

import torch

from lab.algorithms.shapes import check_same_shape
from lab.errors import LabError, unknown

ADVANTAGE_SCALES = ("group", "batch", "none")


def _groups(rewards: torch.Tensor, group_size: int) -> torch.Tensor:
    """Return rewards (N,) as (N / G, G), one row per prompt."""
    if rewards.ndim != 1 or not rewards.is_floating_point():
        raise LabError(
            f"rewards are {tuple(rewards.shape)} of {rewards.dtype}, but take (N,) floating-point"
            " numbers."
        )
    if group_size < 2 or not len(rewards) or len(rewards) % group_size:
        raise LabError(
            f"group_size is {group_size} for {len(rewards)} rewards, but takes a divisor of their"
            " number that is at least 2: rewards hold whole groups, and one completion alone has"
            " nothing to be compared with."
        )
    return rewards.view(-1, group_size)


def group_advantages(
    rewards: torch.Tensor, group_size: int, *, scale: str, epsilon_std: float = 1e-4
) -> torch.Tensor:
    """Return GRPO's advantage of each completion over the mean of its group (arXiv 2402.03300, §4.1.2,
    https://arxiv.org/abs/2402.03300).

    A_i = (r_i − mean(r)) / (std(r) + ε_std)

    The paper divides by the std alone; ε_std = 1e-4, which keeps a tiny std from blowing up, is TRL's.
    The mean is always that of the group. `scale` chooses the std, which is unbiased as in TRL:
    "group" is that of the group, "batch" that of all rewards, and "none" does not divide (Dr. GRPO,
    arXiv 2503.20783). A group of equal rewards has advantage exactly 0 with every scale. NaN means
    that a reward is missing: it is excluded from mean and std, and its completion has advantage 0.
    Shapes: rewards (N,), the G completions of a prompt in consecutive entries → (N,). Units:
    standard deviations; for "none" those of the reward. Raises `LabError` when N is not a multiple
    of G, G < 2 or the scale is unknown.
    Anchor: rewards 1, 0, 0, 0 with G = 4: mean 1/4, std 1/2, so (with ε_std = 0) the advantages are
    1.5, −0.5, −0.5, −0.5. At G = 2 any two different rewards get ±0.707107.
    """
    if scale not in ADVANTAGE_SCALES:
        raise unknown("scale", scale, list(ADVANTAGE_SCALES))
    groups = _groups(rewards, group_size)
    advantages = groups - groups.nanmean(1, keepdim=True)
    if scale == "group":
        advantages = advantages / (_std(groups, 1) + epsilon_std)
    if scale == "batch":
        advantages = advantages / (_std(rewards, 0) + epsilon_std)
    return advantages.masked_fill(
        dead_groups(rewards, group_size)[:, None] | groups.isnan(), 0.0
    ).flatten()


def _std(rewards: torch.Tensor, dim: int) -> torch.Tensor:
    """Return the unbiased std along `dim` (kept) of the entries that are not NaN."""
    if not rewards.isnan().any():
        return rewards.std(dim, keepdim=True)
    deviations = rewards - rewards.nanmean(dim, keepdim=True)
    return (
        deviations.square().nansum(dim, keepdim=True)
        / ((~rewards.isnan()).sum(dim, keepdim=True) - 1)
    ).sqrt()


def impute_missing_rewards(rewards: torch.Tensor) -> torch.Tensor:
    """Replace NaN in rewards (N,) by the mean of the other rewards, or by 0 if all are NaN; for methods
    that need a reward for every completion.

    Anchor: 1, NaN, 0 give 1, 0.5, 0.
    """
    return torch.where(rewards.isnan(), rewards.nanmean().nan_to_num(0.0), rewards)


def dead_groups(rewards: torch.Tensor, group_size: int) -> torch.Tensor:
    """Return which groups have equal rewards throughout, and therefore no gradient.

    dead = (r_1 = r_2 = … = r_G)

    NaN (a missing reward) does not count; a group with fewer than two other rewards is dead.
    Shapes: (N,) → (N / G,) bool. Raises `LabError` as `group_advantages` does.
    Anchor: rewards 1, 1, 0, 1 with G = 2: the first group is dead, the second is not.
    """
    groups = _groups(rewards, group_size)
    return torch.where(groups.isnan(), torch.inf, groups).amin(1) >= torch.where(
        groups.isnan(), -torch.inf, groups
    ).amax(1)


def dead_group_probability(pass_rate: float, group_size: int) -> float:
    """Return the probability that the G answers to a prompt are all right or all wrong, when each is
    right with probability p independently of the others.

    P(dead) = p^G + (1 − p)^G

    Raises `LabError` when p is not in [0, 1] or G < 2.
    Anchor: p = 0.5 and G = 4 give 2/16 = 0.125.
    """
    if not 0 <= pass_rate <= 1 or group_size < 2:
        raise LabError(
            f"pass_rate is {pass_rate} and group_size {group_size}, but they take a number from 0"
            " to 1 and one of at least 2."
        )
    return pass_rate**group_size + (1 - pass_rate) ** group_size


def leave_one_out_advantages(rewards: torch.Tensor, group_size: int) -> torch.Tensor:
    """Return RLOO's advantage (arXiv 2402.14740, https://arxiv.org/abs/2402.14740): the baseline is the
    mean of the other completions of the prompt.

    A_i = r_i − mean(r_j, j ≠ i), which is G / (G − 1)·(r_i − mean(r))

    Shapes: (N,) → (N,). Units: those of the reward. Raises `LabError` as `group_advantages` does.
    Anchor: rewards 1, 0, 0, 0 with G = 4 give 1, −1/3, −1/3, −1/3.
    """
    return group_advantages(rewards, group_size, scale="none") * group_size / (group_size - 1)


def kl_shaped_rewards(
    scores: torch.Tensor,
    token_logps: torch.Tensor,
    reference_token_logps: torch.Tensor,
    completion_mask: torch.Tensor,
    *,
    beta: float,
) -> torch.Tensor:
    """Return RLHF's reward of each token: arXiv 2203.02155, Eq. 2, spread over tokens as in arXiv
    1909.08593 (https://arxiv.org/abs/1909.08593).

    r_t = −β·(log π_t − log π_ref,t) + [t is the last token of the completion]·score

    Shapes: scores (B,), the rest (B, T) → (B, T), 0 outside the mask. Units:
    those of the score; β is score per nat. Raises `LabError` when shapes differ. Anchor: log π =
    −1, −1 and log π_ref = −2, −3 with β = 0.1 and score 5 give −0.1 and −0.2 + 5 = 4.8.
    """
    check_same_shape(
        2,
        token_logps=token_logps,
        reference_token_logps=reference_token_logps,
        completion_mask=completion_mask,
    )
    if scores.shape != token_logps.shape[:1]:
        raise LabError(
            f"scores are {tuple(scores.shape)}, but take one for each of the {len(token_logps)}"
            " completions."
        )
    inside = completion_mask.bool()
    last = inside & (inside.flip(1).cumsum(1).flip(1) == 1)
    penalty = (-beta * (token_logps - reference_token_logps)).masked_fill(~inside, 0.0)
    return penalty + last * scores[:, None]


def gae(
    rewards: torch.Tensor,
    values: torch.Tensor,
    completion_mask: torch.Tensor,
    *,
    gamma: float,
    lam: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return generalized advantage estimates and the critic's targets (arXiv 1506.02438, Eq. 16,
    https://arxiv.org/abs/1506.02438).

    A_t = Σ_k (γλ)^k·δ_{t+k},  δ_t = r_t + γ·V_{t+1} − V_t;  returns_t = A_t + V_t

    V_t is the value expected before token t is known; after the last token of a completion it is 0.
    λ = 1 gives the sum of the future rewards minus V_t, λ = 0 gives δ_t. Shapes: three (B, T) → (B, T)
    twice, 0 outside the mask, whose tokens follow each other without a gap. Units: those of the
    reward. Raises `LabError` when shapes differ. Anchor: rewards 0, 1 and values 0.5, 0.8 with γ =
    1, λ = 0.5: δ = 0.3, 0.2, so A = 0.4, 0.2 and returns = 0.9, 1.0.
    """
    check_same_shape(2, rewards=rewards, values=values, completion_mask=completion_mask)
    inside = completion_mask.bool()
    rewards, values = rewards.masked_fill(~inside, 0.0), values.masked_fill(~inside, 0.0)
    advantages = torch.zeros_like(values)
    future = torch.zeros_like(values[:, 0])
    next_value = torch.zeros_like(future)
    for t in reversed(range(values.shape[1])):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        future = (delta + gamma * lam * future).masked_fill(
            ~inside[:, t], 0.0
        )  # Eq. 16, from the end
        advantages[:, t], next_value = future, values[:, t]
    return advantages, advantages + values


def whiten(
    advantages: torch.Tensor, completion_mask: torch.Tensor, *, epsilon_std: float = 1e-4
) -> torch.Tensor:
    """Return advantages with mean 0 and standard deviation 1 over the tokens in the mask; the mean is
    not added back.

    A' = (A − mean(A)) / (std(A) + ε_std), std unbiased

    Shapes: (B, T) twice → (B, T), 0 outside the mask. Units: standard deviations. Raises `LabError`
    when shapes differ or the mask has fewer than 2 tokens. Anchor: with ε_std = 0, advantages 1, 2,
    3 in the mask give −1, 0, 1.
    """
    check_same_shape(2, advantages=advantages, completion_mask=completion_mask)
    inside = completion_mask.bool()
    tokens = advantages[inside]
    if len(tokens) < 2:
        raise LabError(f"completion_mask has {len(tokens)} tokens, but whitening takes at least 2.")
    return ((advantages - tokens.mean()) / (tokens.std() + epsilon_std)).masked_fill(~inside, 0.0)


def explained_variance(
    values: torch.Tensor, returns: torch.Tensor, completion_mask: torch.Tensor
) -> torch.Tensor:
    """Return the share of the variance of the returns that the critic explains: 1 is all of it, 0 is
    what a constant value explains, below 0 is worse than a constant.

    1 − Var(R − V) / Var(R) over the tokens in the mask

    Shapes: three (B, T) → scalar. Units: share. NaN where all returns are equal. Raises `LabError`
    when shapes differ. Anchor: returns 0, 2 and values 0, 1: Var(R − V) = 1/4, Var(R) = 1, so 0.75.
    """
    check_same_shape(2, values=values, returns=returns, completion_mask=completion_mask)
    inside = completion_mask.bool()
    residuals, variance = (returns - values)[inside], returns[inside].var(correction=0)
    return torch.where(variance > 0, 1 - residuals.var(correction=0) / variance, float("nan"))


def adapt_kl_factor(factor: float, kl: float, kl_target: float, *, gain: float = 0.1) -> float:
    """Return the next factor of β, which steers the KL to its target (arXiv 1909.08593, §2.2,
    https://arxiv.org/abs/1909.08593).

    factor·(1 + K·clip((KL − target) / target, −0.2, 0.2)),  K = 0.1

    Units: KL and target in nats per completion. Raises `LabError` when the target is not positive.
    Anchor: KL 9 at target 6 is 50 % too high, clipped to 20 %: 1 becomes 1.02; KL 5.4 is 10 % too
    low: 0.99.
    """
    if not kl_target > 0:
        raise LabError(f"kl_target is {kl_target}, but takes a number of nats above 0.")
    return factor * (1 + gain * min(0.2, max(-0.2, (kl - kl_target) / kl_target)))
