"""What every task provides."""

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class Problem:
    """A prompt and its gold answer, empty where there is none; `columns` is what else is known of
    it and handed to a reward.

    `messages` is the conversation that the prompt stands for, empty for text that a model just goes
    on from; `allow_plain_text` says that the prompt alone will do where the model has no chat template.
    """

    prompt: str
    answer: str = ""
    columns: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    messages: Sequence[dict[str, Any]] = field(default=(), compare=False, repr=False)
    allow_plain_text: bool = field(default=True, compare=False, repr=False)


@dataclass(frozen=True)
class Score:
    """What the ground truth says of a completion: `answer` and `format` are 0 or 1, `scratchpad`
    says whether it thinks first.

    `answer` is None where nothing says what is right, so that only rewards compare completions;
    `scratchpad` in tasks that know none.
    """

    answer: float | None
    format: float
    scratchpad: bool | None = None


class Task(Protocol):
    """Prompts to train on, prompts that are held out, and rewards by name.

    `train_problems` is a pure function of its arguments and never returns a held-out prompt;
    `held_out` returns the first n of a fixed list, all of it when it is shorter; `problem` is the
    one that a prompt of the user's own poses, or a `LabError` that names what is accepted, and
    `remark` says what sets it apart from those that were learnt. A reward takes problems and
    completions of equal number and a seed, and returns one float each; the first of them is the
    ground truth, which the knob `reward` calls "answer" in every task. `task_metrics` are means over
    completions that this task alone can measure, by what follows gold/ in their metric's name.
    `pairs_path` is None for a task that ships no pairs.
    """

    name: str
    description: str
    pairs_path: Path | None
    rewards: dict[str, Callable[..., list[float]]]
    reward_help: dict[str, str]

    def train_problems(self, n: int, seed: int, step: int) -> list[Problem]: ...

    def held_out(self, n: int) -> list[Problem]: ...

    def problem(self, prompt: str) -> Problem: ...

    def remark(self, problem: Problem) -> str: ...

    def score(self, problem: Problem, completion: str) -> Score: ...

    def task_metrics(
        self, problems: Sequence[Problem], completions: Sequence[str]
    ) -> dict[str, float]: ...


def problems_of_step(problems: Sequence[Problem], n: int, seed: int, step: int) -> list[Problem]:
    """The `n` problems of update `step` (the first is 1) from a fixed list: shuffled epochs, one
    after the other, a pure function of its arguments.
    """
    orders: dict[int, list[int]] = {}
    found = []
    for at in range((step - 1) * n, step * n):
        epoch, place = divmod(at, len(problems))
        if epoch not in orders:
            orders[epoch] = list(range(len(problems)))
            random.Random(f"prompts/{seed}/{epoch}").shuffle(orders[epoch])
        found.append(problems[orders[epoch][place]])
    return found


def split_by_hash(
    problems: Sequence[Problem], held_out: int
) -> tuple[list[Problem], list[Problem]]:
    """Problems to train on, in their order, and the held-out ones: those of the `held_out` prompts
    whose SHA-256 is smallest, in the order of it.
    """

    def digest(problem: Problem) -> bytes:
        return hashlib.sha256(problem.prompt.encode("utf-8", "surrogatepass")).digest()

    last = sorted({digest(p) for p in problems})[held_out - 1]
    return [p for p in problems if digest(p) > last], sorted(
        (p for p in problems if digest(p) <= last), key=digest
    )
