"""Supervised fine-tuning: completions, or whole texts, are imitated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lab.config.hooks import Hook
from lab.config.methods import MethodSpec
from lab.config.run_config import OfflineConfig, config_as
from lab.errors import LabError

if TYPE_CHECKING:
    import torch

    from lab.data.batching import TokenBatch
    from lab.training.method import MetricTensors
    from lab.training.state import TrainState


LOSS = Hook("loss", ("token_logps", "completion_mask"), "one number")


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
    from lab.data.batching import collate
    from lab.distributed import collectives
    from lab.training.batch_rows import batch_rows
    from lab.training.methods.offline import examples_of, load_imitated
    from lab.training.micro_batches import split_evenly

    chosen = examples_of(run, load_imitated(run))
    rows_of = batch_rows(run, chosen)
    while True:
        config = config_as(run.config, SFTConfig)
        rows = rows_of.of_update(run.step + 1)
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
    """Return the mean negative log-likelihood of the completion tokens, or the run's own loss of the
    batch.
    """
    from lab.algorithms.losses import sft_loss
    from lab.algorithms.reductions import token_mean
    from lab.engine.token_logprobs import token_statistics

    if LOSS.name in run.own:
        return _own_loss(run, piece), {}
    losses, metrics = sft_loss(token_statistics(run.model, piece.tokens).logps)
    return token_mean(losses, piece.tokens.completion_mask, piece.total_tokens), metrics


def _own_loss(run: TrainState, piece: Demonstrations) -> torch.Tensor:
    """The loss of the whole batch by the run's own function, from the log-probabilities of all tokens."""
    from lab.training.own_functions import own_tensor
    from lab.training.own_logps import all_token_logps

    if int(piece.tokens.completion_mask.sum()) != piece.total_tokens:
        raise LabError(
            "A loss of your own takes the whole batch at once, but this one is cut into pieces. Use"
            " micro_batches 1 and a smaller batch_size."
        )
    logps = all_token_logps(run, piece.tokens)
    return own_tensor(run, LOSS, (logps, piece.tokens.completion_mask), logps.sum())


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
    hooks=(LOSS,),
)
