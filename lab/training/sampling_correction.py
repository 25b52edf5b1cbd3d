"""Corrects GRPO's losses for an engine that sampled with other probabilities than the policy's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from lab.algorithms.policy_losses import importance_weights
from lab.training.rollout import GRPORollout

if TYPE_CHECKING:
    from lab.training.method import MetricTensors
    from lab.training.methods.grpo import GRPOConfig


def sampling_correction(
    config: GRPOConfig, rollout: GRPORollout, rows: torch.Tensor, mask: torch.Tensor
) -> tuple[torch.Tensor | None, MetricTensors]:
    """Return the weights (B, T) of the losses of some `rows` of a rollout, None where nothing is
    corrected, and metrics (B, T), NaN outside `mask` (B, T); none for the lab's own sampler.
    """
    if rollout.sampling_logps is None:
        return None, {}
    assert rollout.old_logps is not None
    old, sampled = rollout.old_logps[rows], rollout.sampling_logps[rows]
    metrics = {"sampling/sampling_logp_difference/mean": (old - sampled).abs()}
    weights = None
    if config.importance_sampling_mode != "none":
        weights = importance_weights(
            old,
            sampled,
            mask,
            mode=config.importance_sampling_mode,
            clip_max=config.importance_sampling_clip_max,
        )
        metrics["sampling/importance_sampling_ratio/mean"] = weights
    return weights, {
        name: value.masked_fill(~mask, float("nan")) for name, value in metrics.items()
    }
