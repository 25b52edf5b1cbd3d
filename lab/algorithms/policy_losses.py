"""Losses of the methods that sample: GRPO, PPO and the critic's value loss, per completion token.

Each is a pure function that returns unreduced losses (B, T) and detached metrics (B, T). Losses
are 0 and metrics NaN outside the completion mask, whatever the inputs hold there.
"""

import torch

from lab.algorithms.kl import KL_ESTIMATORS, kl_estimate
from lab.algorithms.losses import LossMetrics
from lab.algorithms.shapes import check_same_shape
from lab.errors import LabError, unknown

KL_TERMS = (*KL_ESTIMATORS, "k3_corrected")
SAMPLING_MODES = ("sequence_mask", "sequence_truncate", "token_mask", "token_truncate")


def _clipped_surrogate(
    token_logps: torch.Tensor,
    old_token_logps: torch.Tensor,
    advantages: torch.Tensor,
    outside: torch.Tensor,
    *,
    epsilon: float,
    epsilon_high: float,
) -> tuple[torch.Tensor, LossMetrics]:
    """Return −min(ρ·A, clip(ρ, 1 − ε, 1 + ε_high)·A) for each token, with the ratio ρ and whether the
    clip removed its gradient. `outside` is True where a token does not count; ρ is 1 there.
    """
    ratio = (token_logps - old_token_logps).masked_fill(outside, 0.0).exp()
    losses = -torch.minimum(
        ratio * advantages, ratio.clamp(1 - epsilon, 1 + epsilon_high) * advantages
    )
    clipped = ((ratio < 1 - epsilon) & (advantages < 0)) | (
        (ratio > 1 + epsilon_high) & (advantages > 0)
    )
    return losses, {"ratio": ratio, "clip_ratio/region_mean": clipped.to(ratio.dtype)}


def _nan_outside(metrics: LossMetrics, outside: torch.Tensor) -> LossMetrics:
    """Return detached metrics with NaN for tokens outside the mask, so that a nan-mean skips them."""
    return {
        name: value.detach().masked_fill(outside, float("nan")) for name, value in metrics.items()
    }


def grpo_loss(
    token_logps: torch.Tensor,
    old_token_logps: torch.Tensor,
    reference_token_logps: torch.Tensor | None,
    advantages: torch.Tensor,
    completion_mask: torch.Tensor,
    *,
    beta: float,
    epsilon: float,
    epsilon_high: float,
    kl_estimator: str,
    sampling_weights: torch.Tensor | None = None,
) -> tuple[torch.Tensor, LossMetrics]:
    """Return the loss of Group Relative Policy Optimization for each token (arXiv 2402.03300, Eq. 3,
    https://arxiv.org/abs/2402.03300).

    loss_t = −min(ρ_t·A, clip(ρ_t, 1 − ε, 1 + ε_high)·A) + β·kl_t;  ρ_t = exp(log π_t − log π_old,t)

    The paper has ε_high = ε; DAPO raises it (arXiv 2503.14476, Eq. 10). `kl_estimator` is k1, k2,
    k3 (the paper's, Eq. 4) or k3_corrected, which is ρ·k3: its gradient is that of KL(π‖π_ref),
    where k3 gives KL(π_ref‖π). With one update per rollout ρ is exactly 1: each token costs −A,
    which `sequence_mean` averages to 0 over a group, while the gradient −A·∇log π does not vanish.
    `sampling_weights` (B, T), those of `importance_weights`, multiply the first term.
    Shapes: token tensors and completion_mask (B, T), advantages (B,) → (B, T). Units: those of A.
    Raises `LabError` when shapes differ, the estimator is unknown, or β is not 0 and there are no
    reference log-probabilities. Anchor: ρ = 1.5, A = 1, ε_high = 0.2 costs −1.2; ρ = 0.5, A = −1,
    ε = 0.2 costs 0.8; ρ = 1.5, A = −1 costs 1.5, since nothing clips it.
    """
    check_same_shape(
        2, token_logps=token_logps, old_token_logps=old_token_logps, completion_mask=completion_mask
    )
    check_same_shape(1, advantages=advantages, completions=token_logps[:, 0])
    outside = ~completion_mask.bool()
    losses, metrics = _clipped_surrogate(
        token_logps,
        old_token_logps,
        advantages[:, None],
        outside,
        epsilon=epsilon,
        epsilon_high=epsilon_high,
    )  # Eq. 3
    if sampling_weights is not None:
        losses = losses * sampling_weights
    kl = _kl_term(token_logps, reference_token_logps, metrics["ratio"], outside, beta, kl_estimator)
    if kl is not None:
        losses = losses + beta * kl  # Eq. 3
    return losses.masked_fill(outside, 0.0), _nan_outside(metrics, outside)


def _kl_term(
    token_logps: torch.Tensor,
    reference_token_logps: torch.Tensor | None,
    ratio: torch.Tensor,
    outside: torch.Tensor,
    beta: float,
    kl_estimator: str,
) -> torch.Tensor | None:
    """Return GRPO's KL estimate for each token (arXiv 2402.03300, Eq. 4), or None if β is 0."""
    if kl_estimator not in KL_TERMS:
        raise unknown("kl_estimator", kl_estimator, list(KL_TERMS))
    if reference_token_logps is None:
        if beta:
            raise LabError(
                f"beta is {beta}, so the KL term takes reference_token_logps (B, T), but there are"
                " none. Pass them, or set beta to 0."
            )
        return None
    check_same_shape(2, token_logps=token_logps, reference_token_logps=reference_token_logps)
    if not beta:
        return None
    kl = kl_estimate(
        token_logps.masked_fill(outside, 0.0),
        reference_token_logps.masked_fill(outside, 0.0),
        kl_estimator.removesuffix("_corrected"),
    )  # Eq. 4
    return ratio * kl if kl_estimator == "k3_corrected" else kl


