"""Own data without a task: a part of its prompts is held out to measure on, and nothing says what a
right completion is.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any

from lab.config.methods import METHODS, method_of
from lab.config.run_config import OfflineConfig
from lab.data.examples import (
    Conversation,
    Demonstration,
    Pair,
    Text,
    UnpairedExample,
    Whole,
    beginning,
    load_examples,
    plain,
    template_of,
)
from lab.errors import LabError
from lab.tasks.base import Problem, Score

HELD_OUT_SHARE = 1 / 10
LEAST = {
    "judgements": 2
}  # Prompts that each side of the split needs: KTO's reference point takes completions of two.
Rows = list[Pair] | list[UnpairedExample] | list[Demonstration] | list[Whole]
WORDS = 8  # Of a whole text the first words are what the policy goes on from.


class DataTask:
    """The rows of `config.data`. A tenth of the prompts, at least one (KTO: two) and at most
    `eval_prompts`, chosen by hash, is held out with all its rows.

    Where too few prompts would be left to train on, nothing is held out.
    """

    pairs_path = None
    reward_help: dict[str, str] = {}

    def __init__(self, config: OfflineConfig) -> None:
        self.name, self.description, self.rewards = (
            config.data,
            f"The prompts of {config.data}.",
            {},
        )
        self._config, self._held, self._problems = config, frozenset(), []
        self._rows: Rows = []

    def read(self) -> tuple[Rows, int]:
        """The rows that the run may use, in their order, and how many there are in the file."""
        self._load()
        rows = self._rows
        self.forget()
        return rows[: self._config.pairs or len(rows)], len(rows)

    def forget(self) -> None:
        """Let go of the rows, all but the held-out prompts: there may be many."""
        self._rows = []

    def _load(self) -> None:
        if not self._rows:
            self._rows = load_examples(self.name, method_of(self._config))
            self._split(self._rows[: self._config.pairs or len(self._rows)])

    def _split(self, rows: Rows) -> None:
        digests = [_digest(beginning(row)) for row in rows]
        prompts, least = (
            sorted(set(digests)),
            LEAST.get(METHODS[method_of(self._config)].learns_from, 1),
        )
        count = min(self._config.eval_prompts, max(least, round(HELD_OUT_SHARE * len(prompts))))
        self._held = frozenset(prompts[:count] if len(prompts) >= count + least else ())
        first = {
            digest: _prompt(row)
            for digest, row in zip(reversed(digests), reversed(rows))
            if digest in self._held or not self._held
        }
        self._problems = [
            _problem(first[digest]) for digest in sorted(first)[: self._config.eval_prompts]
        ]

    def holds_out(self, row: Any) -> bool:
        """Whether a row is one to measure on, and not to train on."""
        return _digest(beginning(row)) in self._held

    def train_problems(self, n: int, seed: int, step: int) -> list[Problem]:
        """None: the methods that sample take their prompts from a task."""
        raise LabError(f"{self.name} is fixed data, from which nothing is sampled. Give a --task.")

    def held_out(self, n: int) -> list[Problem]:
        """The first `n` held-out prompts, or of all prompts where none is held out."""
        if not self._problems:
            self._load()
        return self._problems[:n]

    def keep(self, fits: Callable[[Problem], bool]) -> int:
        """Leave out the prompts that do not fit from those that the policy answers, all rows
        staying; returns how many those are.
        """
        found = self.held_out(self._config.eval_prompts)
        self._problems = [p for p in found if fits(p)] or found[:1]
        return len(found) - len(self._problems)

    def problem(self, prompt: str) -> Problem:
        """The held-out prompt of that text, or another one."""
        return next(
            (p for p in self.held_out(self._config.eval_prompts) if p.prompt == prompt),
            Problem(prompt),
        )

    def remark(self, problem: Problem) -> str:
        """Whether the prompt is one of the data's."""
        return (
            ""
            if problem in self.held_out(self._config.eval_prompts)
            else "This prompt is not one of those that the data holds out."
        )

    def score(self, problem: Problem, completion: str) -> Score:
        """Nothing says what is right; well-formed is what is not blank."""
        return Score(None, float(bool(completion.strip())))

    def facts(self, problems: Sequence[Problem], completions: Sequence[str]) -> dict[str, float]:
        """Nothing that other tasks do not measure."""
        return {}


def _digest(prompt: Text) -> bytes:
    text = prompt if isinstance(prompt, str) else json.dumps(prompt, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _prompt(row: Any) -> Text:
    """The prompt of a row; of a whole conversation what stands before the assistant's last words,
    of a whole text its first words.
    """
    if not isinstance(row, Whole):
        return row.prompt
    if isinstance(row.text, str):
        return " ".join(row.text.split()[:WORDS])
    last = max(
        (i for i, message in enumerate(row.text) if message["role"] == "assistant"),
        default=len(row.text),
    )
    return Conversation(row.text[:last] or row.text, template_of(row.text))


def _problem(prompt: Text) -> Problem:
    messages = () if isinstance(prompt, str) else prompt
    return Problem(plain(prompt), messages=messages, bare=not messages)
