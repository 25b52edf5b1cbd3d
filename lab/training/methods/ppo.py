"""PPO with a critic: stage 2 of RLHF. Every token has its own reward, expected value and advantage."""

import random
from collections.abc import Iterator

import torch

from lab.algorithms.advantages import (
    adapt_kl_factor,
    explained_variance,
    gae,
    impute_missing_rewards,
    kl_shaped_rewards,
    whiten,
)
from lab.algorithms.policy_losses import ppo_loss, value_loss
from lab.data.batching import TokenBatch
from lab.distributed import collectives
from lab.engine.token_logprobs import token_statistics
from lab.models.fused_weights import fuse_projection_weights
from lab.models.loading import load_base
from lab.training.evaluation import EVAL_BATCH_ROWS
from lab.training.heads import load_trained_reward_model, new_critic
from lab.training.method import Method, MetricTensors
from lab.training.method_state import PPOState
from lab.training.methods.online import (
    GOLD_REWARDS,
    RolloutMicroBatch,
    fresh_rollout,
    micro_batches,
    reduced,
)
from lab.training.micro_batches import split_evenly
from lab.training.rollout import PPORollout, Rollout
from lab.training.state import TrainState


def attach(run: TrainState) -> None:
    """Critic, reference and reward model: on the policy's base, or each with its own copy of the
    weights.
    """
    config, shared = run.config, run.config.layout == "shared"
    reward_model, frozen_reference = None, None
    if config.reward_from not in GOLD_REWARDS:
        reward_model = load_trained_reward_model(
            config.reward_from, config, run.tokenizer, run.device, run.model if shared else None
        )
    critic = new_critic(run.model, config, run.device, shared=shared)
    if not shared:
        frozen_reference = (
            load_base(config.model, run.device, config.quantization)
            .to(run.device)
            .eval()
            .requires_grad_(False)
        )
        fuse_projection_weights(frozen_reference)
    run.method_state = PPOState(
        reward_model=reward_model, critic=critic, frozen_reference=frozen_reference
    )


@torch.no_grad()
def collect_rollout(run: TrainState) -> PPORollout:
    """A rollout of the current policy with what its tokens were worth: KL-shaped rewards, values,
    whitened advantages, returns.
    """
    config, state, sampled = run.config, PPOState.of(run), fresh_rollout(run, group_size=1)
    mask, n = sampled.completion_mask, len(sampled.rewards)
    logps, frozen, values, kl = [], [], [], []
    with run.timer.phase("scoring"):
        for rows in split_evenly(
            list(range(n)), max(config.minibatches * config.micro_batches, -(-n // EVAL_BATCH_ROWS))
        ):  # No pass larger than an update's.
            tokens = TokenBatch(sampled.ids[rows], mask[rows])
            found = token_statistics(
                run.model,
                tokens,
                temperature=config.temperature,
                reference=state.frozen_reference or run.model,
            )
            logps.append(found.logps)
            frozen.append(found.reference_logps)
            kl.append(found.kl.sum(1))
            values.append(state.critic.values(tokens))
        old_logps, old_values, kl_sums = torch.cat(logps), torch.cat(values), torch.cat(kl)
    beta = config.beta * state.kl_factor
    scores = collectives.local_shard(
        impute_missing_rewards(collectives.all_gather(sampled.rewards)), sampled.rewards
    )
    rewards = kl_shaped_rewards(scores, old_logps, torch.cat(frozen), mask, beta=beta)
    advantages, returns = gae(rewards, old_values, mask, gamma=config.gamma, lam=config.lam)
    whole_mask = collectives.all_gather(mask)
    whitened = collectives.local_shard(
        whiten(collectives.all_gather(advantages), whole_mask), advantages
    )
    foreseen = explained_variance(
        collectives.all_gather(old_values), collectives.all_gather(returns), whole_mask
    )
    if config.kl_target:
        state.kl_factor = adapt_kl_factor(
            state.kl_factor, collectives.all_gather(kl_sums).mean().item(), config.kl_target
        )
    sampled.extra_metrics = {
        "kl": kl_sums,
        "kl_coefficient": torch.tensor(beta, device=run.device),
        "value/explained_variance": foreseen,
    }
    return PPORollout(
        **vars(sampled),
        old_logps=old_logps,
        values=old_values,
        advantages=whitened,
        returns=returns,
    )


def minibatch(
    rollout: Rollout, seed: int, sampled_at: int, epoch: int, number: int, count: int
) -> list[int]:
    """Rows of the minibatch `number` of `count` in pass `epoch` over the rollout that was sampled
    for update `sampled_at`: every row once a pass.
    """
    rows = list(range(len(rollout.rewards) * collectives.world_size()))
    random.Random(f"minibatches/{seed}/{sampled_at}/{epoch}").shuffle(rows)
    return sorted(split_evenly(rows, count)[number])


def batches(run: TrainState) -> Iterator[list[RolloutMicroBatch[PPORollout]]]:
    """`epochs` passes of `minibatches` updates over each rollout, then a fresh one from the current
    policy.
    """
    config = run.config
    while True:
        if run.rollout is None or run.rollout.num_updates >= config.epochs * config.minibatches:
            run.rollout = collect_rollout(run)
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
    config, rollout, rows = run.config, part.rollout, part.rows
    mask = part.tokens.completion_mask
    found = token_statistics(run.model, part.tokens, temperature=config.temperature, entropy=True)
    logps = found.logps
    if rollout.num_updates == 1:
        rollout.old_logps[rows] = logps.detach()
    losses, metrics = ppo_loss(
        logps, rollout.old_logps[rows], rollout.advantages[rows], mask, epsilon=config.epsilon
    )
    values = PPOState.of(run).critic.values(part.tokens)
    value_losses, value_metrics = value_loss(
        values,
        rollout.values[rows],
        rollout.returns[rows],
        mask,
        epsilon_value=config.epsilon_value,
    )
    entropy = {"entropy": found.entropy.masked_fill(~mask, float("nan"))}
    scalar = reduced(run, part, losses) + reduced(run, part, value_losses)
    return scalar, metrics | value_metrics | entropy


PPO = Method(batches, loss, attach=attach)
