"""`gym:NAME`: a task of the package reasoning-gym, which makes problems without end and scores
their answers with a verifier of its own.

The generator's settings may follow: `gym:chain_sum:max_terms=2,max_digits=1`. Among them
`truth=math` lets math-verify compare the value of a free-form answer with the gold one in place of
the task's verifier, which wants the bare answer and gives part of the points to whatever contains
it; for it the problem itself, said again, has the right value. `truth=number` takes the last number
that is written out, and no undone sum.

Some of its verifiers run the answer as Python. What a model writes is never run here: four of them
get `ast.literal_eval` in place of `eval`, which reads a list and nothing else; two are asked about
plain sums and products alone; three are left out, and one that calls any text right.
"""

import ast
import contextlib
import hashlib
import io
import random
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import fields
from difflib import get_close_matches
from functools import cache
from typing import Any

from lab.errors import LabError, unknown
from lab.tasks.base import Problem, Score
from lab.tasks.rewards.answer_matching import (
    ANSWER_CLOSE,
    ANSWER_OPEN,
    extract_answer,
    has_answer_tag,
    same_number,
    same_value,
)

PREFIX = "gym:"
INSTRUCTION = f"Write the final answer between {ANSWER_OPEN} and {ANSWER_CLOSE}."
EXCLUDED_TASKS = (
    "composite",  # a mixture, which has to be told of which other tasks
    "simple_integration",
    "intermediate_integration",
    "polynomial_multiplication",  # run the answer
    "game_of_life_halting",  # calls any text right where the answer is True
    "codeio",
)  # runs programs that write files and say something else at every call
EVAL_TASKS = ("binary_matrix", "n_queens", "spiral_matrix", "string_insertion")
ARITHMETIC_TASKS = ("countdown", "puzzle24")
_SUM = re.compile(
    r"(?:[0-9\s()+-]|[*/](?![*/]))*"
)  # No power and no name: nothing to run, and nothing that takes long.
_NO_NUMBER = re.compile(
    r"[\s(+-]*(?:nan|inf|infinity)(?![a-z])|.*\d[eE][+-]?\d{4}", re.IGNORECASE | re.DOTALL
)  # Equal to all, or as long as memory.
MAX_ANSWER_CHARACTERS = 10_000  # characters of an answer
TRUTHS = ("verifier", "math", "number")
MIN_BLOCK_SIZE = 16  # problems that are made at a time
MAX_BLOCKS = 40  # times in a row that as many problems as are wanted may hold none that is new


@cache
def library() -> Any:
    """The package, imported once; raise `LabError` with the command that installs it when it is
    missing.
    """
    try:
        import reasoning_gym
    except ImportError:
        raise LabError(
            "Tasks gym:NAME need the package reasoning-gym, which is missing. Install it: python -m"
            " pip install reasoning-gym"
        ) from None
    for name in EVAL_TASKS:
        sys.modules[reasoning_gym.factory.DATASETS[name][0].__module__].eval = ast.literal_eval
    return reasoning_gym


def task_names() -> list[str]:
    """Every NAME of gym:NAME, in order."""
    return sorted(set(library().factory.DATASETS) - set(EXCLUDED_TASKS))


