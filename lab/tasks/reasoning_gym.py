"""The tasks `gym:NAME` of the package reasoning-gym, which makes problems without end and scores
their answers with verifiers of its own.

The generator's settings may follow: `gym:chain_sum:max_terms=2,max_digits=1`. The lab adds the
setting `truth`, which says how an answer is compared with the gold answer:

- `truth=verifier` (default) asks the task's verifier. It wants the bare answer, and gives part of
  the points to a longer text that contains the answer.
- `truth=math` lets math-verify compare the values. A restated problem passes, as it has the value.
- `truth=number` compares the last number that is written out; an uncomputed sum does not pass.

Some verifiers run the answer as Python. Text of a model is never run here: see `EVAL_TASKS`,
`EXCLUDED_TASKS` and `lab.tasks.rewards.verifier_safety`.
"""

import ast
import contextlib
import hashlib
import io
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import fields
from difflib import get_close_matches
from functools import cache
from typing import Any

from lab.errors import LabError, unknown
from lab.tasks.base import Problem, Reward, Score
from lab.tasks.rewards.answer_matching import (
    ANSWER_CLOSE,
    ANSWER_OPEN,
    extract_answer,
    has_answer_tag,
    same_number,
    same_value,
)
from lab.tasks.rewards.verifier_safety import is_safe_answer

PREFIX = "gym:"
INSTRUCTION = f"Write the final answer between {ANSWER_OPEN} and {ANSWER_CLOSE}."
EXCLUDED_TASKS = (
    "composite",  # A mixture, whose settings have to name other tasks.
    "simple_integration",  # This verifier and the next two run the answer.
    "intermediate_integration",
    "polynomial_multiplication",
    "game_of_life_halting",  # The verifier accepts any text where the answer is True.
    "codeio",  # Runs programs that write files and that print something else at every call.
)
EVAL_TASKS = ("binary_matrix", "n_queens", "spiral_matrix", "string_insertion")
"""Tasks whose verifiers call `eval`; `library` puts `ast.literal_eval` in its place."""
TRUTHS = ("verifier", "math", "number")
MIN_BLOCK_SIZE = 16  # Problems that are generated at a time, at least.
MAX_BLOCKS = 40  # Blocks in a row without a new problem: then the generator is exhausted.


@cache
def library() -> Any:
    """Returns the package, imported once; raises `LabError` with the command that installs it when
    it is missing.
    """
    try:
        import reasoning_gym
    except ImportError:
        raise LabError(
            "Tasks gym:NAME need the package reasoning-gym, which is missing. Install it: python -m"
            " pip install reasoning-gym"
        ) from None
    for name in EVAL_TASKS:
        module = sys.modules[reasoning_gym.factory.DATASETS[name][0].__module__]
        setattr(module, "eval", ast.literal_eval)  # noqa: B010  The module defines no such name.
    return reasoning_gym


def task_names() -> list[str]:
    """Returns every NAME of gym:NAME, sorted."""
    return sorted(set(library().factory.DATASETS) - set(EXCLUDED_TASKS))


def describe(name: str) -> str:
    """Returns a line on a task: the package's documentation, or the task's field without it."""
    kind = library().factory.DATASETS[name][0]
    return next(
        iter((kind.__doc__ or "").strip().splitlines()),
        f"A task of {kind.__module__.partition('.')[2].partition('.')[0] or name}.",
    )


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seeds Python's global generator, which some tasks use, and restores its state afterwards."""
    before = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)


def _setting(text: str) -> tuple[str, Any]:
    """`max_terms=2` as name and value: a number, True, False, or the text itself."""
    name, _, value = text.partition("=")
    try:
        return name, ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return name, value


def is_held_out(prompt: str) -> bool:
    """Returns whether a prompt belongs to the half of all prompts, chosen by hash, on which nothing
    is ever trained.
    """
    return hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).digest()[0] < 128


def _unknown_task(name: str) -> LabError:
    similar = ", ".join(
        PREFIX + other for other in get_close_matches(name, task_names(), n=5, cutoff=0.4)
    )
    return LabError(
        f"Unknown task '{PREFIX}{name}'. {f'Near it: {similar}. ' if similar else ''}`python -m"
        f" lab tasks` lists all {len(task_names())}."
    )


