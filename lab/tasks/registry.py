"""Where prompts, gold answers and rewards come from; nothing here needs a model library."""

import copy
import math
from collections.abc import Callable, Sequence

from lab.config.run_config import OfflineConfig, OnlineConfig, RunConfig
from lab.config.user_code import names_code
from lab.data.readers import require_source
from lab.errors import LabError, unknown
from lab.tasks import reasoning_gym
from lab.tasks.base import Problem, Score, Task
from lab.tasks.chain import ChainTask
from lab.tasks.prompt_file import FORMAT, PromptTask
from lab.tasks.rewards.user_reward import UserReward
from lab.tasks.sentiment import SentimentTask
from lab.tasks.user_data import DataTask

TASKS: dict[str, Task] = {"chain": ChainTask(), "sentiment": SentimentTask()}
"""The tasks that are a name and nothing more."""


def named(name: str, truth: str = "answer") -> Task:
    """The task that a name means: one of `TASKS`, gym:NAME, or the prompts of a file or of the hub.
    Raises `LabError` for one that is not there.

    `truth` is the rule by which a completion is right where a task leaves a choice: "math" compares
    values instead of texts.
    """
    if name in TASKS:
        return TASKS[name]
    return (
        reasoning_gym.GymTask(name.removeprefix(reasoning_gym.PREFIX))
        if name.startswith(reasoning_gym.PREFIX)
        else PromptTask(name, truth)
    )


def task_of(config: RunConfig) -> Task:
    """The task of a run, with the user's own reward among its rules when the config names one;
    nothing of the user's is imported yet.

    Where the config names no task, its own data is one.
    """
    if not config.task:
        return DataTask(config)
    rule = getattr(config, "reward", "")
    task = named(config.task, rule)
    return (
        with_reward(task, rule, UserReward(rule, config.reward_seconds, config.steps))
        if names_code(config)
        else task
    )


def check(config: RunConfig) -> None:
    """Raise `LabError` for a task, a rule or a module that a run of this config would miss, before
    anything is made for it.
    """
    if isinstance(config, OfflineConfig) and config.data:
        require_source(config.data)
    task = task_of(config)
    if isinstance(task, DataTask):
        return  # Its data is read once, by the training.
    task.held_out(1)
    if isinstance(config, OnlineConfig) and config.reward_from in ("gold", ""):
        rule = rule_of(task, config.reward)
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


def rule_of(task: Task, name: str) -> Callable[..., list[float]]:
    """The reward that a name means in a task; "answer" is the ground truth, which stands first.
    Raises `LabError` with the task's own names.
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
    """The same task with a reward of the user's own among its rules, as its `own`; `measured` says
    what it gives held-out completions.
    """
    joined = copy.copy(task)
    joined.rewards, joined.own = {**task.rewards, name: reward}, reward
    return joined


def scored(
    reward: Callable[..., list[float]],
    problems: Sequence[Problem],
    completions: Sequence[str],
    *,
    seed: int,
    ids: Sequence[list[int]],
    step: int = 0,
) -> list[float]:
    """What a rule gives each completion. Only a reward of the user's own is told its tokens and the
    updates made so far.
    """
    return reward(
        problems,
        completions,
        seed=seed,
        **({"ids": ids, "step": step} if isinstance(reward, UserReward) else {}),
    )


def measured(
    task: Task,
    problems: Sequence[Problem],
    completions: Sequence[str],
    ids: Sequence[list[int]],
    step: int = 0,
) -> dict[str, float]:
    """The task's facts, and as `reward` the mean of a reward of the user's own over the completions
    to which it gives one, if there is any.
    """
    own = getattr(task, "own", None)
    values = (
        []
        if own is None
        else [
            v
            for v in scored(own, problems, completions, seed=0, ids=ids, step=step)
            if not math.isnan(v)
        ]
    )
    return task.facts(problems, completions) | (
        {"reward": sum(values) / len(values)} if values else {}
    )


def catalogue() -> list[tuple[str, str]]:
    """Every task by name with one line on it, each followed by its rewards as --reward NAME, and
    what stands for the user's own.
    """

    def of(task: type[Task] | Task) -> list[tuple[str, str]]:
        return [(f"  --reward {name}", text) for name, text in task.reward_help.items()]

    found = [line for task in TASKS.values() for line in [(task.name, task.description), *of(task)]]
    found += [
        ("FILE or OWNER/NAME", f"Prompts of your own: {FORMAT}."),
        *of(PromptTask),
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
        return (
            found
            + [
                (reasoning_gym.PREFIX + name, reasoning_gym.describe(name))
                for name in reasoning_gym.names()
            ]
            + of(reasoning_gym.GymTask)
        )
    except LabError as error:
        return [*found, (f"{reasoning_gym.PREFIX}NAME", str(error))]


__all__ = [
    "TASKS",
    "DataTask",
    "Problem",
    "Score",
    "Task",
    "catalogue",
    "check",
    "measured",
    "named",
    "rule_of",
    "scored",
    "task_of",
    "with_reward",
]
