"""Prompts of the user's own: rows with a `prompt`, perhaps an `answer` or a `solution`, and columns
that a reward may read.
"""

import math
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

from lab.data.examples import parse_prompt, plain_text
from lab.data.readers import read_numbered_rows, row_location
from lab.errors import LabError
from lab.tasks.base import Problem, Score, problems_of_step, split_by_hash
from lab.tasks.rewards.answer_matching import (
    extract_answer,
    same_answer,
    same_value,
    text_after_mark,
)

PROMPT_ROW_FORMAT = (
    'rows with a column "prompt", a text or a list of messages, and, where there is a right answer,'
    ' "answer" or "solution"'
)
HELD_OUT_SHARE = 1 / 10
ANSWER_COLUMNS = ("answer", "solution")


def read_problems(source: str) -> list[Problem]:
    """The problems in a data source, in its order; `LabError` names the row that has no prompt, or
    no answer where others have one.
    """
    found = read_numbered_rows(source)
    named = next(
        (column for column in ANSWER_COLUMNS if any(column in row for _, row in found)), None
    )
    return [_problem(row, named, row_location(source, number)) for number, row in found]


def _problem(row: dict[str, Any], named: str | None, where: str) -> Problem:
    if "prompt" not in row:
        raise LabError(
            f"{where} has no 'prompt' (it has: {', '.join(map(str, row)) or 'nothing'}). Expected"
            f" {PROMPT_ROW_FORMAT}."
        )
    prompt, answer = parse_prompt(row, where).prompt, _gold(row.get(named)) if named else ""
    if not plain_text(prompt):
        raise LabError(f"{where}: 'prompt' is empty. Expected {PROMPT_ROW_FORMAT}.")
    if named and not answer:
        raise LabError(
            f"{where} has no '{named}', though other rows have one. Fill it in, or leave the column"
            " out."
        )
    messages = () if isinstance(prompt, str) else prompt  # With its tools.
    return Problem(
        plain_text(prompt),
        answer,
        {column: value for column, value in row.items() if column != "prompt"},
        messages,
        allow_plain_text=not messages,
    )


def _gold(value: Any) -> str:
    """The answer in a cell: a number written out, of a text what stands behind GSM8K's mark; empty
    when there is none.
    """
    if isinstance(value, float | Decimal):
        if not math.isfinite(value):
            return ""
        return str(int(value)) if value == int(value) else f"{Decimal(str(value)):f}"
    return (
        (text_after_mark(value) or value.strip())
        if isinstance(value, str)
        else str(value)
        if isinstance(value, int)
        else ""
    )


class PromptTask:
    """Rows of a data source. A tenth of the prompts, at least one, chosen by hash, is held out.
    `truth` is the rule that says what is right.
    """

    pairs_path = None
    reward_help = {
        "answer": (
            "1 if the completion's answer (the text in <answer> tags, or the whole) is that of the"
            " row, text for text. Where the row's is a number, of GSM8K's rows the one behind ####:"
            " 1 if the last number that the answer writes (or the one behind #### or in \\boxed{})"
            " is equal: 2.0 is 2."
        ),
        "math": "1 if it has the same value, as math-verify reads both: 0.5 is 1/2.",
    }

    def __init__(self, source: str, truth: str = "answer") -> None:
        self.name, self.description = source, f"The prompts of {source}."
        problems = read_problems(source)
        different = len({p.prompt for p in problems})
        if different < 2:
            raise LabError(
                f"{source} has one prompt, but takes at least two: one is held out to measure on."
                " Add prompts."
            )
        self._train, self._held_out = split_by_hash(
            problems, max(1, round(HELD_OUT_SHARE * different))
        )
        self._known = {p.prompt: p for p in problems}
        self._same = _same_value if truth == "math" else _same_answer
        self.rewards = {"answer": self._answer, "math": self._math} if problems[0].answer else {}

    def train_problems(self, n: int, seed: int, step: int) -> list[Problem]:
        """`n` problems to train on, in shuffled epochs."""
        return problems_of_step(self._train, n, seed, step)

    def keep(self, fits: Callable[[Problem], bool]) -> int:
        """Leave out every problem that does not fit; returns how many those are. Raises `LabError`
        where none is left to train or to measure on.
        """
        before = len(self._train) + len(self._held_out)
        self._train, self._held_out = (
            [p for p in self._train if fits(p)],
            [p for p in self._held_out if fits(p)],
        )
        if not (self._train and self._held_out):
            side = "held-out prompt" if self._train else "prompt to train on"
            raise LabError(
                f"No {side} of {self.name} leaves room for a completion in the model's positions. "
                "Lower max_completion_tokens or give shorter prompts."
            )
        return before - len(self._train) - len(self._held_out)

    def held_out(self, n: int) -> list[Problem]:
        """The first `n` held-out problems, or all where there are fewer."""
        return self._held_out[:n]

    def problem(self, prompt: str) -> Problem:
        """The row with that prompt, or a problem without an answer."""
        return self._known.get(prompt) or Problem(prompt)

    def remark(self, problem: Problem) -> str:
        """Whether the prompt is one of the data's."""
        return (
            ""
            if problem.prompt in self._known
            else "This prompt is not one of the data, so nothing says what is right."
        )

    def score(self, problem: Problem, completion: str) -> Score:
        """Right when the completion's answer is that of the row, by the task's `truth`; well-formed
        when it is not blank.
        """
        return Score(
            float(self._same(problem, completion)) if problem.answer else None,
            float(bool(extract_answer(completion))),
        )

    def task_metrics(
        self, problems: Sequence[Problem], completions: Sequence[str]
    ) -> dict[str, float]:
        """Nothing that other tasks do not measure."""
        return {}

    def _answer(self, problems: list[Problem], completions: list[str], *, seed: int) -> list[float]:
        return [float(_same_answer(p, c)) for p, c in zip(problems, completions, strict=True)]

    def _math(self, problems: list[Problem], completions: list[str], *, seed: int) -> list[float]:
        return [float(_same_value(p, c)) for p, c in zip(problems, completions, strict=True)]


def _same_answer(problem: Problem, completion: str) -> bool:
    said = [problem.columns.get(column) for column in ANSWER_COLUMNS]
    return same_answer(
        problem.answer,
        completion,
        marked=any(
            isinstance(text, str) and text_after_mark(text) == problem.answer for text in said
        ),
    )


def _same_value(problem: Problem, completion: str) -> bool:
    return same_value(problem.answer, completion)