class GymTask:
    """Problems of one generator. Training and held-out problems come from different seeds, and
    never share a prompt.
    """

    pairs_path = None
    reward_help = {
        "answer": (
            "What the task's own verifier gives the answer (the text in <answer> tags, or the"
            " whole), from 0 to 1; many give part of it for a near miss. With truth=math 1 if it"
            " has the value of the gold one, with truth=number if its last number is the gold one,"
            " else 0."
        ),
        "math": (
            "1 if it has the value of the gold answer, as math-verify reads both: 0.5 is 1/2, and a"
            " sum said again is right."
        ),
        "format": "1 for exactly one <answer>…</answer> with text in it, right or wrong.",
        "random": "0 or 1 by coin flip, whatever the completion says: the control.",
    }

    def __init__(self, text: str) -> None:
        name, _, settings = text.partition(":")
        if name not in task_names():
            raise _unknown_task(name)
        self.name, self._generator = PREFIX + text, name
        self._settings = dict(map(_setting, filter(None, settings.split(","))))
        self._truth = self._settings.pop("truth", TRUTHS[0])
        if self._truth not in TRUTHS:
            raise unknown(f"truth of {self.name}", str(self._truth), list(TRUTHS))
        self._held_out: dict[str, Problem] = {}
        self._num_blocks = self._blocks_without_new = 0
        self.description = describe(name)
        try:
            self._verifier = self._dataset(1, 0)
        except (AssertionError, TypeError, ValueError) as error:
            known = ", ".join(
                f.name
                for f in fields(library().factory.DATASETS[name][1])
                if f.name not in ("size", "seed")
            )
            raise LabError(f"{self.name}: {error}. Settings of {name}: {known}.") from None
        self.rewards: dict[str, Reward] = {
            "answer": self._answer,
            "math": self._math,
            "format": self._format,
            "random": self._random,
        }

    def _dataset(self, size: int, seed: int) -> Any:
        with contextlib.redirect_stdout(io.StringIO()):  # Some generators print their progress.
            return library().create_dataset(self._generator, size=size, seed=seed, **self._settings)

    def _generate(self, size: int, stream: str) -> list[Problem]:
        """`size` problems that depend on `stream` alone. An item's seed is its position plus the
        data set's seed, so the seeds of the data sets lie far apart.
        """
        seed = (
            int.from_bytes(hashlib.sha256(f"{self.name}/{stream}".encode()).digest()[:4], "big")
            >> 1
        )
        problems: list[Problem] = []
        with _seeded(seed), contextlib.redirect_stdout(io.StringIO()):
            dataset = self._dataset(size, seed)
            for position in range(size):
                entry = dataset[position]
                prompt = f"{entry['question']}\n{INSTRUCTION}"
                problems.append(
                    Problem(
                        prompt,
                        str(entry["answer"] or ""),
                        {"entry": entry},
                        ({"role": "user", "content": prompt},),
                    )
                )
        return problems

    def train_problems(self, n: int, seed: int, step: int) -> list[Problem]:
        """Returns `n` problems to train on; the same arguments give the same problems."""
        problems: list[Problem] = []
        for block in range(MAX_BLOCKS):
            problems += [
                p
                for p in self._generate(max(MIN_BLOCK_SIZE, n), f"train/{seed}/{step}/{block}")
                if not is_held_out(p.prompt)
            ]
            if len(problems) >= n:
                return problems[:n]
        raise LabError(
            f"{self.name} makes too few different problems: {len(problems)} of {n} are not held out."
            " Lower batch_size or take another task."
        )

    def held_out(self, n: int) -> list[Problem]:
        """Returns the first `n` problems of a fixed list, all different; fewer where the generator
        is exhausted.
        """
        while len(self._held_out) < n and self._blocks_without_new < MAX_BLOCKS:
            before = len(self._held_out)
            for problem in self._generate(MIN_BLOCK_SIZE, f"held out/{self._num_blocks}"):
                if is_held_out(problem.prompt):
                    self._held_out.setdefault(problem.prompt, problem)
            self._num_blocks += 1
            if len(self._held_out) > before:
                self._blocks_without_new = 0
            else:
                self._blocks_without_new += 1
        return list(self._held_out.values())[:n]

    def problem(self, prompt: str) -> Problem:
        """Returns the problem with this prompt among the first held-out problems, as the verifier
        knows no others; raises `LabError` for any other prompt.
        """
        for problem in self.held_out(MIN_BLOCK_SIZE):
            if problem.prompt == prompt:
                return problem
        raise LabError(
            f"{self.name} makes its own problems, and its verifier knows no others. Leave the"
            " prompt out, or give one of those on the page."
        )

    def remark(self, problem: Problem) -> str:
        """Returns an empty text: every problem is one of the task's."""
        return ""

    def score(self, problem: Problem, completion: str) -> Score:
        """Returns the score: right with all points, well-formed with exactly one
        <answer>…</answer>.
        """
        return Score(
            float(self._points(problem, completion) >= 1), float(has_answer_tag(completion))
        )

    def task_metrics(
        self, problems: Sequence[Problem], completions: Sequence[str]
    ) -> dict[str, float]:
        """Returns the mean of the points, partial points included."""
        return {
            "reward": (
                sum(self._answer(list(problems), list(completions), seed=0)) / len(completions)
            )
        }

    def _points(self, problem: Problem, completion: str) -> float:
        """The points by the task's truth, from 0 to 1; 0 for an answer that the verifier must not
        see, or on which it breaks.
        """
        if self._truth == "math":
            return float(same_value(problem.answer, completion))
        if self._truth == "number":
            return float(same_number(problem.answer, completion))
        answer = extract_answer(completion)
        if not is_safe_answer(self._generator, answer):
            return 0.0
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                return float(self._verifier.score_answer(answer, problem.columns["entry"]))
        # A hundred verifiers read what a model wrote. An answer on which one of them breaks is a
        # wrong answer, not the end of a run.
        except Exception:
            return 0.0

    def _answer(self, problems: list[Problem], completions: list[str], *, seed: int) -> list[float]:
        return [self._points(p, c) for p, c in zip(problems, completions, strict=True)]

    def _math(self, problems: list[Problem], completions: list[str], *, seed: int) -> list[float]:
        return [float(same_value(p.answer, c)) for p, c in zip(problems, completions, strict=True)]

    def _format(self, problems: list[Problem], completions: list[str], *, seed: int) -> list[float]:
        return [float(has_answer_tag(c)) for c in completions]

    def _random(self, problems: list[Problem], completions: list[str], *, seed: int) -> list[float]:
        coin = random.Random(f"random/{seed}")
        return [float(coin.random() < 0.5) for _ in completions]
