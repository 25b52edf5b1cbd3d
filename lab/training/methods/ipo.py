"""IPO: the margin of a pair is drawn to a finite target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lab.config.hooks import PAIR_LOSS, Hook
from lab.config.latex import PAIR_MARGIN
from lab.config.methods import MethodSpec
from lab.config.number_text import number_text
from lab.config.run_config import OfflineConfig, config_as
from lab.config.schema import setting
from lab.training.methods.dpo import Pairs, batches, pair_logps

if TYPE_CHECKING:
    import torch

    from lab.training.method import MetricTensors
    from lab.training.state import TrainState


TOKEN_MEAN_LOSS = Hook(
    PAIR_LOSS.name,
    (*PAIR_LOSS.arguments[:4], "chosen_lengths", "rejected_lengths", "beta"),
    PAIR_LOSS.returns,
)


@dataclass(frozen=True)
class IPOConfig(OfflineConfig):
    """Identity Preference Optimization, arXiv 2310.12036."""

    beta: float = setting(
        0.1,
        "β (τ in the paper): the loss pulls the margin to 1/(2β).",
        low=1e-4,
        high=100.0,
        mutable=True,
        log=True,
    )
    ipo_variant: str = setting(
        "sequence",
        "sequence: the margin sums over tokens, as the paper's Eq. 17 reads. token_mean: the margin is"
        " a mean per token, as in TRL, which IPO's authors told that the paper's results use it.",
        choices=("sequence", "token_mean"),
    )


def loss(run: TrainState, pairs: Pairs) -> tuple[torch.Tensor, MetricTensors]:
    """One forward pass over chosen and rejected, then `lab.algorithms.losses.ipo_loss` in the variant
    that the config names, or the run's own loss.
    """
    from lab.algorithms.losses import ipo_loss, ipo_token_mean_loss
    from lab.algorithms.reductions import batch_mean
    from lab.training.own_functions import own_tensor

    config = config_as(run.config, IPOConfig)
    logps = (*pair_logps(run, pairs), pairs.reference_chosen, pairs.reference_rejected)
    if config.ipo_variant == "token_mean":
        inputs = (*logps, *pairs.tokens.completion_mask.sum(1).chunk(2))
        losses, metrics = ipo_token_mean_loss(*inputs, beta=config.beta)
        hook = TOKEN_MEAN_LOSS
    else:
        inputs, hook = logps, PAIR_LOSS
        losses, metrics = ipo_loss(*logps, beta=config.beta)
    if hook.name in run.own:
        losses = own_tensor(run, hook, (*inputs, config.beta), losses)
    return batch_mean(losses, pairs.total), metrics


def formula(config: Mapping[str, Any]) -> list[str]:
    """The loss of one pair."""
    margin, meaning = (
        (r"\bar h", r"\bar h=h\text{ with means per token}")
        if config["ipo_variant"] == "token_mean"
        else ("h", PAIR_MARGIN)
    )
    target = rf"\underbrace{{{number_text(1 / (2 * config['beta']))}}}_{{1/(2\beta)}}"
    return [rf"\mathcal{{L}}_{{\mathrm{{IPO}}}}=\big({margin}-{target}\big)^2", meaning]


SPEC = MethodSpec(
    name="ipo",
    title="IPO",
    summary=(
        "IPO learns from pairs like DPO. But it pulls the margin to a finite target, and DPO"
        " always pushes it up."
    ),
    colour="#56B4E9",
    config=IPOConfig,
    learns_from="pairs",
    batches=batches,
    loss=loss,
    formula=formula,
    estimated=True,
    hooks=(PAIR_LOSS,),
)
