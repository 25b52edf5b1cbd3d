"""GRPO's losses of the tokens with the learner's own surrogate or KL estimate."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from lab.config.hooks import KL_ESTIMATE, SURROGATE
from lab.errors import LabError
from lab.training.own_functions import own_tensor
from lab.training.state import TrainState

if TYPE_CHECKING:
    from lab.training.methods.grpo import GRPOConfig

Inputs = tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor, torch.Tensor]


def own_token_losses(
    run: TrainState,
    config: GRPOConfig,
    inputs: Inputs,
    surrogate: torch.Tensor,
    kl_term: torch.Tensor,
    weights: torch.Tensor | None,
) -> torch.Tensor:
    """Return the losses (B, T), 0 outside the completions: the run's own surrogate plus β times its own
    KL estimate. Where it has only one of them, the other is the lab's `surrogate` or `kl_term` (B, T).

    `inputs` are those of `lab.algorithms.policy_losses.grpo_loss`: the log-probabilities of policy, old
    policy and reference, the advantages (B,) and the mask; `weights` (B, T) are those of another
    engine's samples. Raises `LabError` for a KL estimate of the run's own while β is 0, since nothing
    would call it.
    """
    logps, old, reference, advantages, mask = inputs
    if SURROGATE.name in run.own:
        worth = advantages[:, None].expand_as(logps)
        surrogate = own_tensor(run, SURROGATE, (logps, old, worth, config.epsilon), surrogate)
        surrogate = surrogate if weights is None else surrogate * weights
    if KL_ESTIMATE.name in run.own:
        if not config.beta:
            raise LabError(
                "kl_estimate is a function of your own, but beta is 0, so nothing calls it. Give a"
                " beta above 0."
            )
        estimate = own_tensor(run, KL_ESTIMATE, (logps, reference, config.kl_estimator), surrogate)
        kl_term = config.beta * estimate
    return (surrogate + kl_term).masked_fill(~mask, 0.0)
