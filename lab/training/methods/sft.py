"""Supervised fine-tuning: completions, or whole texts, are imitated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lab.config.methods import MethodSpec
from lab.config.run_config import OfflineConfig, config_as

if TYPE_CHECKING:
    import torch

    from lab.data.batching import TokenBatch
    from lab.training.method import MetricTensors
    from lab.training.state import TrainState


@dataclass(frozen=True)
class SFTConfig(OfflineConfig):
    """Supervised fine-tuning on the chosen completions, or on your own prompts and completions."""


@dataclass
class Demonstrations:
    """Rows to imitate; `total_tokens` counts the completion tokens of the whole batch."""

    tokens: TokenBatch
    total_tokens: int


def batches(run: TrainState) -> Iterator[list[Demonstrations]]:
    """Yield shuffled epochs over the completions to imitate."""
    from lab.data.batching import batch_indices, collate
    from lab.distributed import collectives
    from lab.training.methods.offline import examples_of, load_imitated
    from lab.training.micro_batches import split_evenly

    chosen = examples_of(run, load_imitated(run))
    while True:
        config = config_as(run.config, SFTConfig)
        rows = batch_indices(len(chosen), config.batch_size, config.seed, run.step + 1)
        total = sum(e.trained for e in chosen.at(rows))
        yield [
            Demonstrations(
                collate(chosen.at(part), run.tokenizer.pad_token_id).to(run.device), total
            )
            for part in split_evenly(
                list(collectives.shard_for_rank(rows, "examples")), config.micro_batches
            )
        ]


def loss(run: TrainState, piece: Demonstrations) -> tuple[torch.Tensor, MetricTensors]:
    """Return the mean negative log-likelihood of the completion tokens."""
    from lab.algorithms.losses import sft_loss
    from lab.algorithms.reductions import token_mean
    from lab.engine.token_logprobs import token_statistics

    losses, metrics = sft_loss(token_statistics(run.model, piece.tokens).logps)
    return token_mean(losses, piece.tokens.completion_mask, piece.total_tokens), metrics


def formula(config: Mapping[str, Any]) -> list[str]:
    """The loss of one completion."""
    return [r"\mathcal{L}_{\mathrm{SFT}}=-\log\pi_\theta(y_w|x)"]


SPEC = MethodSpec(
    name="sft",
    title="SFT",
    summary=("SFT (supervised fine-tuning) raises the log-probability of the chosen completions."),
    colour="#808080",
    config=SFTConfig,
    learns_from="demonstrations",
    batches=batches,
    loss=loss,
    formula=formula,
    models=("policy",),
)
