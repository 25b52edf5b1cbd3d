"""The rollout of PPO: sampled completions, and for each of their tokens its reward, value, advantage
and return.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from lab.algorithms.advantages import (
    adapt_kl_factor,
    explained_variance,
    gae,
    impute_missing_rewards,
    kl_shaped_rewards,
    whiten,
)
from lab.config.hooks import Hook
from lab.data.batching import TokenBatch
from lab.distributed import collectives
from lab.engine.token_logprobs import token_statistics
from lab.engine.truncation import truncation_of
from lab.training.evaluation import EVAL_BATCH_ROWS
from lab.training.method_state import PPOState
from lab.training.methods.online import fresh_rollout
from lab.training.micro_batches import split_evenly
from lab.training.own_functions import own_tensor
from lab.training.rollout import PPORollout, Rollout

if TYPE_CHECKING:
    from lab.training.methods.ppo import PPOConfig
    from lab.training.state import TrainState


@dataclass(frozen=True)
class _TokenScores:
    """Per token (N, T): log-probabilities of policy and reference, and the critic's values; per
    completion (N,): `kl` of the policy from the reference, in nats.
    """

    logps: torch.Tensor
    reference_logps: torch.Tensor
    values: torch.Tensor
    kl: torch.Tensor


@torch.no_grad()
def collect_rollout(
    run: "TrainState", config: "PPOConfig", own: tuple[Hook, Hook, Hook]
) -> PPORollout:
    """Sample a rollout from the current policy, and compute what PPO learns from it: KL-shaped
    rewards, values, whitened advantages and returns of its tokens. `own` are the places of the run's
    own rewards of tokens, estimate of advantages and whitening.
    """
    own_rewards, own_gae, own_whitening = own
    state = PPOState.of(run)
    sampled = fresh_rollout(run, group_size=1)
    mask = sampled.completion_mask
    with run.timer.phase("scoring"):
        scored = _score_tokens(run, config, sampled)
    beta = config.beta * state.kl_factor
    scores = collectives.local_shard(
        impute_missing_rewards(collectives.all_gather(sampled.rewards)), sampled.rewards
    )
    inputs = (scores, scored.logps, scored.reference_logps, mask)
    rewards = kl_shaped_rewards(*inputs, beta=beta)
    if own_rewards.name in run.own:
        rewards = own_tensor(run, own_rewards, (*inputs, beta), rewards)
    advantages, returns = _estimate_advantages(run, config, own_gae, rewards, scored.values, mask)
    whole_mask = collectives.all_gather(mask)
    whitened = collectives.local_shard(
        whiten(collectives.all_gather(advantages), whole_mask), advantages
    )
    if own_whitening.name in run.own:
        whitened = own_tensor(run, own_whitening, (advantages, mask), whitened)
    variance_share = explained_variance(
        collectives.all_gather(scored.values), collectives.all_gather(returns), whole_mask
    )
    if config.kl_target:
        state.kl_factor = adapt_kl_factor(
            state.kl_factor, collectives.all_gather(scored.kl).mean().item(), config.kl_target
        )
    sampled.extra_metrics = (sampled.extra_metrics or {}) | {
        "kl": scored.kl,
        "kl_coefficient": torch.tensor(beta, device=run.device),
        "value/explained_variance": variance_share,
    }
    return PPORollout(
        **vars(sampled),
        old_logps=scored.logps,
        values=scored.values,
        advantages=whitened,
        returns=returns,
    )


def _estimate_advantages(
    run: "TrainState",
    config: "PPOConfig",
    own_gae: Hook,
    rewards: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Advantages and returns (N, T) by `lab.algorithms.advantages.gae`, or by the run's own estimate,
    which is called once for each completion.
    """
    if own_gae.name not in run.own:
        return gae(rewards, values, mask, gamma=config.gamma, lam=config.gae_lambda)
    advantages = torch.zeros_like(values)
    for row, inside in enumerate(mask.bool()):
        inputs = (rewards[row][inside], values[row][inside], config.gamma, config.gae_lambda)
        advantages[row, inside] = own_tensor(run, own_gae, inputs, inputs[0])
    return advantages, advantages + values.masked_fill(~mask.bool(), 0.0)


def _score_tokens(run: "TrainState", config: "PPOConfig", sampled: Rollout) -> _TokenScores:
    """Pass the completions through policy, reference and critic, in pieces that are no larger than
    an update's.
    """
    state, n = PPOState.of(run), len(sampled.rewards)
    pieces = max(config.minibatches * config.micro_batches, -(-n // EVAL_BATCH_ROWS))
    logps, reference_logps, values, kl = [], [], [], []
    for rows in split_evenly(list(range(n)), pieces):
        tokens = TokenBatch(sampled.ids[rows], sampled.completion_mask[rows])
        statistics = token_statistics(
            run.model,
            tokens,
            temperature=config.temperature,
            reference=state.frozen_reference or run.model,
            truncation=truncation_of(config),
        )
        assert statistics.kl is not None and statistics.reference_logps is not None
        logps.append(statistics.logps)
        reference_logps.append(statistics.reference_logps)
        kl.append(statistics.kl.sum(1))
        values.append(state.critic.values(tokens))
    return _TokenScores(
        torch.cat(logps), torch.cat(reference_logps), torch.cat(values), torch.cat(kl)
    )
