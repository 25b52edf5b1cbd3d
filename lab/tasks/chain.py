"""The task `chain`: evaluate a calculator chain from left to right modulo 100, with or without
thinking first.

`7+5*3-4*2=` is ((7+5)·3−4)·2 mod 100 = 64. A completion is the answer alone, `64`, or a scratchpad
of running results and then the answer, `<think>7+5=12;12*3=36;36-4=32;32*2=64</think>64`. Each step
needs the one before, so a small model that answers at once must guess what a model that writes its
steps can compute.
"""

import hashlib
import random
import re
from collections.abc import Sequence
from pathlib import Path

from lab.errors import LabError
from lab.tasks.base import Problem, Reward, Score

MODULUS = 100
OPERATION_RANGE = (3, 6)
"""Fewest and most operations of a chain."""
MAX_OPERATIONS = 12
"""Operations of a chain that a user may pose."""
HELD_OUT_SHARE = 1 / 16
LENGTH_UNIT = 64
"""Characters of a completion that the `length` reward counts as 1."""
GRADED_WEIGHTS = {"format": 0.1, "closeness": 0.8, "length": 0.1}
"""By part of the `graded` reward, its weight."""
NEAR_MISS = 0.5
"""Closeness of a wrong answer next to the right one; the right answer has 1."""

_PROMPT = re.compile(r"[0-9](?:[-+*][0-9])+=")
_COMPLETION = re.compile(r"(<think>(?!\s*</think>)[^<>]*</think>)?(0|[1-9][0-9]?)")
_STEP = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}


def running_results(prompt: str) -> list[str]:
    """Returns the running results of a prompt: for `7+5*3=` the list `7+5=12`, `12*3=36`."""
    if not _PROMPT.fullmatch(prompt):
        raise LabError(
            f"'{prompt}' is no chain. A chain is digits joined by + - *, then =, such as 7+5*3-4=."
        )
    value, results = int(prompt[0]), []
    for operator, digit in zip(prompt[1:-1:2], prompt[2:-1:2]):
        result = _STEP[operator](value, int(digit)) % MODULUS
        results.append(f"{value}{operator}{digit}={result}")
        value = result
    return results


def gold_answer(prompt: str) -> str:
    """Returns the gold answer of a prompt, without leading zeros: for `7+5*3-4*2=` the text `64`."""
    return running_results(prompt)[-1].rpartition("=")[2]


def scratchpad(prompt: str) -> str:
    """Returns the gold completion that thinks first."""
    return f"<think>{';'.join(running_results(prompt))}</think>{gold_answer(prompt)}"


def is_held_out(prompt: str) -> bool:
    """Returns whether a prompt belongs to the sixteenth of all prompts, chosen by hash, on which
    nothing is ever trained.
    """
    return hashlib.sha256(prompt.encode()).digest()[0] < 256 * HELD_OUT_SHARE


def sample_problem(random_state: random.Random, held_out: bool) -> Problem:
    """Returns a random problem of 3 to 6 operations from one side of the split."""
    while True:
        count = random_state.randint(*OPERATION_RANGE)
        digits = random_state.choices("0123456789", k=count + 1)
        prompt = digits[0] + "".join(random_state.choice("+-*") + d for d in digits[1:]) + "="
        if is_held_out(prompt) == held_out:
            return Problem(prompt, gold_answer(prompt))


def graded_parts(problem: Problem, completion: str) -> dict[str, float]:
    """Returns the parts of the `graded` reward, each from 0 to 1: `format` is 1 for a well-formed
    completion; `closeness` is 1 for the right answer and falls from 0.5, beside it, to 0 at the
    distance of 50, counted around the circle of 100; `length` is 1 minus characters / 64, at least 0.
    All are 0 for a text that is not well-formed.

    Anchor: for the answer 36, the completion 48 has format 1, closeness 0.5·(1 − 12/50) = 0.38 and
    length 1 − 2/64 = 0.96875.
    """
    match = _COMPLETION.fullmatch(completion)
    if match is None:
        return dict.fromkeys(GRADED_WEIGHTS, 0.0)
    steps = abs(int(match[2]) - int(problem.answer))
    distance = min(steps, MODULUS - steps)
    closeness = NEAR_MISS * (1 - distance / (MODULUS / 2)) if distance else 1.0
    return {
        "format": 1.0,
        "closeness": closeness,
        "length": max(0.0, 1 - len(completion) / LENGTH_UNIT),
    }


