"""GRPO: the group's mean is the baseline, so there is no critic."""

from collections.abc import Iterator

import torch

from lab.advantages import group_advantages
from lab.logps import exact_kl, token_entropy, token_logps
from lab.methods import Method, Metrics, Run, logits_of
from lab.methods.online import Part, attach_reward_model, fresh_rollout, parts, reduced
from lab.models import reference
from lab.objectives import grpo


def batches(run: Run) -> Iterator[list[Part]]:
    """A fresh rollout every `updates_per_rollout` updates, always from the current policy."""
    while True:
        if run.rollout is None or run.rollout.uses >= run.config.updates_per_rollout:
            group_size = run.config.group_size
            run.rollout = fresh_rollout(run, group_size=group_size, rule=run.config.reward)
            run.rollout.advantages = group_advantages(run.rollout.rewards, group_size, scale=run.config.scale)
        run.rollout.uses += 1
        yield parts(run, list(range(len(run.rollout.rewards))))


def loss(run: Run, part: Part) -> tuple[torch.Tensor, Metrics]:
    """`lab.objectives.grpo` on some rows of the rollout, reduced as the config names.

    At the first update on a rollout the old log-probabilities are the current ones, so the ratio is exactly 1.
    """
    config, rollout, rows = run.config, part.rollout, part.rows
    ids, mask = part.tokens.ids, part.tokens.completion_mask
    logits = logits_of(run, ids)
    logps = token_logps(logits, ids, config.temperature)
    with torch.no_grad(), reference(run.model):
        reference_logits = logits_of(run, ids)
    if rollout.uses == 1:
        if rollout.old_logps is None:
            rollout.old_logps = torch.zeros_like(rollout.completion_mask, dtype=logps.dtype)
        rollout.old_logps[rows] = logps.detach()
    losses, metrics = grpo(logps, rollout.old_logps[rows], token_logps(reference_logits, ids, config.temperature), rollout.advantages[rows], mask,
                           beta=config.beta, epsilon=config.epsilon, epsilon_high=config.epsilon_high, kl_estimator=config.kl_estimator)
    with torch.no_grad():
        metrics |= {"kl": (exact_kl(logits, reference_logits) * mask).sum(1),
                    "entropy": token_entropy(logits).masked_fill(~mask, float("nan"))}
    return reduced(run, part, losses), metrics | (rollout.metrics() if part.first else {})


GRPO = Method(batches, loss, attach=attach_reward_model)
