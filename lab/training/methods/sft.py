"""Supervised fine-tuning: completions, or whole texts, are imitated."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from lab.algorithms.losses import sft_loss
from lab.algorithms.reductions import token_mean
from lab.data.batching import TokenBatch, batch_indices, collate
from lab.distributed import collectives
from lab.engine.token_logprobs import token_statistics
from lab.training.method import Method, MetricTensors
from lab.training.methods.offline import evaluate_task_or_rows, examples_of, load_imitated
from lab.training.micro_batches import split_evenly
from lab.training.state import TrainState


@dataclass
class Demonstrations:
    """Rows to imitate; `total_tokens` counts the completion tokens of the whole batch."""

    tokens: TokenBatch
    total_tokens: int


def batches(run: TrainState) -> Iterator[list[Demonstrations]]:
    """Shuffled epochs over the completions to imitate."""
    chosen = examples_of(run, load_imitated(run))
    while True:
        rows = batch_indices(len(chosen), run.config.batch_size, run.config.seed, run.step + 1)
        total = sum(e.trained for e in chosen.at(rows))
        yield [
            Demonstrations(
                collate(chosen.at(part), run.tokenizer.pad_token_id).to(run.device), total
            )
            for part in split_evenly(
                collectives.shard_for_rank(rows, "examples"), run.config.micro_batches
            )
        ]


def loss(run: TrainState, piece: Demonstrations) -> tuple[torch.Tensor, MetricTensors]:
    """Mean negative log-likelihood of the completion tokens."""
    losses, metrics = sft_loss(token_statistics(run.model, piece.tokens).logps)
    return token_mean(losses, piece.tokens.completion_mask, piece.total_tokens), metrics


SFT = Method(batches, loss, evaluate=evaluate_task_or_rows(batches, loss))
