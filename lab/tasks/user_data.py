"""A task made of the user's offline data: some of its prompts are held out to measure on, and no
answer is right or wrong.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any

from lab.config.methods import METHODS, method_of
from lab.config.run_config import OfflineConfig
from lab.data.examples import (
    Conversation,
    FullText,
    OfflineExamples,
    Text,
    plain_text,
    prompt_or_text,
    template_of,
)
from lab.data.near_duplicates import comparable_text
from lab.data.parsing import load_examples
from lab.errors import LabError
from lab.tasks.base import Problem, Reward, Score

HELD_OUT_SHARE = 1 / 10
MIN_PROMPTS_PER_SIDE = {"judgements": 2}
"""Prompts that each side of the split needs (otherwise 1): KTO's reference point takes completions
of two prompts.
"""
PROMPT_WORDS = 8
"""Words at the beginning of a full text that the policy continues."""


class DataTask:
    """The rows of `config.data`. A tenth of the prompts, at least one (KTO: two) and at most
    `eval_prompts`, chosen by hash, is held out with all its rows. Where too few prompts would be left
    to train on, nothing is held out.

    With `eval_share` it is that share, prompts with equal `comparable_text` count as one, and too few
    prompts are an error.
    """

    pairs_path = None
    reward_help: dict[str, str] = {}

    def __init__(self, config: OfflineConfig) -> None:
        self.name, self.description = config.data, f"The prompts of {config.data}."
        self.rewards: dict[str, Reward] = {}
        self._config = config
        self._held_out_digests: frozenset[bytes] = frozenset()
        self._problems: list[Problem] = []
        self._rows: OfflineExamples = []

    def read(self) -> tuple[OfflineExamples, int]:
        """Returns the rows that the run may use, in their order, and the number of rows in the
        file.
        """
        self._load()
        rows = self._rows
        self.forget()
        return rows[: self._config.pairs or len(rows)], len(rows)

    def forget(self) -> None:
        """Frees the memory of the rows, which may be many; the held-out prompts stay."""
        self._rows = []

    def _load(self) -> None:
        if not self._rows:
            self._rows = load_examples(self.name, method_of(self._config))
            self._split(self._rows[: self._config.pairs or len(self._rows)])

    def _split(self, rows: OfflineExamples) -> None:
        digests = [self._digest(row) for row in rows]
        prompts = sorted(set(digests))
        least = MIN_PROMPTS_PER_SIDE.get(METHODS[method_of(self._config)].learns_from, 1)
        share = self._config.eval_share or HELD_OUT_SHARE
        count = min(self._config.eval_prompts, max(least, round(share * len(prompts))))
        if self._config.eval_share and len(prompts) < count + least:
            raise LabError(
                f"eval_share is {share:g}, but {self.name} has {len(prompts)} different prompts, and"
                f" both sides need {least}. Add rows, or leave eval_share out."
            )
        self._held_out_digests = frozenset(prompts[:count] if len(prompts) >= count + least else ())
        first = {
            digest: _prompt(row)
            for digest, row in zip(reversed(digests), reversed(rows))
            if digest in self._held_out_digests or not self._held_out_digests
        }
        self._problems = [
            _problem(first[digest]) for digest in sorted(first)[: self._config.eval_prompts]
        ]

    def holds_out(self, row: Any) -> bool:
        """Returns whether a row is held out: measured on, and never trained on."""
        return self._digest(row) in self._held_out_digests

    def _digest(self, row: Any) -> bytes:
        prompt = prompt_or_text(row)
        return _digest(comparable_text(prompt) if self._config.eval_share else prompt)

    def train_problems(self, n: int, seed: int, step: int) -> list[Problem]:
        """Raises `LabError`: the methods that sample take their prompts from another task."""
        raise LabError(f"{self.name} is fixed data, from which nothing is sampled. Give a --task.")

    def held_out(self, n: int) -> list[Problem]:
        """Returns the first `n` held-out prompts, or the first of all prompts where none is held
        out.
        """
        if not self._problems:
            self._load()
        return self._problems[:n]

    def keep(self, fits: Callable[[Problem], bool]) -> int:
        """Leaves out the held-out prompts for which `fits` is false, and returns their number. The
        policy does not answer these prompts; no row is dropped, and at least one prompt stays.
        """
        before = self.held_out(self._config.eval_prompts)
        self._problems = [p for p in before if fits(p)] or before[:1]
        return len(before) - len(self._problems)

    def problem(self, prompt: str) -> Problem:
        """Returns the held-out problem with that prompt, or a new problem."""
        return next(
            (p for p in self.held_out(self._config.eval_prompts) if p.prompt == prompt),
            Problem(prompt),
        )

    def remark(self, problem: Problem) -> str:
        """Returns a warning for a prompt that the data does not hold out; otherwise empty."""
        return (
            ""
            if problem in self.held_out(self._config.eval_prompts)
            else "This prompt is not one of those that the data holds out."
        )

    def score(self, problem: Problem, completion: str) -> Score:
        """Returns a score without an answer, as nothing says which completion is right; a
        completion that is not blank is well-formed.
        """
        return Score(None, float(bool(completion.strip())))

    def task_metrics(
        self, problems: Sequence[Problem], completions: Sequence[str]
    ) -> dict[str, float]:
        """Returns nothing: this task measures only what every task measures."""
        return {}


def _digest(prompt: Text) -> bytes:
    text = prompt if isinstance(prompt, str) else json.dumps(prompt, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _prompt(row: Any) -> Text:
    """The prompt of a row; of a full conversation the messages before the assistant's last words,
    of a full text its first words.
    """
    if not isinstance(row, FullText):
        return row.prompt
    if isinstance(row.text, str):
        return " ".join(row.text.split()[:PROMPT_WORDS])
    last = max(
        (i for i, message in enumerate(row.text) if message["role"] == "assistant"),
        default=len(row.text),
    )
    return Conversation(row.text[:last] or row.text, template_of(row.text))


def _problem(prompt: Text) -> Problem:
    messages: Sequence[dict[str, Any]] = () if isinstance(prompt, str) else prompt
    return Problem(plain_text(prompt), messages=messages, allow_plain_text=not messages)
