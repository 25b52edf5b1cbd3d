"""What every task provides."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Problem:
    """A prompt and its gold answer."""

    prompt: str
    answer: str


@dataclass(frozen=True)
class Score:
    """What the ground truth says of a completion: `answer` and `format` are 0 or 1, `scratchpad` says whether it thinks first."""

    answer: float
    format: float
    scratchpad: bool


class Task(Protocol):
    """Prompts to train on, prompts that are held out, and rewards by name.

    `train_problems` is a pure function of its arguments and never returns a held-out prompt; `held_out` returns the first
    n of a fixed list; `problem` is the one that a prompt of the user's own poses, or a `LabError` that names what is
    accepted, and `remark` says what sets it apart from those that were learnt. A reward takes problems and completions
    of equal number and returns one float each.
    """

    name: str
    description: str
    pairs_path: Path
    rewards: dict[str, Callable[..., list[float]]]
    reward_help: dict[str, str]

    def train_problems(self, n: int, seed: int, step: int) -> list[Problem]: ...

    def held_out(self, n: int) -> list[Problem]: ...

    def problem(self, prompt: str) -> Problem: ...

    def remark(self, problem: Problem) -> str: ...

    def score(self, problem: Problem, completion: str) -> Score: ...
