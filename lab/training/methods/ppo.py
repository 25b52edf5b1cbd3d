"""PPO with a critic: stage 2 of RLHF. Every token has its own reward, expected value and advantage."""

import random
from collections.abc import Iterator

import torch

from lab.algorithms.advantages import (
    adapted_kl_factor,
    explained_variance,
    gae,
    impute_missing_rewards,
    kl_shaped_rewards,
    whiten,
)
from lab.algorithms.losses import ppo, value_loss
from lab.data.batching import Tokens
from lab.distributed import collectives
from lab.engine.token_logprobs import token_statistics
from lab.models.fused_weights import fuse_projection_weights
from lab.models.loading import load_base
from lab.training.evaluation import ROWS
from lab.training.heads import load_trained, new_critic
from lab.training.methods.online import GOLD, Part, fresh_rollout, parts, reduced
from lab.training.rollout import Rollout
from lab.training.state import Method, Metrics, TrainState, cut


def attach(run: TrainState) -> None:
    """Critic, reference and reward model: on the policy's base, or each with its own copy of the
    weights.
    """
    config, shared = run.config, run.config.layout == "shared"
    if config.reward_from not in GOLD:
        run.reward_model = load_trained(
            config.reward_from, config, run.tokenizer, run.device, run.model if shared else None
        )
    run.critic = new_critic(run.model, config, run.device, shared=shared)
    if not shared:
        run.frozen_reference = (
            load_base(config.model, run.device, config.quantization)
            .to(run.device)
            .eval()
            .requires_grad_(False)
        )
        fuse_projection_weights(run.frozen_reference)


@torch.no_grad()
def collect(run: TrainState) -> Rollout:
    """A rollout of the current policy with what its tokens were worth: KL-shaped rewards, values,
    whitened advantages, returns.
    """
    config, rollout = run.config, fresh_rollout(run, group_size=1)
    mask, n = rollout.completion_mask, len(rollout.rewards)
    logps, frozen, values, kl = [], [], [], []
    with run.phase("scoring"):
        for rows in cut(
            list(range(n)), max(config.minibatches * config.micro_batches, -(-n // ROWS))
        ):  # No pass larger than an update's.
            tokens = Tokens(rollout.ids[rows], mask[rows])
            found = token_statistics(
                run.model,
                tokens,
                temperature=config.temperature,
                reference=run.frozen_reference or run.model,
            )
            logps.append(found.logps)
            frozen.append(found.reference_logps)
            kl.append(found.kl.sum(1))
            values.append(run.critic.values(tokens))
        rollout.old_logps, rollout.values, kl = torch.cat(logps), torch.cat(values), torch.cat(kl)
    beta = config.beta * run.kl_factor
    scores = collectives.local_shard(
        impute_missing_rewards(collectives.all_gather(rollout.rewards)), rollout.rewards
    )
    rewards = kl_shaped_rewards(scores, rollout.old_logps, torch.cat(frozen), mask, beta=beta)
    advantages, rollout.returns = gae(
        rewards, rollout.values, mask, gamma=config.gamma, lam=config.lam
    )
    whole = collectives.all_gather(mask)
    rollout.advantages = collectives.local_shard(
        whiten(collectives.all_gather(advantages), whole), advantages
    )
    foreseen = explained_variance(
        collectives.all_gather(rollout.values), collectives.all_gather(rollout.returns), whole
    )
    rollout.facts = {
        "kl": kl,
        "kl_coefficient": torch.tensor(beta, device=run.device),
        "value/explained_variance": foreseen,
    }
    if config.kl_target:
        run.kl_factor = adapted_kl_factor(
            run.kl_factor, collectives.all_gather(kl).mean().item(), config.kl_target
        )
    return rollout


def minibatch(
    rollout: Rollout, seed: int, sampled_at: int, epoch: int, number: int, count: int
) -> list[int]:
    """Rows of the minibatch `number` of `count` in pass `epoch` over the rollout that was sampled
    for update `sampled_at`: every row once a pass.
    """
    rows = list(range(len(rollout.rewards) * collectives.world_size()))
    random.Random(f"minibatches/{seed}/{sampled_at}/{epoch}").shuffle(rows)
    return sorted(cut(rows, count)[number])


def batches(run: TrainState) -> Iterator[list[Part]]:
    """`epochs` passes of `minibatches` updates over each rollout, then a fresh one from the current
    policy.
    """
    config = run.config
    while True:
        if run.rollout is None or run.rollout.uses >= config.epochs * config.minibatches:
            run.rollout = collect(run)
        epoch, number = divmod(run.rollout.uses, config.minibatches)
        sampled_at = run.step + 1 - run.rollout.uses
        run.rollout.uses += 1
        yield parts(
            run, minibatch(run.rollout, config.seed, sampled_at, epoch, number, config.minibatches)
        )


def loss(run: TrainState, part: Part) -> tuple[torch.Tensor, Metrics]:
    """`lab.algorithms.losses.ppo` for the policy plus `lab.algorithms.losses.value_loss` for the
    critic, which share no parameter.

    At the first update on a rollout the old log-probabilities are the current ones, so the ratio is
    exactly 1.
    """
    config, rollout, rows = run.config, part.rollout, part.rows
    mask = part.tokens.completion_mask
    found = token_statistics(run.model, part.tokens, temperature=config.temperature, entropy=True)
    logps = found.logps
    if rollout.uses == 1:
        rollout.old_logps[rows] = logps.detach()
    losses, metrics = ppo(
        logps, rollout.old_logps[rows], rollout.advantages[rows], mask, epsilon=config.epsilon
    )
    values = run.critic.values(part.tokens)
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
