"""GRPO: the group's mean is the baseline, so there is no critic."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from lab.data import Tokens
from lab.logps import exact_kl, token_entropy, token_logps
from lab.methods import Method, Metrics, Run, cut, logits_of
from lab.models import reference
from lab.objectives import fixed_length, grpo, sequence_mean, token_mean
from lab.rollout import Rollout, roll_out


@dataclass
class Part:
    """Some `rows` of a rollout and their tokens; `total_sequences` and `total_tokens` count the whole rollout."""

    tokens: Tokens
    rollout: Rollout
    rows: torch.Tensor
    total_sequences: int
    total_tokens: int
    first: bool


def batches(run: Run) -> Iterator[list[Part]]:
    """A fresh rollout every `updates_per_rollout` updates, always from the current policy."""
    while True:
        if run.rollout is None or run.rollout.uses >= run.config.updates_per_rollout:
            run.rollout = roll_out(run.model, run.tokenizer, run.task, run.config, step=run.step + 1, device=run.device)
        rollout = run.rollout
        rollout.uses += 1
        n, total = len(rollout.rewards), int(rollout.completion_mask.sum())
        parts = [torch.tensor(rows, device=run.device) for rows in cut(list(range(n)), run.config.micro_batches)]
        yield [Part(Tokens(rollout.ids[rows], rollout.completion_mask[rows]), rollout, rows, n, total, i == 0)
               for i, rows in enumerate(parts)]


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
    scalar = {"sequence_mean": lambda: sequence_mean(losses, mask, part.total_sequences),
              "token_mean": lambda: token_mean(losses, mask, part.total_tokens),
              "fixed_length": lambda: fixed_length(losses, mask, config.max_completion_tokens, part.total_sequences)}[config.reduction]()
    with torch.no_grad():
        metrics |= {"kl": (exact_kl(logits, reference_logits) * mask).sum(1),
                    "entropy": token_entropy(logits).masked_fill(~mask, float("nan"))}
    return scalar, metrics | (rollout.metrics() if part.first else {})


GRPO = Method(batches, loss)
