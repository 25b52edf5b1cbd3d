"""GRPO: the group's mean is the baseline, so there is no critic."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from lab.config.hooks import KL_ESTIMATE, REWARD, SURROGATE, Hook
from lab.config.latex import braced
from lab.config.methods import MethodSpec
from lab.config.number_text import number_text
from lab.config.run_config import OnlineConfig, config_as
from lab.config.sampler_settings import SamplingCorrectionSettings
from lab.config.schema import setting
from lab.errors import LabError
from lab.training.without_gradients import without_gradients

if TYPE_CHECKING:
    import torch

    from lab.engine.chunked_logprobs import TokenStatistics
    from lab.training.method import MetricTensors
    from lab.training.methods.online import RolloutMicroBatch
    from lab.training.micro_batches import MicroBatches
    from lab.training.rollout import GRPORollout
    from lab.training.state import TrainState


ADVANTAGES = Hook("advantages", ("rewards", "group_size"), "(N,) advantages")
REDUCTION = Hook("reduction", ("losses", "completion_mask", "kind", "max_length"), "one number")


@dataclass(frozen=True)
class GRPOConfig(SamplingCorrectionSettings, OnlineConfig):
    """Group Relative Policy Optimization, arXiv 2402.03300."""

    beta: float = setting(
        0.0,
        "β: weight of the KL term in the loss. 0 as in TRL; the paper uses 0.04. Above 0 the term is"
        " the paper's estimate k3, where TRL now takes k3_corrected: see kl_estimator.",
        low=0.0,
        high=100.0,
        mutable=True,
        log=True,
    )
    group_size: int = setting(
        8,
        "G: number of completions sampled for each prompt (TRL: num_generations).",
        low=2,
        high=1024,
        mutable=True,
    )
    updates_per_rollout: int = setting(
        1, "Number of optimizer updates on one rollout (μ in the paper).", low=1, high=64
    )
    epsilon: float = setting(
        0.2,
        "ε: the clip stops the push on a token at a probability ratio of 1 − ε.",
        low=0.0,
        high=1.0,
        mutable=True,
    )
    epsilon_high: float = setting(
        0.2,
        "The clip stops the push on a token at a ratio of 1 + ε high. The paper uses ε here, DAPO"
        " 0.28.",
        low=0.0,
        high=10.0,
        mutable=True,
    )
    kl_estimator: str = setting(
        "k3",
        "Estimator of the KL term: k1, k2, k3 (the paper's, and the default here) or k3_corrected:"
        " k3 times the ratio (TRL's default).",
        choices=("k1", "k2", "k3", "k3_corrected"),
    )
    loss_aggregation: str = setting(
        "token_mean",
        "How the losses of all tokens become one number: token_mean (DAPO, TRL's default),"
        " sequence_mean (the GRPO paper) or fixed_length (Dr. GRPO).",
        choices=("sequence_mean", "token_mean", "fixed_length"),
    )
    advantage_scaling: str = setting(
        "group",
        "The number that divides reward minus group mean: the std of the group, the std of the"
        " batch, or none (no division).",
        choices=("group", "batch", "none"),
    )
    mask_truncated_completions: bool = setting(
        False,
        "Leaves completions that reached the token limit out of the loss, as DAPO does. Their"
        " rewards still count in the group's mean and std.",
    )


def batches(run: TrainState) -> Iterator[MicroBatches[RolloutMicroBatch[GRPORollout]]]:
    """A fresh rollout every `updates_per_rollout` updates, always from the current policy."""
    from lab.distributed import collectives
    from lab.training.methods.online import fresh_rollout, micro_batches
    from lab.training.rollout import GRPORollout

    while True:
        config = config_as(run.config, GRPOConfig)
        if run.rollout is None or run.rollout.num_updates >= config.updates_per_rollout:
            sampled = fresh_rollout(run, group_size=config.group_size)
            run.rollout = GRPORollout(
                **vars(sampled), advantages=_advantages(run, config, sampled.rewards)
            )
        run.rollout.num_updates += 1
        yield micro_batches(run, list(range(len(run.rollout.rewards) * collectives.world_size())))


def _advantages(run: TrainState, config: GRPOConfig, rewards: torch.Tensor) -> torch.Tensor:
    """`lab.algorithms.advantages.group_advantages` of this process's rewards, or the run's own."""
    from lab.algorithms.advantages import group_advantages
    from lab.distributed import collectives
    from lab.training.own_functions import own_tensor

    if ADVANTAGES.name in run.own:
        return own_tensor(run, ADVANTAGES, (rewards, config.group_size), rewards)
    whole = group_advantages(
        collectives.all_gather(rewards), config.group_size, scale=config.advantage_scaling
    )
    return collectives.local_shard(whole, rewards)


def loss(
    run: TrainState, part: RolloutMicroBatch[GRPORollout]
) -> tuple[torch.Tensor, MetricTensors]:
    """`lab.algorithms.policy_losses.grpo_loss` on some rows of the rollout, reduced as the config names.

    At the first update on a rollout the old log-probabilities are the current ones, so the ratio is
    exactly 1.
    """
    import torch

    from lab.algorithms.policy_losses import grpo_loss
    from lab.training.methods.online import reduced
    from lab.training.own_token_losses import own_token_losses
    from lab.training.sampling_correction import sampling_correction

    config, rollout, rows = config_as(run.config, GRPOConfig), part.rollout, part.rows
    mask, advantages = part.loss_mask, rollout.advantages
    found = _likelihoods(run, part)
    assert advantages is not None and found.entropy is not None
    logps = found.logps
    if rollout.num_updates == 1:
        if rollout.old_logps is None:
            rollout.old_logps = torch.zeros_like(rollout.completion_mask, dtype=logps.dtype)
        rollout.old_logps[rows] = logps.detach()
    assert rollout.old_logps is not None
    inputs = (logps, rollout.old_logps[rows], found.reference_logps, advantages[rows], mask)
    weights, correction = sampling_correction(config, rollout, rows, mask)
    token_losses = partial(
        grpo_loss,
        *inputs,
        epsilon=config.epsilon,
        epsilon_high=config.epsilon_high,
        kl_estimator=config.kl_estimator,
        sampling_weights=weights,
    )
    losses, metrics = token_losses(beta=config.beta)
    if {SURROGATE.name, KL_ESTIMATE.name} & set(run.own):
        without_kl = token_losses(beta=0.0)[0]
        losses = own_token_losses(run, config, inputs, without_kl, losses - without_kl, weights)
    metrics |= correction | {
        "kl": _kl_of_some(run, part) if found.kl is None else found.kl.sum(1),
        "entropy": found.entropy.masked_fill(~part.tokens.completion_mask, float("nan")),
    }
    if REDUCTION.name in run.own:
        return _own_reduction(run, part, losses), metrics
    return reduced(run, part, losses), metrics


def _own_reduction(
    run: TrainState, part: RolloutMicroBatch[GRPORollout], losses: torch.Tensor
) -> torch.Tensor:
    """The loss of the whole batch by the run's own reduction."""
    from lab.training.own_functions import own_tensor

    config = config_as(run.config, GRPOConfig)
    if len(part.rows) != part.total_sequences:
        raise LabError(
            f"A reduction of your own takes the whole batch at once, but this one is cut into pieces"
            f" of {len(part.rows)} of {part.total_sequences} completions. Use micro_batches 1 and a"
            " smaller batch_size."
        )
    inputs = (losses, part.loss_mask, config.loss_aggregation, config.max_completion_tokens)
    return own_tensor(run, REDUCTION, inputs, losses.sum())


