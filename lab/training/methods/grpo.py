"""GRPO: the group's mean is the baseline, so there is no critic."""

from collections.abc import Iterator

import torch

from lab.algorithms.advantages import group_advantages
from lab.algorithms.policy_losses import grpo_loss
from lab.data.batching import TokenBatch
from lab.distributed import collectives
from lab.engine.chunked_logprobs import TokenStatistics
from lab.engine.token_logprobs import token_statistics
from lab.training.method import Method, MetricTensors
from lab.training.methods.online import (
    RolloutMicroBatch,
    attach_reward_model,
    fresh_rollout,
    micro_batches,
    reduced,
)
from lab.training.rollout import GRPORollout
from lab.training.state import TrainState


def batches(run: TrainState) -> Iterator[list[RolloutMicroBatch[GRPORollout]]]:
    """A fresh rollout every `updates_per_rollout` updates, always from the current policy."""
    while True:
        if run.rollout is None or run.rollout.num_updates >= run.config.updates_per_rollout:
            group_size = run.config.group_size
            sampled = fresh_rollout(run, group_size=group_size)
            advantages = collectives.local_shard(
                group_advantages(
                    collectives.all_gather(sampled.rewards), group_size, scale=run.config.scale
                ),
                sampled.rewards,
            )
            run.rollout = GRPORollout(**vars(sampled), advantages=advantages)
        run.rollout.num_updates += 1
        yield micro_batches(run, list(range(len(run.rollout.rewards) * collectives.world_size())))


def loss(
    run: TrainState, part: RolloutMicroBatch[GRPORollout]
) -> tuple[torch.Tensor, MetricTensors]:
    """`lab.algorithms.policy_losses.grpo_loss` on some rows of the rollout, reduced as the config names.

    At the first update on a rollout the old log-probabilities are the current ones, so the ratio is
    exactly 1.
    """
    config, rollout, rows = run.config, part.rollout, part.rows
    mask = part.tokens.completion_mask
    found = _likelihoods(run, part)
    logps = found.logps
    if rollout.num_updates == 1:
        if rollout.old_logps is None:
            rollout.old_logps = torch.zeros_like(rollout.completion_mask, dtype=logps.dtype)
        rollout.old_logps[rows] = logps.detach()
    losses, metrics = grpo_loss(
        logps,
        rollout.old_logps[rows],
        found.reference_logps,
        rollout.advantages[rows],
        mask,
        beta=config.beta,
        epsilon=config.epsilon,
        epsilon_high=config.epsilon_high,
        kl_estimator=config.kl_estimator,
    )
    metrics |= {
        "kl": found.kl.sum(1) if config.beta else _kl_of_some(run, part),
        "entropy": found.entropy.masked_fill(~mask, float("nan")),
    }
    return reduced(run, part, losses), metrics


def _likelihoods(run: TrainState, part: RolloutMicroBatch[GRPORollout]) -> TokenStatistics:
    """Likelihoods of all rows. Without a KL term a row of advantage 0, such as all of a dead group,
    has a gradient of exactly 0, so none is computed for it.

    Sharded weights need the same passes in every process, whatever its rows are worth.
    """
    config, tokens, learns = run.config, part.tokens, part.rollout.advantages[part.rows] != 0
    if config.beta or config.shard == "on" or bool(learns.all()):
        return token_statistics(
            run.model,
            tokens,
            temperature=config.temperature,
            reference=run.model if config.beta else None,
            entropy=True,
        )
    logps, entropy = (torch.zeros(tokens.ids.shape, device=run.device) for _ in range(2))
    for which, trains in ((learns, torch.is_grad_enabled()), (~learns, False)):
        if (rows := which.nonzero().squeeze(1)).numel():
            with torch.set_grad_enabled(trains):
                found = token_statistics(
                    run.model,
                    TokenBatch(tokens.ids[rows], tokens.completion_mask[rows]),
                    temperature=config.temperature,
                    entropy=True,
                )
            logps, entropy = (
                logps.index_copy(0, rows, found.logps),
                entropy.index_copy(0, rows, found.entropy),
            )
    return TokenStatistics(logps, entropy)


@torch.no_grad()
def _kl_of_some(run: TrainState, part: RolloutMicroBatch[GRPORollout]) -> torch.Tensor:
    """KL to the reference of every fourth completion: where β is 0 it is a measurement, and not
    worth a pass over them all.
    """
    tokens = TokenBatch(part.tokens.ids[::4], part.tokens.completion_mask[::4])
    return token_statistics(
        run.model, tokens, temperature=run.config.temperature, reference=run.model
    ).kl.sum(1)


GRPO = Method(batches, loss, attach=attach_reward_model)
