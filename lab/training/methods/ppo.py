"""PPO with a critic: stage 2 of RLHF. Every token has its own reward, expected value and advantage."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from lab.config.adapter_settings import FULL_RANK
from lab.config.hooks import REWARD, SURROGATE, Hook
from lab.config.latex import braced
from lab.config.methods import MethodSpec
from lab.config.number_text import number_text
from lab.config.run_config import OnlineConfig, config_as
from lab.config.schema import setting
from lab.errors import LabError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from lab.training.method import MetricTensors
    from lab.training.methods.online import RolloutMicroBatch
    from lab.training.micro_batches import MicroBatches
    from lab.training.rollout import PPORollout, Rollout
    from lab.training.state import TrainState


TOKEN_REWARDS = Hook(
    "token_rewards",
    ("scores", "token_logps", "reference_token_logps", "completion_mask", "beta"),
    "(B, T) rewards, one for each token",
)
WHITEN = Hook("whiten", ("advantages", "completion_mask"), "(B, T) advantages")
GAE = Hook("gae", ("rewards", "values", "gamma", "lam"), "(T,) advantages of one completion")

OWN_ESTIMATES = (TOKEN_REWARDS, GAE, WHITEN)


@dataclass(frozen=True)
class PPOConfig(OnlineConfig):
    """Proximal Policy Optimization with a critic, arXiv 1707.06347: stage 2 of RLHF, arXiv
    2203.02155.
    """

    steps: int = setting(60, "Number of optimizer updates.", low=1, high=1_000_000)
    beta: float = setting(
        0.02,
        "β: β·(log π − log π_ref) is subtracted from the reward of each token. The default is that"
        " of arXiv 2203.02155.",
        low=0.0,
        high=100.0,
        mutable=True,
        log=True,
    )
    kl_target: float = setting(
        0.0,
        "Target of the KL in nats per completion. β is adapted to it after every rollout (arXiv"
        " 1909.08593). 0 keeps β fixed.",
        low=0.0,
        high=1e4,
    )
    model_layout: str = setting(
        "shared",
        "shared: one base with adapters and heads for policy, critic and reward model. separate:"
        " four sets of weights. The results are the same; the memory differs.",
        choices=("shared", "separate"),
    )
    critic_learning_rate: float = setting(
        5e-3,
        "Peak learning rate of the critic. The critic shares no trained weight with the policy.",
        low=1e-8,
        high=1.0,
        mutable=True,
        log=True,
    )
    epochs: int = setting(1, "Number of passes over each rollout.", low=1, high=64)
    minibatches: int = setting(
        2, "Number of updates in one pass. Each uses another part of the rollout.", low=1, high=4096
    )
    gamma: float = setting(
        1.0, "γ: discount of later rewards. 1 means no discount.", low=0.0, high=1.0
    )
    gae_lambda: float = setting(
        0.95,
        "λ of generalized advantage estimation (arXiv 1506.02438): 0 uses only the critic's"
        " predictions, 1 only the rewards.",
        low=0.0,
        high=1.0,
    )
    epsilon: float = setting(
        0.2, "ε: the clip range of the ratio is 1 − ε to 1 + ε.", low=0.0, high=1.0, mutable=True
    )
    epsilon_value: float = setting(
        0.2,
        "ε_V: the clip of the value loss, in units of the reward. It stops the critic's push when"
        " its value has moved this far.",
        low=0.0,
        high=1e6,
        mutable=True,
    )
    loss_aggregation: str = setting(
        "token_mean",
        "How the losses of all tokens become one number, for policy and critic.",
        choices=("sequence_mean", "token_mean", "fixed_length"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.adapter and self.model_layout == "separate":
            raise LabError(
                f"adapter is '{self.adapter}', but with model_layout separate the reference is the"
                " base without it. Use --model-layout shared."
            )
        if self.lora_rank == FULL_RANK and self.model_layout == "shared":
            raise LabError(
                f"lora_rank is {FULL_RANK} and model_layout shared, but a policy all of whose weights"
                " train shares no base with its critic. Use --model-layout separate."
            )
        if self.shard and self.model_layout == "separate":
            raise LabError(
                "shard is on and model_layout separate, but only the policy's base is spread over"
                " processes: the other three would not be shared. Use --model-layout shared."
            )
        if self.minibatches > self.batch_size:
            raise LabError(
                f"minibatches is {self.minibatches}, but a rollout has only {self.batch_size}"
                " completions. Lower it or raise batch_size."
            )


def attach(run: TrainState) -> None:
    """Critic, reference and reward model: on the policy's base, or each with its own copy of the
    weights.
    """
    from lab.models.fused_weights import fuse_projection_weights
    from lab.models.loading import load_base
    from lab.training.heads import load_trained_reward_model, new_critic
    from lab.training.method_state import PPOState
    from lab.training.methods.online import GOLD_REWARDS

    config = config_as(run.config, PPOConfig)
    shared = config.model_layout == "shared"
    reward_model, frozen_reference = None, None
    if config.reward_from not in GOLD_REWARDS:
        reward_model = load_trained_reward_model(
            config.reward_from, config, run.tokenizer, run.device, run.model if shared else None
        )
    critic = new_critic(run.model, config, run.device, shared=shared)
    if (
        not shared and config.lora_rank != FULL_RANK
    ):  # Its reference is a copy of its weights already.
        base = load_base(config.model, run.device, config.quantization)
        frozen_reference = cast("PreTrainedModel", cast(Any, base).to(run.device))
        frozen_reference.eval().requires_grad_(False)
        fuse_projection_weights(frozen_reference)
    run.method_state = PPOState(
        reward_model=reward_model, critic=critic, frozen_reference=frozen_reference
    )


def minibatch(
    rollout: Rollout, seed: int, sampled_at: int, epoch: int, number: int, count: int
) -> list[int]:
    """Rows of the minibatch `number` of `count` in pass `epoch` over the rollout that was sampled
    for update `sampled_at`: every row once a pass.
    """
    from lab.distributed import collectives
    from lab.training.micro_batches import split_evenly

    rows = list(range(len(rollout.rewards) * collectives.world_size()))
    random.Random(f"minibatches/{seed}/{sampled_at}/{epoch}").shuffle(rows)
    return sorted(split_evenly(rows, count)[number])


def batches(run: TrainState) -> Iterator[MicroBatches[RolloutMicroBatch[PPORollout]]]:
    """`epochs` passes of `minibatches` updates over each rollout, then a fresh one from the current
    policy.
    """
    from lab.training.methods.online import micro_batches
    from lab.training.methods.ppo_rollout import collect_rollout

    while True:
        config = config_as(run.config, PPOConfig)
        if run.rollout is None or run.rollout.num_updates >= config.epochs * config.minibatches:
            run.rollout = collect_rollout(run, config, OWN_ESTIMATES)
        epoch, number = divmod(run.rollout.num_updates, config.minibatches)
        sampled_at = run.step + 1 - run.rollout.num_updates
        run.rollout.num_updates += 1
        yield micro_batches(
            run, minibatch(run.rollout, config.seed, sampled_at, epoch, number, config.minibatches)
        )


def loss(
    run: TrainState, part: RolloutMicroBatch[PPORollout]
) -> tuple[torch.Tensor, MetricTensors]:
    """`lab.algorithms.policy_losses.ppo_loss` for the policy plus `lab.algorithms.policy_losses.value_loss` for the
    critic, which share no parameter.

    At the first update on a rollout the old log-probabilities are the current ones, so the ratio is
    exactly 1.
    """
    from lab.algorithms.policy_losses import ppo_loss, value_loss
    from lab.engine.token_logprobs import token_statistics
    from lab.engine.truncation import truncation_of
    from lab.training.method_state import PPOState
    from lab.training.methods.online import reduced
    from lab.training.own_functions import own_tensor

    config, rollout, rows = config_as(run.config, PPOConfig), part.rollout, part.rows
    mask = part.tokens.completion_mask
    found = token_statistics(
        run.model,
        part.tokens,
        temperature=config.temperature,
        entropy=True,
        truncation=truncation_of(config),
    )
    logps = found.logps
    if rollout.num_updates == 1:
        rollout.old_logps[rows] = logps.detach()
    losses, metrics = ppo_loss(
        logps, rollout.old_logps[rows], rollout.advantages[rows], mask, epsilon=config.epsilon
    )
    if SURROGATE.name in run.own:
        inputs = (logps, rollout.old_logps[rows], rollout.advantages[rows], config.epsilon)
        losses = own_tensor(run, SURROGATE, inputs, losses).masked_fill(~mask, 0.0)
    values = PPOState.of(run).critic.values(part.tokens)
    value_losses, value_metrics = value_loss(
        values,
        rollout.values[rows],
        rollout.returns[rows],
        mask,
        epsilon_value=config.epsilon_value,
    )
    assert found.entropy is not None
    entropy = {"entropy": found.entropy.masked_fill(~mask, float("nan"))}
    scalar = reduced(run, part, losses) + reduced(run, part, value_losses)
    return scalar, metrics | value_metrics | entropy


def formula(config: Mapping[str, Any]) -> list[str]:
    """The loss of one token, its advantage and its reward."""
    beta, gae_lambda = braced(config["beta"], r"\beta"), braced(config["gae_lambda"], r"\lambda")
    low, high = number_text(1 - config["epsilon"]), number_text(1 + config["epsilon"])
    clip = rf"\mathrm{{clip}}(\rho_t,{low},{high})"
    return [
        r"\mathcal{L}_{\mathrm{PPO}}=-\min\!\big(\rho_t"
        rf" A_t,{clip}A_t\big)+\tfrac{{1}}{{2}}(V_t-R_t)^2",
        rf"A_t=\textstyle\sum_k({number_text(config['gamma'])}\cdot{gae_lambda})^k\,\delta_{{t+k}}",
        rf"r_t=-{beta}\log\tfrac{{\pi_\theta}}{{\pi_{{\mathrm{{ref}}}}}}+[t\text{{"
        r" last}]\cdot\text{score}",
    ]


SPEC = MethodSpec(
    name="ppo",
    title="PPO",
    summary=(
        "PPO samples one completion for each prompt. A critic predicts the reward at every"
        " token, and PPO compares each token with this prediction. It is the second stage of"
        " RLHF."
    ),
    colour="#D55E00",
    config=PPOConfig,
    learns_from="prompts",
    batches=batches,
    loss=loss,
    formula=formula,
    models=("policy", "reference", "reward model", "critic"),
    estimated=True,
    attach=attach,
    hooks=(*OWN_ESTIMATES, SURROGATE, REWARD),
)