def _likelihoods(run: TrainState, part: RolloutMicroBatch[GRPORollout]) -> TokenStatistics:
    """Likelihoods of all rows. Without a KL term a row of advantage 0, such as all of a dead group,
    has a gradient of exactly 0, so none is computed for it.

    Sharded weights need the same passes in every process, whatever its rows are worth.
    """
    import torch

    from lab.data.batching import TokenBatch
    from lab.engine.chunked_logprobs import TokenStatistics
    from lab.engine.token_logprobs import token_statistics
    from lab.engine.truncation import truncation_of

    config, tokens = config_as(run.config, GRPOConfig), part.tokens
    assert part.rollout.advantages is not None
    learns = part.rollout.advantages[part.rows] != 0
    if config.beta or config.shard or bool(learns.all()):
        return token_statistics(
            run.model,
            tokens,
            temperature=config.temperature,
            reference=run.model if config.beta else None,
            entropy=True,
            truncation=truncation_of(config),
        )
    logps, entropy = (torch.zeros(tokens.ids.shape, device=run.device) for _ in range(2))
    for which, trains in ((learns, torch.is_grad_enabled()), (~learns, False)):
        if (rows := which.nonzero().squeeze(1)).numel():
            with torch.set_grad_enabled(trains):
                found = token_statistics(
                    run.model,
                    TokenBatch(tokens.ids[rows], tokens.completion_mask[rows]),
                    temperature=config.temperature,
                    entropy=True,
                    truncation=truncation_of(config),
                )
            assert found.entropy is not None
            logps, entropy = (
                logps.index_copy(0, rows, found.logps),
                entropy.index_copy(0, rows, found.entropy),
            )
    return TokenStatistics(logps, entropy)