def describe(name: str) -> str:
    """One line on a task, from the package's own documentation, or its field where there is none."""
    kind = library().factory.DATASETS[name][0]
    return next(
        iter((kind.__doc__ or "").strip().splitlines()),
        f"A task of {kind.__module__.partition('.')[2].partition('.')[0] or name}.",
    )


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Within it, Python's own generator, which some tasks draw from, starts at `seed`; afterwards
    it goes on as if nothing had been drawn.
    """
    before = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)


def _setting(text: str) -> tuple[str, Any]:
    """`max_terms=2` as name and value: a number, True, False, or the word itself."""
    name, _, value = text.partition("=")
    try:
        return name, ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return name, value


def is_held_out(prompt: str) -> bool:
    """Whether a prompt belongs to the half of all prompts, chosen by hash, that nothing is ever
    trained on.
    """
    return hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).digest()[0] < 128


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
            near = ", ".join(
                PREFIX + other for other in get_close_matches(name, task_names(), n=5, cutoff=0.4)
            )
            raise LabError(
                f"Unknown task '{PREFIX}{name}'. {f'Near it: {near}. ' if near else ''}`python -m"
                f" lab tasks` lists all {len(task_names())}."
            )
        self.name, self._generator, self._settings = (
            PREFIX + text,
            name,
            dict(map(_setting, filter(None, settings.split(",")))),
        )
        self._truth = self._settings.pop("truth", TRUTHS[0])
        if self._truth not in TRUTHS:
            raise unknown(f"truth of {self.name}", str(self._truth), list(TRUTHS))
        self._held_out: dict[str, Problem] = {}
        self._blocks = self._idle = 0
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
        self.rewards = {
            "answer": self._answer,
            "math": self._math,
            "format": self._format,
            "random": self._random,
        }

    def _dataset(self, size: int, seed: int) -> Any:
        with contextlib.redirect_stdout(io.StringIO()):  # Some report their progress.
            return library().create_dataset(self._generator, size=size, seed=seed, **self._settings)

    def _made(self, size: int, stream: str) -> list[Problem]:
        """`size` problems that depend on `stream` alone. An item's own seed is its place plus the
        data set's, so those lie far apart.
        """
        seed = (
            int.from_bytes(hashlib.sha256(f"{self.name}/{stream}".encode()).digest()[:4], "big")
            >> 1
        )
        found: list[Problem] = []
        with _seeded(seed), contextlib.redirect_stdout(io.StringIO()):
            made = self._dataset(size, seed)
            for place in range(size):
                entry = made[place]
                prompt = f"{entry['question']}\n{INSTRUCTION}"
                found.append(
                    Problem(
                        prompt,
                        str(entry["answer"] or ""),
                        {"entry": entry},
                        ({"role": "user", "content": prompt},),
                    )
                )
        return found

    def train_problems(self, n: int, seed: int, step: int) -> list[Problem]:
        """`n` problems to train on; the same arguments give the same problems."""
        found: list[Problem] = []
        for block in range(MAX_BLOCKS):
            found += [
                p
                for p in self._made(max(MIN_BLOCK_SIZE, n), f"train/{seed}/{step}/{block}")
                if not is_held_out(p.prompt)
            ]
            if len(found) >= n:
                return found[:n]
        raise LabError(
            f"{self.name} makes too few different problems: {len(found)} of {n} are not held out."
            " Lower batch_size or take another task."
        )

    def held_out(self, n: int) -> list[Problem]:
        """The first `n` problems of a fixed list, all different, or all that there are."""
        while len(self._held_out) < n and self._idle < MAX_BLOCKS:
            before = len(self._held_out)
            for problem in self._made(MIN_BLOCK_SIZE, f"held out/{self._blocks}"):
                if is_held_out(problem.prompt):
                    self._held_out.setdefault(problem.prompt, problem)
            self._idle, self._blocks = (
                0 if len(self._held_out) > before else self._idle + 1,
                self._blocks + 1,
            )
        return list(self._held_out.values())[:n]

    def problem(self, prompt: str) -> Problem:
        """One of the first held-out problems: the verifier knows no others."""
        for problem in self.held_out(MIN_BLOCK_SIZE):
            if problem.prompt == prompt:
                return problem
        raise LabError(
            f"{self.name} makes its own problems, and its verifier knows no others. Leave the"
            " prompt out, or give one of those on the page."
        )

    def remark(self, problem: Problem) -> str:
        """Nothing: every problem is one of the task's."""
        return ""

    def score(self, problem: Problem, completion: str) -> Score:
        """Right when it is worth all points; well-formed with exactly one <answer>…</answer>."""
        return Score(
            float(self._points(problem, completion) >= 1), float(has_answer_tag(completion))
        )

    def task_metrics(
        self, problems: Sequence[Problem], completions: Sequence[str]
    ) -> dict[str, float]:
        """The mean of the points, parts of them included."""
        return {
            "reward": (
                sum(self._answer(list(problems), list(completions), seed=0)) / len(completions)
            )
        }

    def _points(self, problem: Problem, completion: str) -> float:
        """What the task's truth says; an answer on which the verifier breaks, or which it must not
        see, is worth nothing.
        """
        if self._truth != "verifier":
            return float(
                {"math": same_value, "number": same_number}[self._truth](problem.answer, completion)
            )
        answer = extract_answer(completion)
        if (
            len(answer) > MAX_ANSWER_CHARACTERS
            or _NO_NUMBER.match(answer)
            or self._generator in ARITHMETIC_TASKS
            and not _SUM.fullmatch(answer)
        ):
            return 0.0
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                return float(self._verifier.score_answer(answer, problem.columns["entry"]))
        # A hundred verifiers read what a model wrote: whatever one of them trips over is a wrong
        # answer, not the end of a run.
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
