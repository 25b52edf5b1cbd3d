"""DPO: the log-probability ratios of the two completions of a pair, compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lab.config.hooks import COMPLETION_MASK, PAIR_LOSS, SEQUENCE_LOGPS
from lab.config.latex import PAIR_MARGIN, braced
from lab.config.methods import MethodSpec
from lab.config.number_text import number_text
from lab.config.run_config import OfflineConfig, config_as
from lab.config.schema import setting
from lab.errors import LabError

if TYPE_CHECKING:
    import torch

    from lab.data.batching import TokenBatch
    from lab.training.method import MetricTensors
    from lab.training.state import TrainState


@dataclass(frozen=True)
class DPOConfig(OfflineConfig):
    """Direct Preference Optimization, arXiv 2305.18290."""

    beta: float = setting(
        0.1,
        "β: a larger β keeps the optimal policy nearer to the reference. Inside the loss, β is the"
        " factor on the margin. The default is the paper's.",
        low=1e-4,
        high=100.0,
        mutable=True,
        log=True,
    )
    label_smoothing: float = setting(
        0.0,
        "ε: the share of pairs whose labels are taken to be wrong (cDPO; TRL smooths its losses aot and"
        " CPO so). Above 0 the loss is lowest at a finite margin, log((1 − ε)/ε)/β.",
        low=0.0,
        high=0.5,
    )


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
    """Yield shuffled epochs over the pairs; the order depends on seed and step alone."""
    from lab.data.batching import collate
    from lab.distributed import collectives
    from lab.training.batch_rows import batch_rows
    from lab.training.methods.offline import encode_pairs, load_preferences
    from lab.training.micro_batches import split_evenly
    from lab.training.reference_logps import precompute_reference_logps

    chosen, rejected = encode_pairs(run, load_preferences(run))
    rows_of = batch_rows(run, chosen, rejected)
    chosen_logps, rejected_logps = (
        precompute_reference_logps(run, chosen),
        precompute_reference_logps(run, rejected),
    )
    while True:
        config = config_as(run.config, OfflineConfig)
        rows = rows_of.of_update(run.step + 1)
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
                list(collectives.shard_for_rank(rows, "pairs")), config.micro_batches
            )
        ]


def pair_logps(run: TrainState, pairs: Pairs) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the policy's log-probabilities (P,) of the chosen and of the rejected completions."""
    from lab.engine.token_logprobs import completion_logps

    chosen, rejected = completion_logps(run.model, pairs.tokens).chunk(2)
    return chosen, rejected


def loss(run: TrainState, pairs: Pairs) -> tuple[torch.Tensor, MetricTensors]:
    """One forward pass over chosen and rejected, then `lab.algorithms.losses.dpo_loss`, or the run's
    own loss. With a mask or a sum of the run's own the reference makes a pass too.
    """
    from lab.algorithms.losses import dpo_loss
    from lab.algorithms.reductions import batch_mean
    from lab.training.own_functions import own_tensor
    from lab.training.own_logps import own_completion_logps

    config = config_as(run.config, DPOConfig)
    beta, smoothing = config.beta, config.label_smoothing
    if {COMPLETION_MASK.name, SEQUENCE_LOGPS.name} & set(run.own):
        policy, reference = own_completion_logps(run, pairs.tokens)
        logps = (*policy.chunk(2), *reference.chunk(2))
    else:
        logps = (*pair_logps(run, pairs), pairs.reference_chosen, pairs.reference_rejected)
    losses, metrics = dpo_loss(*logps, beta=beta, label_smoothing=smoothing)
    if PAIR_LOSS.name in run.own:
        if smoothing:
            raise LabError(
                f"label_smoothing is {smoothing:g}, but a loss of your own takes only beta. Smooth in"
                " your function, and leave label_smoothing out."
            )
        losses = own_tensor(run, PAIR_LOSS, (*logps, beta), losses)
    return batch_mean(losses, pairs.total), metrics


def formula(config: Mapping[str, Any]) -> list[str]:
    """The loss of one pair."""
    beta = braced(config["beta"], r"\beta")
    if smoothing := config.get("label_smoothing", 0.0):
        return [
            rf"\mathcal{{L}}_{{\mathrm{{DPO}}}}=-{number_text(1 - smoothing)}\log\sigma\big({beta}\,h\big)"
            rf"-{number_text(smoothing)}\log\sigma\big(-{beta}\,h\big)",
            PAIR_MARGIN,
        ]
    return [rf"\mathcal{{L}}_{{\mathrm{{DPO}}}}=-\log\sigma\big({beta}\,h\big)", PAIR_MARGIN]


SPEC = MethodSpec(
    name="dpo",
    title="DPO",
    summary=(
        "DPO learns from pairs. It pushes up the margin h between the chosen and the rejected"
        " completion, without a reward model."
    ),
    colour="#0072B2",
    config=DPOConfig,
    learns_from="pairs",
    batches=batches,
    loss=loss,
    formula=formula,
    estimated=True,
    hooks=(PAIR_LOSS, SEQUENCE_LOGPS, COMPLETION_MASK),
)
