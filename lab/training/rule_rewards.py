"""Scores the completions of a rollout by the rules that a config names: one, or a weighted sum."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from lab.config.hooks import REWARD
from lab.config.reward_rules import is_combined, reward_rules, reward_weights, rule_label
from lab.config.run_config import OnlineConfig
from lab.distributed import collectives
from lab.engine.completions import Completions
from lab.errors import LabError
from lab.tasks.base import Problem
from lab.tasks.registry import compute_rewards, rule_of
from lab.training.own_functions import own_reward

if TYPE_CHECKING:
    from lab.training.state import TrainState


def rule_rewards(
    run: "TrainState[OnlineConfig]", rules: str, owners: list[Problem], completions: Completions
) -> tuple[torch.Tensor, dict[str, float], dict[str, torch.Tensor] | None]:
    """Return the rewards (N,) by the `rules`, the metrics that rewards of the user's own log, and
    each term (N,) of a weighted sum as rewards/NAME (None without a sum).

    A term that is NaN does not count; without any the reward is NaN. Raises `LabError` for a sum
    beside a reward of the notebook.
    """
    config = run.config
    combined = is_combined(rules, config.reward_weights)
    if combined and REWARD.name in run.own:
        raise LabError(
            f"reward is '{rules}' with the weights '{config.reward_weights}', but the run has a reward"
            " function of the notebook, which takes their place. Leave one of them out."
        )
    functions = [rule_of(run.task, rule) for rule in reward_rules(rules)]
    logged: dict[str, float] = {}
    columns = []
    for function in functions:
        columns.append(_rewards_of_one(run, function, owners, completions))
        logged |= getattr(function, "metrics", {})
    if not combined:
        return columns[0], logged, None
    weights = torch.tensor(reward_weights(rules, config.reward_weights), device=run.device)
    table = torch.stack(columns, 1)
    total = (table * weights).nansum(1).masked_fill(table.isnan().all(1), float("nan"))
    labels = (f"rewards/{rule_label(rule)}" for rule in reward_rules(rules))
    return total, logged, dict(zip(labels, columns))


def _rewards_of_one(
    run: "TrainState[OnlineConfig]",
    reward: Callable[..., list[float]],
    owners: list[Problem],
    completions: Completions,
) -> torch.Tensor:
    """The rewards (N,) that a rule of the task, or the run's own reward, gives the completions of
    `owners`.
    """
    if REWARD.name in run.own:
        own = [own_reward(run, t, p.answer) for p, t in zip(owners, completions.texts, strict=True)]
        return torch.tensor(own, dtype=torch.float32, device=run.device)
    rewards = compute_rewards(
        reward,
        owners,
        completions.texts,
        seed=run.config.seed * 1_000_003 + run.step + 1 + 7_919 * collectives.rank(),
        ids=completions.completion_ids,
        step=run.step,
    )
    return torch.tensor(rewards, dtype=torch.float32, device=run.device)
