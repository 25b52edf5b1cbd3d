"""A task made of the user's prompts: rows with a `prompt`, perhaps an `answer` or a `solution`, and
columns that a reward may read.
"""

import math
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

from lab.data.examples import plain_text
from lab.data.parsing import parse_prompt
from lab.data.readers import read_numbered_rows
from lab.data.rows import row_location
from lab.errors import LabError
from lab.tasks.base import Problem, Reward, Score, problems_of_step, split_by_hash
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
    """Returns the problems in a data source, in its order; raises `LabError` for a row without a
    prompt, or without an answer where other rows have one.
    """
    rows = read_numbered_rows(source)
    column = next((name for name in ANSWER_COLUMNS if any(name in row for _, row in rows)), None)
    return [_problem(row, column, row_location(source, number)) for number, row in rows]


def _problem(row: dict[str, Any], answer_column: str | None, where: str) -> Problem:
    if "prompt" not in row:
        raise LabError(
            f"{where} has no 'prompt' (it has: {', '.join(map(str, row)) or 'nothing'}). Expected"
            f" {PROMPT_ROW_FORMAT}."
        )
    prompt = parse_prompt(row, where).prompt
    answer = _gold_answer(row.get(answer_column)) if answer_column else ""
    if not plain_text(prompt):
        raise LabError(f"{where}: 'prompt' is empty. Expected {PROMPT_ROW_FORMAT}.")
    if answer_column and not answer:
        raise LabError(
            f"{where} has no '{answer_column}', though other rows have one. Fill it in, or leave the column"
            " out."
        )
    # A `Conversation` also holds the tools of the row.
    messages: Sequence[dict[str, Any]] = () if isinstance(prompt, str) else prompt
    return Problem(
        plain_text(prompt),
        answer,
        {column: value for column, value in row.items() if column != "prompt"},
        messages,
        allow_plain_text=not messages,
    )


def _gold_answer(value: Any) -> str:
    """The answer in a cell as text: a number written out, or the text behind GSM8K's mark if it has
    one; empty for a cell without an answer.
    """
    if isinstance(value, float | Decimal):
        if not math.isfinite(value):
            return ""
        return str(int(value)) if value == int(value) else f"{Decimal(str(value)):f}"
    if isinstance(value, str):
        return text_after_mark(value) or value.strip()
    return str(value) if isinstance(value, int) else ""


class PromptTask:
    """The prompts of a data source. A tenth of them, at least one, chosen by hash, is held out.

    `truth` is the rule by which an answer is right: "answer" or "math".
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
        num_prompts = len({p.prompt for p in problems})
        if num_prompts < 2:
            raise LabError(
                f"{source} has one prompt, but takes at least two: one is held out to measure on."
                " Add prompts."
            )
        self._train, self._held_out = split_by_hash(
            problems, max(1, round(HELD_OUT_SHARE * num_prompts))
        )
        self._known = {p.prompt: p for p in problems}
        self._same = _same_value if truth == "math" else _same_answer
        self.rewards: dict[str, Reward] = {}
        if problems[0].answer:
            self.rewards = {"answer": self._answer, "math": self._math}

    def train_problems(self, n: int, seed: int, step: int) -> list[Problem]:
        """Returns `n` problems to train on, in shuffled epochs."""
        return problems_of_step(self._train, n, seed, step)

    def keep(self, fits: Callable[[Problem], bool]) -> int:
        """Leaves out every problem for which `fits` is false, and returns their number. Raises
        `LabError` where no problem is left to train or to measure on.
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
        """Returns the first `n` held-out problems, or all where there are fewer."""
        return self._held_out[:n]

    def problem(self, prompt: str) -> Problem:
        """Returns the row with that prompt, or a problem without an answer."""
        return self._known.get(prompt) or Problem(prompt)

    def remark(self, problem: Problem) -> str:
        """Returns a warning for a prompt that is not in the data; otherwise empty."""
        return (
            ""
            if problem.prompt in self._known
            else "This prompt is not one of the data, so nothing says what is right."
        )

    def score(self, problem: Problem, completion: str) -> Score:
        """Returns the score: right when the completion's answer is the row's by the task's `truth`,
        well-formed when it is not blank.
        """
        return Score(
            float(self._same(problem, completion)) if problem.answer else None,
            float(bool(extract_answer(completion))),
        )

    def task_metrics(
        self, problems: Sequence[Problem], completions: Sequence[str]
    ) -> dict[str, float]:
        """Returns nothing: this task measures only what every task measures."""
        return {}

    def _answer(self, problems: list[Problem], completions: list[str], *, seed: int) -> list[float]:
        return [float(_same_answer(p, c)) for p, c in zip(problems, completions, strict=True)]

    def _math(self, problems: list[Problem], completions: list[str], *, seed: int) -> list[float]:
        return [float(_same_value(p, c)) for p, c in zip(problems, completions, strict=True)]


def _same_answer(problem: Problem, completion: str) -> bool:
    cells = [problem.columns.get(column) for column in ANSWER_COLUMNS]
    return same_answer(
        problem.answer,
        completion,
        marked=any(
            isinstance(text, str) and text_after_mark(text) == problem.answer for text in cells
        ),
    )


def _same_value(problem: Problem, completion: str) -> bool:
    return same_value(problem.answer, completion)
