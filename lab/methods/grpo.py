"""GRPO: the group's mean is the baseline, so there is no critic."""

from collections.abc import Iterator

import torch

from lab import parallel
from lab.advantages import group_advantages
from lab.data import Tokens
from lab.likelihood import likelihoods
from lab.methods import Method, Metrics, Run
from lab.methods.online import Part, attach_reward_model, fresh_rollout, parts, reduced
from lab.objectives import grpo


def batches(run: Run) -> Iterator[list[Part]]:
    """A fresh rollout every `updates_per_rollout` updates, always from the current policy."""
    while True:
        if run.rollout is None or run.rollout.uses >= run.config.updates_per_rollout:
            group_size = run.config.group_size
            run.rollout = fresh_rollout(run, group_size=group_size)
            rewards = run.rollout.rewards
            run.rollout.advantages = parallel.mine(group_advantages(parallel.everyone(rewards), group_size, scale=run.config.scale), rewards)
        run.rollout.uses += 1
        yield parts(run, list(range(len(run.rollout.rewards) * parallel.world())))


def loss(run: Run, part: Part) -> tuple[torch.Tensor, Metrics]:
    """`lab.objectives.grpo` on some rows of the rollout, reduced as the config names.

    At the first update on a rollout the old log-probabilities are the current ones, so the ratio is exactly 1.
    """
    config, rollout, rows = run.config, part.rollout, part.rows
    mask = part.tokens.completion_mask
    found = likelihoods(run.model, part.tokens, temperature=config.temperature, against=run.model if config.beta else None, entropy=True)
    logps = found.logps
    if rollout.uses == 1:
        if rollout.old_logps is None:
            rollout.old_logps = torch.zeros_like(rollout.completion_mask, dtype=logps.dtype)
        rollout.old_logps[rows] = logps.detach()
    losses, metrics = grpo(logps, rollout.old_logps[rows], found.reference_logps, rollout.advantages[rows], mask,
                           beta=config.beta, epsilon=config.epsilon, epsilon_high=config.epsilon_high, kl_estimator=config.kl_estimator)
    metrics |= {"kl": found.kl.sum(1) if config.beta else _kl_of_some(run, part), "entropy": found.entropy.masked_fill(~mask, float("nan"))}
    return reduced(run, part, losses), metrics


@torch.no_grad()
def _kl_of_some(run: Run, part: Part) -> torch.Tensor:
    """KL to the reference of every fourth completion: where β is 0 it is a measurement, and not worth a pass over them all."""
    tokens = Tokens(part.tokens.ids[::4], part.tokens.completion_mask[::4])
    return likelihoods(run.model, tokens, temperature=run.config.temperature, against=run.model).kl.sum(1)


GRPO = Method(batches, loss, attach=attach_reward_model)
