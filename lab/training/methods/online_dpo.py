"""Online DPO: the policy writes the pairs, gold or a reward model chooses. The bridge from DPO to
GRPO.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lab.config.hooks import PAIR_LOSS, REWARD
from lab.config.latex import PAIR_MARGIN, braced
from lab.config.methods import MethodSpec
from lab.config.run_config import OnlineConfig, config_as
from lab.config.schema import setting

if TYPE_CHECKING:
    import torch

    from lab.data.batching import TokenBatch
    from lab.training.method import MetricTensors
    from lab.training.micro_batches import MicroBatches
    from lab.training.rollout import Rollout
    from lab.training.state import TrainState


@dataclass(frozen=True)
class OnlineDPOConfig(OnlineConfig):
    """DPO on pairs that the policy itself has just written, arXiv 2402.04792."""

    steps: int = setting(
        60, "Number of optimizer updates, each on a new rollout.", low=1, high=1_000_000
    )
    beta: float = setting(
        0.1,
        "β: a larger β keeps the optimal policy nearer to the reference. Inside the loss, β is the"
        " factor on the margin.",
        low=1e-4,
        high=100.0,
        mutable=True,
        log=True,
    )
    group_size: int = setting(
        2,
        "G: number of completions sampled for each prompt. The best and the worst of them make the"
        " pair.",
        low=2,
        high=1024,
        mutable=True,
    )


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
    import torch

    groups = rollout.rewards.view(-1, rollout.group_size)
    start = torch.arange(len(groups), device=groups.device) * rollout.group_size
    alive = ~rollout.dead
    return (start + groups.nan_to_num(-torch.inf).argmax(1))[alive], (
        start + groups.nan_to_num(torch.inf).argmin(1)
    )[alive]


def batches(run: TrainState) -> Iterator[MicroBatches[Pairs]]:
    """Yield a fresh rollout for every update, always from the current policy."""
    from lab.distributed import collectives
    from lab.training.methods.online import fresh_rollout
    from lab.training.micro_batches import split_evenly, with_stand_ins

    while True:
        config = config_as(run.config, OnlineDPOConfig)
        run.rollout = rollout = fresh_rollout(run, group_size=config.group_size)
        chosen, rejected = (rows.tolist() for rows in choose(rollout))
        total = collectives.all_reduce_sum_int(len(chosen))
        pieces = split_evenly(
            list(zip(chosen, rejected)) if total else [(0, 1)], config.micro_batches
        )
        pairs = [
            Pairs(_tokens(rollout, [c for c, _ in piece] + [r for _, r in piece]), total)
            for piece in pieces
        ]
        yield with_stand_ins(run, pairs, Pairs(_tokens(rollout, [0, 1]), total))


def _tokens(rollout: Rollout, rows: list[int]) -> TokenBatch:
    from lab.data.batching import TokenBatch

    return TokenBatch(rollout.ids[rows], rollout.completion_mask[rows])


def loss(run: TrainState, pairs: Pairs) -> tuple[torch.Tensor, MetricTensors]:
    """`lab.algorithms.losses.dpo_loss` on the pairs of the rollout, log-probabilities at the
    temperature that sampled it.

    KL and entropy are those of the completions in pairs: ties are not among them.
    """
    from lab.algorithms.logprobs import sequence_logps
    from lab.algorithms.losses import dpo_loss
    from lab.algorithms.reductions import batch_mean
    from lab.engine.token_logprobs import token_statistics
    from lab.engine.truncation import truncation_of
    from lab.training.own_functions import own_tensor

    config = config_as(run.config, OnlineDPOConfig)
    mask = pairs.tokens.completion_mask
    found = token_statistics(
        run.model,
        pairs.tokens,
        temperature=config.temperature,
        reference=run.model,
        entropy=True,
        truncation=truncation_of(config),
    )
    assert found.reference_logps is not None
    assert found.kl is not None and found.entropy is not None
    logps, frozen = sequence_logps(found.logps, mask), sequence_logps(found.reference_logps, mask)
    inputs = (*logps.chunk(2), *frozen.chunk(2))
    losses, metrics = dpo_loss(*inputs, beta=config.beta)
    if PAIR_LOSS.name in run.own:
        losses = own_tensor(run, PAIR_LOSS, (*inputs, config.beta), losses)
    metrics |= {"kl": found.kl.sum(1), "entropy": found.entropy.masked_fill(~mask, float("nan"))}
    if not pairs.total:
        return 0.0 * losses.sum(), {}
    return batch_mean(losses, pairs.total), metrics


def formula(config: Mapping[str, Any]) -> list[str]:
    """The loss of one pair, and how the pair is chosen."""
    beta, size = braced(config["beta"], r"\beta"), braced(config["group_size"], "G")
    return [
        rf"\mathcal{{L}}_{{\mathrm{{DPO}}}}=-\log\sigma\big({beta}\,h\big)",
        PAIR_MARGIN,
        rf"y_w,y_l=\text{{best and worst of }}{size}\text{{ samples from }}\pi_\theta",
    ]


SPEC = MethodSpec(
    name="online_dpo",
    title="Online DPO",
    summary=(
        "Online DPO makes its own pairs. It samples G completions for each prompt; a rule or a"
        " reward model picks the best and the worst. Then it uses the DPO loss."
    ),
    colour="#CC79A7",
    config=OnlineDPOConfig,
    learns_from="prompts",
    batches=batches,
    loss=loss,
    formula=formula,
    models=("policy", "reference", "reward model"),
    hooks=(PAIR_LOSS, REWARD),
)
