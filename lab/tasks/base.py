"""What every task provides: problems, their scores, and rewards by name."""

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

Reward = Callable[..., list[float]]
"""Takes problems and completions of equal number, and a seed by keyword; returns one float each."""


@dataclass(frozen=True)
class Problem:
    """A prompt and its gold answer, which is empty where the task has none.

    `columns` holds the other columns of the data row, which a reward gets. `messages` is the
    conversation that the prompt stands for, empty for text that a model continues.
    `allow_plain_text` says that a model without a chat template may get the prompt as plain text.
    """

    prompt: str
    answer: str = ""
    columns: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    messages: Sequence[dict[str, Any]] = field(default=(), compare=False, repr=False)
    allow_plain_text: bool = field(default=True, compare=False, repr=False)


@dataclass(frozen=True)
class Score:
    """The ground truth about a completion: `answer` (right) and `format` (well-formed) are 0 or 1,
    `scratchpad` says whether the completion thinks first.

    `answer` is None where nothing says which completion is right, so that only rewards compare
    completions. `scratchpad` is None in tasks without scratchpads.
    """

    answer: float | None
    format: float
    scratchpad: bool | None = None


class Task(Protocol):
    """Prompts to train on, held-out prompts, and rewards by name.

    The first of `rewards` is the ground truth, which the setting `reward` calls "answer" in every
    task. `reward_help` has a line on each reward.
    """

    name: str
    description: str
    rewards: dict[str, Reward]
    reward_help: dict[str, str]

    @property
    def pairs_path(self) -> Path | None:
        """The file of preference pairs that the task ships; None where it ships none."""

    def train_problems(self, n: int, seed: int, step: int) -> list[Problem]:
        """Returns `n` problems to train on, as a pure function of the arguments; never a held-out
        prompt.
        """

    def held_out(self, n: int) -> list[Problem]:
        """Returns the first `n` problems of a fixed list, or all of them where it is shorter."""

    def problem(self, prompt: str) -> Problem:
        """Returns the problem that a prompt of the user's own poses; raises `LabError`, which names
        the accepted prompts, for any other prompt.
        """

    def remark(self, problem: Problem) -> str:
        """Returns how a problem differs from those that were learnt; empty when it does not."""

    def score(self, problem: Problem, completion: str) -> Score:
        """Returns the ground truth about a completion."""

    def task_metrics(
        self, problems: Sequence[Problem], completions: Sequence[str]
    ) -> dict[str, float]:
        """Returns means over completions that only this task measures. The keys are what follows
        gold/ in the metric's name.
        """


def problems_of_step(problems: Sequence[Problem], n: int, seed: int, step: int) -> list[Problem]:
    """Returns the `n` problems of update `step` (the first is 1) from a fixed list: shuffled
    epochs, one after the other, as a pure function of the arguments.
    """
    orders: dict[int, list[int]] = {}
    chosen = []
    for i in range((step - 1) * n, step * n):
        epoch, position = divmod(i, len(problems))
        if epoch not in orders:
            orders[epoch] = list(range(len(problems)))
            random.Random(f"prompts/{seed}/{epoch}").shuffle(orders[epoch])
        chosen.append(problems[orders[epoch][position]])
    return chosen


def split_by_hash(
    problems: Sequence[Problem], held_out: int
) -> tuple[list[Problem], list[Problem]]:
    """Returns the problems to train on, in their order, and the held-out problems: those of the
    `held_out` prompts whose SHA-256 is smallest, sorted by it.
    """

    def digest(problem: Problem) -> bytes:
        return hashlib.sha256(problem.prompt.encode("utf-8", "surrogatepass")).digest()

    largest = sorted({digest(p) for p in problems})[held_out - 1]
    train = [p for p in problems if digest(p) > largest]
    return train, sorted((p for p in problems if digest(p) <= largest), key=digest)
