"""The rows of a data set as token ids: which of them are trained on, and their ids, made when they are first needed and kept as arrays."""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
from transformers import PreTrainedTokenizerBase

from lab.bounds import Bounds
from lab.data import Example, left_out, tokenised, truncated, unfit
from lab.errors import LabError
from lab.pairs import Demonstration, Labelled, Pair, Text

BLOCK = 1024  # Rows that are tokenised at a time.
SHOWN = 10  # Numbers of rows that a note lists.
R = TypeVar("R", Pair, Labelled, Demonstration)
Sides = dict[str, Text]


class Corpus:
    """Tokenises prompts and completions for one run, each once, and cuts them to `max_length`, of which `mode` keeps start or end."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int, mode: str) -> None:
        self._tokenizer, self._max_length, self._mode = tokenizer, max_length, mode
        self._bounds = Bounds(tokenizer)
        self._ids: dict[tuple[int, int], tuple[tuple[Text, Text], np.ndarray, int]] = {}  # By identity; a text that is held here keeps its own.

    def examples(self, texts: Sequence[tuple[Text, Text]]) -> list[Example]:
        """Prompts and completions as examples."""
        new = [text for text in texts if _key(text) not in self._ids]
        for text, (start, rest) in zip(new, tokenised(self._tokenizer, new, "row") if new else []):
            self._keep(text, start, rest)
        return [Example(ids.tolist(), length) for _, ids, length in (self._ids[_key(text)] for text in texts)]

    def _keep(self, text: tuple[Text, Text], start: list[int], rest: list[int]) -> None:
        cut = truncated(start, rest, self._max_length, self._mode)
        self._ids[_key(text)] = text, np.array(cut.ids, dtype=np.int32), cut.prompt_length

    def fitting(self, rows: list[R], sides: Callable[[R], Sides], where: str) -> tuple[list[R], str]:
        """The rows that can be trained on, in their order, and a note on those that are left out, empty where there are none.

        `sides` gives a row's completions by the name that errors have for each. Raises `LabError` for a row that is refused and where none is left.
        """
        doubtful = [i for i, row in enumerate(rows) if not self._bounds.fit(row.prompt, list(sides(row).values()), self._max_length, self._mode)]
        reasons: dict[int, str] = {}
        for at in range(0, len(doubtful), BLOCK):
            numbers = doubtful[at:at + BLOCK]
            texts = [(rows[i].prompt, text) for i in numbers for text in sides(rows[i]).values()]
            try:
                found = iter(tokenised(self._tokenizer, texts, where))
            except LabError:
                _raise_numbered(self._tokenizer, rows, sides, where)
                raise
            for i in numbers:
                if reason := self._judged(rows[i], sides(rows[i]), found, f"{where}, {{}} {i + 1}"):
                    reasons[i] = reason
        note = _note(reasons, len(rows), where)
        if len(reasons) == len(rows):
            raise LabError(f"No row of {where} is left to train on. {note}")
        return ([row for i, row in enumerate(rows) if i not in reasons] if reasons else rows), note

    def _judged(self, row: R, sides: Sides, found: Iterator[tuple[list[int], list[int]]], place: str) -> str:
        """Why the row is left out; its ids are kept where it is not."""
        ids = [next(found) for _ in sides]
        for (name, text), (start, rest) in zip(sides.items(), ids):
            if refused := unfit(self._tokenizer, (row.prompt, text), start, rest):
                raise LabError(f"{place.format(name)}: {refused}")
        reason = left_out(ids, self._max_length, self._mode)
        for text, (start, rest) in zip(sides.values(), ids) if not reason else ():
            self._keep((row.prompt, text), start, rest)
        return reason


class Examples(Sequence[Example]):
    """Prompts and completions of a corpus as examples, which are made when they are asked for."""

    def __init__(self, corpus: Corpus, texts: list[tuple[Text, Text]]) -> None:
        self._corpus, self._texts = corpus, texts

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, i: int | slice) -> Example | list[Example]:
        return self.at(range(len(self))[i]) if isinstance(i, slice) else self.at([i])[0]

    def at(self, rows: Sequence[int]) -> list[Example]:
        """The examples of these numbers; asked for together they are tokenised together."""
        return self._corpus.examples([self._texts[i] for i in rows])


def _key(text: tuple[Text, Text]) -> tuple[int, int]:
    return id(text[0]), id(text[1])


def _raise_numbered(tokenizer: PreTrainedTokenizerBase, rows: list[R], sides: Callable[[R], Sides], where: str) -> None:
    """Raise the error of the first row that cannot be tokenised, which numbers rows from the first of a list, with the row's own number."""
    for name in sides(rows[0]):
        tokenised(tokenizer, [(row.prompt, sides(row)[name]) for row in rows], f"{where}, {name}")


def _note(reasons: dict[int, str], count: int, where: str) -> str:
    """How many rows are left out, and for each reason which."""
    if not reasons:
        return ""
    groups: dict[str, tuple[str, list[int]]] = {}
    for i, reason in reasons.items():
        groups.setdefault(re.sub(r" \(.*?\)", "", reason), (reason, []))[1].append(i + 1)
    told = []
    for bare, (reason, numbers) in groups.items():
        listed = ", ".join(map(str, numbers[:SHOWN])) + (f" and {len(numbers) - SHOWN} more" if len(numbers) > SHOWN else "")
        told.append(f"Row{'s' if len(numbers) > 1 else ''} {listed}: {reason if len(numbers) == 1 else bare}")
    return f"{len(reasons)} of {count} rows of {where} are left out. {' '.join(told)}"