def importance_weights(
    old_token_logps: torch.Tensor,
    sampling_token_logps: torch.Tensor,
    completion_mask: torch.Tensor,
    *,
    mode: str,
    clip_max: float,
) -> torch.Tensor:
    """Return the importance weight of each token that another engine sampled, without gradient (On the
    Rollout-Training Mismatch in Modern RL Systems, https://openreview.net/forum?id=8MHqvb4lK9; the modes
    are those of TRL's vllm_importance_sampling_mode).

    w_t = exp(log π_old,t − log π_sampler,t);  of a sequence: w = exp(Σ_t (log π_old,t − log π_sampler,t))

    The engine rounds otherwise than the policy that trains, so its samples come from another
    distribution. `mode` is token_truncate, token_mask, sequence_truncate or sequence_mask: a weight
    above `clip_max` becomes `clip_max` (truncate) or 0 (mask). A log-probability of NaN is missing, and
    counts as the policy's. Shapes: three (B, T) → (B, T). Units: none. Raises `LabError` when shapes
    differ or the mode is unknown. Anchor: differences of 0.5 and 1 nats with clip_max 3 are weights
    1.6487 and 2.7183 of tokens; their sequence has e^1.5 = 4.4817: 3 if truncated, 0 if masked.
    """
    if mode not in SAMPLING_MODES:
        raise unknown("importance_sampling_mode", mode, list(SAMPLING_MODES))
    check_same_shape(
        2,
        old_token_logps=old_token_logps,
        sampling_token_logps=sampling_token_logps,
        completion_mask=completion_mask,
    )
    level, limit = mode.split("_")
    difference = (old_token_logps - sampling_token_logps).detach().nan_to_num(nan=0.0)
    difference = difference.masked_fill(~completion_mask.bool(), 0.0)
    if level == "sequence":
        difference = difference.sum(1, keepdim=True).expand_as(difference)
    weights = difference.exp()
    if limit == "truncate":
        return weights.clamp(max=clip_max)
    return weights.masked_fill(weights > clip_max, 0.0)


def ppo_loss(
    token_logps: torch.Tensor,
    old_token_logps: torch.Tensor,
    advantages: torch.Tensor,
    completion_mask: torch.Tensor,
    *,
    epsilon: float,
) -> tuple[torch.Tensor, LossMetrics]:
    """Return the loss of Proximal Policy Optimization for each token (arXiv 1707.06347, Eq. 7,
    https://arxiv.org/abs/1707.06347).

    loss_t = −min(ρ_t·A_t, clip(ρ_t, 1 − ε, 1 + ε)·A_t);  ρ_t = exp(log π_t − log π_old,t)

    Each token has its own advantage; GRPO gives one to the whole completion. At the first update on
    a rollout ρ is exactly 1, so with whitened advantages the mean over tokens is 0, while the
    gradient is not. Shapes: four (B, T) → (B, T). Units: those of A. Raises `LabError` when shapes
    differ. Anchor: ρ = 1.5, A = 1, ε = 0.2 costs −1.2; ρ = 0.5, A = −1 costs 0.8; ρ = 1.5, A = −1
    costs 1.5, since nothing clips it.
    """
    check_same_shape(
        2,
        token_logps=token_logps,
        old_token_logps=old_token_logps,
        advantages=advantages,
        completion_mask=completion_mask,
    )
    outside = ~completion_mask.bool()
    losses, metrics = _clipped_surrogate(
        token_logps,
        old_token_logps,
        advantages.masked_fill(outside, 0.0),
        outside,
        epsilon=epsilon,
        epsilon_high=epsilon,
    )  # Eq. 7
    return losses, _nan_outside(metrics | {"loss/policy": losses}, outside)


def value_loss(
    values: torch.Tensor,
    old_values: torch.Tensor,
    returns: torch.Tensor,
    completion_mask: torch.Tensor,
    *,
    epsilon_value: float,
) -> tuple[torch.Tensor, LossMetrics]:
    """Return the critic's squared error for each token (arXiv 1707.06347, Eq. 9), clipped as in arXiv
    2005.12729, §3 (https://arxiv.org/abs/2005.12729).

    loss_t = ½·max((V_t − R_t)², (V_old,t + clip(V_t − V_old,t, −ε_V, ε_V) − R_t)²)

    A value that has moved by more than ε_V towards its target since the rollout has no gradient.
    Shapes: four (B, T) → (B, T). Units: those of the reward, squared. Raises `LabError` when
    shapes differ. Anchor: V_old = 0, R = 1, ε_V = 0.2: V = 0.1 costs 0.405, V = 0.5 costs
    ½·0.8² = 0.32 without a gradient, V = −0.5 costs 1.125.
    """
    check_same_shape(
        2, values=values, old_values=old_values, returns=returns, completion_mask=completion_mask
    )
    outside = ~completion_mask.bool()
    error = (values - returns).masked_fill(outside, 0.0)
    clipped_error = (
        old_values + (values - old_values).clamp(-epsilon_value, epsilon_value) - returns
    ).masked_fill(outside, 0.0)
    losses = 0.5 * torch.maximum(error**2, clipped_error**2)  # Eq. 9
    return losses, _nan_outside({"loss/value": losses}, outside)
