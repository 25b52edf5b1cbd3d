"""Finds tasks and rewards by the names that a run's config gives; needs no model library."""

import copy
import math
from collections.abc import Sequence

from lab.config.reward_rules import code_rules, reward_rules, rule_label
from lab.config.run_config import OfflineConfig, OnlineConfig, RunConfig
from lab.data.readers import require_source
from lab.errors import LabError, unknown
from lab.tasks import reasoning_gym
from lab.tasks.base import Problem, Reward, Score, Task
from lab.tasks.chain import ChainTask
from lab.tasks.prompt_file import PROMPT_ROW_FORMAT, PromptTask
from lab.tasks.rewards.user_reward import UserReward
from lab.tasks.sentiment import SentimentTask
from lab.tasks.user_data import DataTask

TASKS: dict[str, Task] = {"chain": ChainTask(), "sentiment": SentimentTask()}
"""The tasks that need no data of the user and no further package to be listed."""


def load_task(name: str, truth: str = "answer") -> Task:
    """Returns the task with a name: one of `TASKS`, gym:NAME, or the prompts of a file or of the
    hub. Raises `LabError` for a name or a file that does not exist.

    `truth` is the rule by which a completion of the user's prompts is right: "math" compares values
    instead of texts.
    """
    if name in TASKS:
        return TASKS[name]
    if name.startswith(reasoning_gym.PREFIX):
        return reasoning_gym.GymTask(name.removeprefix(reasoning_gym.PREFIX))
    return PromptTask(name, truth)


def task_of(config: RunConfig) -> Task:
    """Returns the task of a run, with the user's own reward among its rewards when the config names
    one; no code of the user is imported yet.

    Where the config names no task, its data is the task.
    """
    if not config.task:
        assert isinstance(config, OfflineConfig)  # The config of any other method names a task.
        return DataTask(config)
    reward = getattr(config, "reward", "")
    task = load_task(config.task, "math" if "math" in reward_rules(reward) else reward)
    for rule in code_rules(reward):
        assert isinstance(config, OnlineConfig)
        task = with_reward(task, rule, UserReward(rule, config.reward_seconds, config.steps))
    return task


def check_task(config: RunConfig) -> None:
    """Raises `LabError` for a task, a reward or a module that does not exist, before a run of this
    config makes any file.
    """
    if isinstance(config, OfflineConfig) and config.data:
        require_source(config.data)
    task = task_of(config)
    if isinstance(task, DataTask):
        return  # The training reads the data once.
    task.held_out(1)
    if isinstance(config, OnlineConfig) and config.reward_from in ("gold", ""):
        for name in reward_rules(config.reward):
            rule = rule_of(task, name)
            if isinstance(rule, UserReward):
                rule.find()
    if config.model == "embedded" and not isinstance(task, ChainTask | PromptTask):
        raise LabError(
            "The embedded model knows the 20 tokens of chains and cannot read the task"
            f" {task.name}. Give a language model: --model."
        )
    if isinstance(config, OfflineConfig) and not config.data and task.pairs_path is None:
        raise LabError(
            f"The task {task.name} ships no pairs. Sample some from your model: python -m lab"
            f" build-pairs --task {task.name} --model {config.model}; then give them: --data FILE."
        )


def rule_of(task: Task, name: str) -> Reward:
    """Returns the reward with a name in a task; "answer" is the ground truth, the task's first
    reward. Raises `LabError` with the task's own names for any other name.
    """
    if not task.rewards:
        raise LabError(
            f"Nothing in {task.name} says what a good completion is. Give it a column 'answer' or"
            " 'solution', or a reward of your own: --reward module:function."
        )
    if name == "answer":
        return next(iter(task.rewards.values()))
    if name not in task.rewards:
        raise unknown(f"reward of the task {task.name}", name, list(task.rewards))
    return task.rewards[name]


def with_reward(task: Task, name: str, reward: UserReward) -> Task:
    """Returns a copy of the task with a reward of the user among its rewards; `extra_metrics` then
    has that reward's mean over held-out completions.
    """
    extended = copy.copy(task)
    extended.rewards = {**task.rewards, name: reward}
    return extended


def compute_rewards(
    reward: Reward,
    problems: Sequence[Problem],
    completions: Sequence[str],
    *,
    seed: int,
    ids: Sequence[list[int]],
    step: int = 0,
) -> list[float]:
    """Returns the reward of each completion. Only a reward of the user gets the tokens of the
    completions (`ids`) and the number of updates made so far (`step`).
    """
    if isinstance(reward, UserReward):
        return reward(problems, completions, seed=seed, ids=ids, step=step)
    return reward(problems, completions, seed=seed)


def extra_metrics(
    task: Task,
    problems: Sequence[Problem],
    completions: Sequence[str],
    ids: Sequence[list[int]],
    step: int = 0,
) -> dict[str, float]:
    """Returns the task's metrics, and as `reward` the mean of the user's reward, if the task has
    one, over the completions to which it gives a reward; of several each as `reward_NAME`.
    """
    metrics = task.task_metrics(problems, completions)
    of_user = [r for r in task.rewards.values() if isinstance(r, UserReward)]
    for user_reward in of_user:
        rewards = compute_rewards(user_reward, problems, completions, seed=0, ids=ids, step=step)
        known = [reward for reward in rewards if not math.isnan(reward)]
        name = f"reward_{rule_label(user_reward.name)}" if len(of_user) > 1 else "reward"
        metrics = metrics | ({name: sum(known) / len(known)} if known else {})
    return metrics


def catalogue() -> list[tuple[str, str]]:
    """Returns every task by name with one line on it, each followed by its rewards as --reward
    NAME, and how the user's own rewards are named.
    """
    lines = []
    for task in TASKS.values():
        lines += [(task.name, task.description), *_reward_lines(task)]
    lines += [
        ("FILE or OWNER/NAME", f"Prompts of your own: {PROMPT_ROW_FORMAT}."),
        *_reward_lines(PromptTask),
        (
            "  --reward MODULE:FUNCTION",
            (
                "A reward of your own, for any task, as TRL calls it: f(prompts=…, completions=…,"
                " completion_ids=…, **columns) -> list of floats; messages where the data has"
                " conversations, async or not."
            ),
        ),
    ]
    try:
        lines += [
            (reasoning_gym.PREFIX + name, reasoning_gym.describe(name))
            for name in reasoning_gym.task_names()
        ]
        return lines + _reward_lines(reasoning_gym.GymTask)
    except LabError as error:
        return [*lines, (f"{reasoning_gym.PREFIX}NAME", str(error))]


def _reward_lines(
    task: Task | type[PromptTask] | type[reasoning_gym.GymTask],
) -> list[tuple[str, str]]:
    return [(f"  --reward {name}", text) for name, text in task.reward_help.items()]


__all__ = [
    "TASKS",
    "DataTask",
    "Problem",
    "Score",
    "Task",
    "catalogue",
    "check_task",
    "extra_metrics",
    "load_task",
    "rule_of",
    "compute_rewards",
    "task_of",
    "with_reward",
]
