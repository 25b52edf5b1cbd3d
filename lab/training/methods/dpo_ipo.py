"""DPO and IPO: a pair's two log-probability ratios, compared."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from lab.algorithms.losses import dpo_loss, ipo_loss, ipo_token_mean_loss
from lab.algorithms.reductions import batch_mean
from lab.data.batching import TokenBatch, batch_indices, collate
from lab.distributed import collectives
from lab.engine.token_logprobs import completion_logps
from lab.training.method import Method, MetricTensors
from lab.training.methods.offline import encode_pairs, evaluate_task_or_rows, load_preferences
from lab.training.micro_batches import split_evenly
from lab.training.reference_logps import precompute_reference_logps
from lab.training.state import TrainState


@dataclass
class Pairs:
    """P pairs: `tokens` holds the P chosen rows, then the P rejected; `total` counts the pairs of
    the whole batch.
    """

    tokens: TokenBatch
    reference_chosen: torch.Tensor
    reference_rejected: torch.Tensor
    total: int


def batches(run: TrainState) -> Iterator[list[Pairs]]:
    """Shuffled epochs over the pairs; the order depends on seed and step alone."""
    chosen, rejected = encode_pairs(run, load_preferences(run))
    chosen_logps, rejected_logps = (
        precompute_reference_logps(run, chosen),
        precompute_reference_logps(run, rejected),
    )
    while True:
        rows = batch_indices(len(chosen), run.config.batch_size, run.config.seed, run.step + 1)
        yield [
            Pairs(
                collate(chosen.at(part) + rejected.at(part), run.tokenizer.pad_token_id).to(
                    run.device
                ),
                chosen_logps[part],
                rejected_logps[part],
                len(rows),
            )
            for part in split_evenly(
                collectives.shard_for_rank(rows, "pairs"), run.config.micro_batches
            )
        ]


def _logps(run: TrainState, pairs: Pairs) -> tuple[torch.Tensor, torch.Tensor]:
    return completion_logps(run.model, pairs.tokens).chunk(2)


def dpo_batch_loss(run: TrainState, pairs: Pairs) -> tuple[torch.Tensor, MetricTensors]:
    """One forward pass over chosen and rejected, then `lab.algorithms.losses.dpo_loss`."""
    losses, metrics = dpo_loss(
        *_logps(run, pairs), pairs.reference_chosen, pairs.reference_rejected, beta=run.config.beta
    )
    return batch_mean(losses, pairs.total), metrics


def ipo_batch_loss(run: TrainState, pairs: Pairs) -> tuple[torch.Tensor, MetricTensors]:
    """One forward pass over chosen and rejected, then `lab.algorithms.losses.ipo_loss` in the form that
    the config names.
    """
    frozen = pairs.reference_chosen, pairs.reference_rejected
    if run.config.form == "token_mean":
        losses, metrics = ipo_token_mean_loss(
            *_logps(run, pairs),
            *frozen,
            *pairs.tokens.completion_mask.sum(1).chunk(2),
            beta=run.config.beta,
        )
    else:
        losses, metrics = ipo_loss(*_logps(run, pairs), *frozen, beta=run.config.beta)
    return batch_mean(losses, pairs.total), metrics


DPO = Method(batches, dpo_batch_loss, evaluate=evaluate_task_or_rows(batches, dpo_batch_loss))
IPO = Method(batches, ipo_batch_loss, evaluate=evaluate_task_or_rows(batches, ipo_batch_loss))