class ChainTask:
    """Chains with gold answers, so that every claim about a method can be checked."""

    name = "chain"
    description = "Evaluate a chain such as 7+5*3-4*2= from left to right modulo 100."
    pairs_path: Path = Path(__file__).parents[1] / "assets" / "preference_pairs" / "pairs.jsonl"
    reward_help = {
        "answer": (
            "1 for the right answer, 0 for anything else: the rule-based reward of the article."
        ),
        "format": "1 for a well-formed completion, right or wrong.",
        "length": (
            f"Characters of the completion / {LENGTH_UNIT}, at most 1, right or wrong: made to be"
            " hacked."
        ),
        "graded": (
            "0.1·format + 0.8·closeness + 0.1·length. Closeness is 1 for the right answer and at most"
            " 0.5 for a wrong one; length is larger for a shorter text. 0 for a text that is not"
            " well-formed."
        ),
        "constant": "1 for everything: every group is dead.",
        "random": "0 or 1 by a seeded coin: the control arm of arXiv 2506.10947.",
    }

    def __init__(self) -> None:
        self.rewards: dict[str, Reward] = {
            "answer": self._answer,
            "format": self._format,
            "length": self._length,
            "graded": self._graded,
            "constant": self._constant,
            "random": self._random,
        }

    def train_problems(self, n: int, seed: int, step: int) -> list[Problem]:
        """Returns `n` problems to train on; the same arguments give the same problems."""
        state = random.Random(f"chain/{seed}/{step}")
        return [sample_problem(state, held_out=False) for _ in range(n)]

    def held_out(self, n: int) -> list[Problem]:
        """Returns the first `n` problems of the fixed held-out list, all different."""
        state = random.Random("chain/held out")
        problems: dict[str, Problem] = {}
        while len(problems) < n:
            problem = sample_problem(state, held_out=True)
            problems.setdefault(problem.prompt, problem)
        return list(problems.values())

    def problem(self, prompt: str) -> Problem:
        """Returns the chain that someone typed; spaces and a missing = are forgiven. Raises
        `LabError`, which says what a chain consists of, for any other text.
        """
        text = "".join(prompt.split()).removesuffix("=")
        odd = sorted(set(text) - set("0123456789+-*"))
        if odd:
            raise LabError(
                f"A chain cannot hold {' '.join(odd)[:40]}. It takes the digits 0 to 9 and the"
                " signs + - *, such as 7+5*3-4=."
            )
        if len(text) > 2 * MAX_OPERATIONS + 1:
            raise LabError(
                f"This chain has {len(text)} characters; at most {2 * MAX_OPERATIONS + 1} are taken. The"
                " model has learnt 3 to 6 operations."
            )
        return Problem(f"{text}=", gold_answer(f"{text}="))

    def remark(self, problem: Problem) -> str:
        """Returns a warning for a chain shorter or longer than those that the models have learnt;
        otherwise empty.
        """
        count, (fewest, most) = len(problem.prompt) // 2 - 1, OPERATION_RANGE
        if fewest <= count <= most:
            return ""
        return (
            f"The model has learnt chains of {fewest} to {most} operations; this one has"
            f" {count}, so its answers may be wrong."
        )

    def score(self, problem: Problem, completion: str) -> Score:
        """Returns 1 for an exact match: the whole completion is an answer, or a closed scratchpad
        that is not blank and then an answer. Anything else scores 0.
        """
        match = _COMPLETION.fullmatch(completion)
        return Score(
            float(match is not None and match[2] == problem.answer),
            float(match is not None),
            completion.startswith("<think>"),
        )

    def task_metrics(
        self, problems: Sequence[Problem], completions: Sequence[str]
    ) -> dict[str, float]:
        """Returns the share of completions that think first."""
        scores = [self.score(p, c) for p, c in zip(problems, completions, strict=True)]
        return {"scratchpad_share": sum(bool(s.scratchpad) for s in scores) / len(completions)}

    def _answer(self, problems: list[Problem], completions: list[str], *, seed: int) -> list[float]:
        scores = [self.score(p, c) for p, c in zip(problems, completions, strict=True)]
        return [float(s.answer or 0.0) for s in scores]

    def _format(self, problems: list[Problem], completions: list[str], *, seed: int) -> list[float]:
        return [self.score(p, c).format for p, c in zip(problems, completions, strict=True)]

    def _length(self, problems: list[Problem], completions: list[str], *, seed: int) -> list[float]:
        return [min(len(c) / LENGTH_UNIT, 1.0) for c in completions]

    def _graded(self, problems: list[Problem], completions: list[str], *, seed: int) -> list[float]:
        return [
            sum(GRADED_WEIGHTS[name] * part for name, part in graded_parts(p, c).items())
            for p, c in zip(problems, completions, strict=True)
        ]

    def _constant(
        self, problems: list[Problem], completions: list[str], *, seed: int
    ) -> list[float]:
        return [1.0] * len(completions)

    def _random(self, problems: list[Problem], completions: list[str], *, seed: int) -> list[float]:
        state = random.Random(f"coin/{seed}")
        return [float(state.random() < 0.5) for _ in completions]
