"""Online DPO: the policy writes the pairs, gold or a reward model chooses. The bridge from DPO to
GRPO.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from lab.algorithms.logprobs import sequence_logps
from lab.algorithms.losses import dpo_loss
from lab.algorithms.reductions import batch_mean
from lab.data.batching import TokenBatch
from lab.distributed import collectives
from lab.engine.token_logprobs import token_statistics
from lab.training.method import Method, MetricTensors
from lab.training.methods.online import attach_reward_model, fresh_rollout
from lab.training.micro_batches import split_evenly
from lab.training.rollout import Rollout
from lab.training.state import TrainState


@dataclass
class Pairs:
    """P pairs: `tokens` holds the P chosen rows, then the P rejected; `total` counts the pairs of
    the whole batch.

    With `total` 0 every group of the rollout was a tie: the one pair here stands in for a batch and
    weighs nothing.
    """

    tokens: TokenBatch
    total: int


def choose(rollout: Rollout) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of the best and of the worst completion of each group, ties and completions without a
    reward left out; the first of equals.
    """
    groups = rollout.rewards.view(-1, rollout.group_size)
    start = torch.arange(len(groups), device=groups.device) * rollout.group_size
    alive = ~rollout.dead
    return (start + groups.nan_to_num(-torch.inf).argmax(1))[alive], (
        start + groups.nan_to_num(torch.inf).argmin(1)
    )[alive]


def batches(run: TrainState) -> Iterator[list[Pairs]]:
    """A fresh rollout for every update, always from the current policy."""
    while True:
        run.rollout = rollout = fresh_rollout(run, group_size=run.config.group_size)
        chosen, rejected = (rows.tolist() for rows in choose(rollout))
        total = collectives.all_reduce_sum_int(len(chosen))
        pieces = split_evenly(
            list(zip(chosen, rejected)) if total else [(0, 1)], run.config.micro_batches
        )
        yield [
            Pairs(_tokens(rollout, [c for c, _ in piece] + [r for _, r in piece]), total)
            for piece in pieces
        ]


def _tokens(rollout: Rollout, rows: list[int]) -> TokenBatch:
    return TokenBatch(rollout.ids[rows], rollout.completion_mask[rows])


def loss(run: TrainState, pairs: Pairs) -> tuple[torch.Tensor, MetricTensors]:
    """`lab.algorithms.losses.dpo_loss` on the pairs of the rollout, log-probabilities at the temperature
    that sampled it.

    KL and entropy are those of the completions in pairs: ties are not among them.
    """
    mask = pairs.tokens.completion_mask
    found = token_statistics(
        run.model,
        pairs.tokens,
        temperature=run.config.temperature,
        reference=run.model,
        entropy=True,
    )
    logps, frozen = sequence_logps(found.logps, mask), sequence_logps(found.reference_logps, mask)
    losses, metrics = dpo_loss(*logps.chunk(2), *frozen.chunk(2), beta=run.config.beta)
    metrics |= {"kl": found.kl.sum(1), "entropy": found.entropy.masked_fill(~mask, float("nan"))}
    if not pairs.total:
        return 0.0 * losses.sum(), {}
    return batch_mean(losses, pairs.total), metrics


ONLINE_DPO = Method(batches, loss, attach=attach_reward_model)