@without_gradients
def _kl_of_some(run: TrainState, part: RolloutMicroBatch[GRPORollout]) -> torch.Tensor:
    """KL to the reference of every fourth completion: where β is 0 it is a measurement, and not
    worth a pass over them all.
    """
    from lab.data.batching import TokenBatch
    from lab.engine.token_logprobs import token_statistics
    from lab.engine.truncation import truncation_of

    config = config_as(run.config, GRPOConfig)
    tokens = TokenBatch(part.tokens.ids[::4], part.tokens.completion_mask[::4])
    kl = token_statistics(
        run.model,
        tokens,
        temperature=config.temperature,
        reference=run.model,
        truncation=truncation_of(config),
    ).kl
    assert kl is not None
    return kl.sum(1)


def formula(config: Mapping[str, Any]) -> list[str]:
    """The loss of one group."""
    beta, group = braced(config["beta"], r"\beta"), braced(config["group_size"], "G")
    size, longest = config["group_size"], config["max_completion_tokens"]
    mean = {
        "sequence_mean": rf"\frac{{1}}{{{group}}}\sum_{{i=1}}^{{{size}}}\frac{{1}}{{|y_i|}}\sum_t",
        "token_mean": rf"\frac{{1}}{{\sum_i|y_i|}}\sum_{{i=1}}^{{{group}}}\sum_t",
        "fixed_length": rf"\frac{{1}}{{{group}\cdot{longest}}}\sum_{{i=1}}^{{{size}}}\sum_t",
    }[config["loss_aggregation"]]
    scaled = {
        "group": r"\frac{r_i-\bar r}{\mathrm{std}(r)}",
        "batch": r"\frac{r_i-\bar r}{\mathrm{std}_{\mathrm{batch}}(r)}",
        "none": r"r_i-\bar r",
    }[config["advantage_scaling"]]
    low, high = number_text(1 - config["epsilon"]), number_text(1 + config["epsilon_high"])
    return [
        rf"\mathcal{{L}}_{{\mathrm{{GRPO}}}}=-{mean}\Big[\min\!\big(\rho"
        rf" A_i,\mathrm{{clip}}(\rho,{low},{high})A_i\big)-{beta}\,\mathrm{{KL}}\Big]",
        rf"A_i={scaled}",
    ]


SPEC = MethodSpec(
    name="grpo",
    title="GRPO",
    summary=(
        "GRPO samples G completions for each prompt, scores them with a rule, and compares each"
        " completion with its group."
    ),
    colour="#009E73",
    config=GRPOConfig,
    learns_from="prompts",
    batches=batches,
    loss=loss,
    formula=formula,
    models=("policy", "reference", "reward model"),
    estimated=True,
    hooks=(ADVANTAGES, REDUCTION, REWARD, SURROGATE, KL_ESTIMATE),
)
