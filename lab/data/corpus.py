"""The rows of a data set as token ids: which of them are trained on, and their ids, made when they
are first needed and kept as arrays.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from transformers import PreTrainedTokenizerBase

from lab.data.batching import (
    Example,
    RowIds,
    TextPair,
    departure_note,
    omission_reason,
    refusal_reason,
    template_notes,
    tokenize_rows,
    truncate,
)
from lab.data.examples import Demonstration, FullText, Pair, UnpairedExample, prompt_or_text
from lab.data.length_bounds import CharacterBounds
from lab.errors import LabError

ROWS_PER_CALL = 1024  # Rows that are tokenised at a time.
MAX_LISTED_ROWS = 10  # Numbers of rows that a note lists.
TrainableExample = TypeVar("TrainableExample", Pair, UnpairedExample, Demonstration, FullText)
Sides = dict[str, Any]


class Corpus:
    """Tokenises prompts and completions for one run, each once, and cuts them to `max_length`, of
    which `mode` keeps start or end.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int, mode: str) -> None:
        self._tokenizer, self._max_length, self._mode = tokenizer, max_length, mode
        self._bounds = CharacterBounds(tokenizer)
        self._ids: dict[
            tuple[int, int], tuple[TextPair, np.ndarray, int, list[bool] | None]
        ] = {}  # By identity; a text that is held here keeps its own.

    def rows(self, texts: Sequence[TextPair]) -> list[RowIds]:
        """The ids of prompts and completions, whole."""
        new = [text for text in texts if _key(text) not in self._ids]
        for text, row in zip(new, tokenize_rows(self._tokenizer, new, "row") if new else []):
            self._keep(text, row)
        return [
            RowIds(ids[:length].tolist(), ids[length:].tolist(), trained)
            for _, ids, length, trained in (self._ids[_key(text)] for text in texts)
        ]

    def _keep(self, text: TextPair, row: RowIds) -> None:
        self._ids[_key(text)] = text, np.array(row.ids, dtype=np.int32), len(row.start), row.trained

    def cut(self, rows: Sequence[RowIds]) -> list[Example]:
        """Rows as examples of at most `max_length` tokens."""
        return [truncate(row, self._max_length, self._mode) for row in rows]

    def fitting(
        self, rows: list[TrainableExample], sides: Callable[[TrainableExample], Sides], where: str
    ) -> tuple[list[TrainableExample], list[str]]:
        """The rows that can be trained on, in their order, and notes: on those that are left out,
        and on what the chat template does not say of a prompt.

        `sides` gives a row's completions by the name that errors have for each. Raises `LabError`
        for a row that is refused and where none is left.
        """
        doubtful = [
            i
            for i, row in enumerate(rows)
            if not self._bounds.fit(
                prompt_or_text(row), list(sides(row).values()), self._max_length, self._mode
            )
        ]
        reasons: dict[int, str] = {}
        departures: dict[int, str] = {}
        for at in range(0, len(doubtful), ROWS_PER_CALL):
            numbers = doubtful[at : at + ROWS_PER_CALL]
            texts = [
                (prompt_or_text(rows[i]), text) for i in numbers for text in sides(rows[i]).values()
            ]
            try:
                found = iter(tokenize_rows(self._tokenizer, texts, where))
            except LabError:
                _raise_numbered(self._tokenizer, rows, sides, where)
                raise
            for i in numbers:
                ids = [next(found) for _ in sides(rows[i])]
                if departing := [row.departure for row in ids if row.departure]:
                    departures[i] = departing[0]
                if reason := self._judged(rows[i], sides(rows[i]), ids, f"{where}, {{}} {i + 1}"):
                    reasons[i] = reason
        note = _note(reasons, len(rows), where)
        if len(reasons) == len(rows):
            raise LabError(f"No row of {where} is left to train on. {note}")
        notes = [
            f"{where}, row 1: {said}"
            for said in template_notes(
                self._tokenizer, prompt_or_text(rows[0]), isinstance(rows[0], FullText)
            )
        ]
        if departures:
            notes.append(
                f"{where}, {_listed(list(departures))}: {departure_note(next(iter(departures.values())))}"
            )
        return ([row for i, row in enumerate(rows) if i not in reasons] if reasons else rows), [
            *notes,
            *([note] if note else []),
        ]

    def _judged(self, row: TrainableExample, sides: Sides, ids: list[RowIds], place: str) -> str:
        """Why the row is left out; its ids are kept where it is not."""
        for (name, text), side in zip(sides.items(), ids):
            if refused := refusal_reason(self._tokenizer, (prompt_or_text(row), text), side):
                raise LabError(f"{place.format(name)}: {refused}")
        reason = omission_reason(align_prompts(ids), self._max_length, self._mode)
        for text, side in zip(sides.values(), ids) if not reason else ():
            self._keep((prompt_or_text(row), text), side)
        return reason


def align_prompts(sides: Sequence[RowIds]) -> list[RowIds]:
    """The completions of one prompt, all of which begin where the first of them departs from it, as
    in TRL.
    """
    start = min(len(side.start) for side in sides)
    return [side.beginning_at(start) for side in sides]


class Examples(Sequence[Example]):
    """Prompts and completions of a corpus as examples, which are made when they are asked for; each
    begins where it or its row in `beside` departs.
    """

    def __init__(
        self, corpus: Corpus, texts: list[TextPair], beside: list[TextPair] | None = None
    ) -> None:
        self._corpus, self._texts, self._beside = corpus, texts, beside

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, i: int | slice) -> Example | list[Example]:
        return self.at(range(len(self))[i]) if isinstance(i, slice) else self.at([i])[0]

    def at(self, rows: Sequence[int]) -> list[Example]:
        """The examples of these numbers; asked for together they are tokenised together."""
        own = self._corpus.rows([self._texts[i] for i in rows])
        if self._beside is not None:
            own = [
                align_prompts(pair)[0]
                for pair in zip(own, self._corpus.rows([self._beside[i] for i in rows]))
            ]
        return self._corpus.cut(own)

    def crossed(self, rows: Sequence[int], lenders: Sequence[int]) -> list[Example]:
        """The prompts of `rows`, each with the whole completion of another row, cut as every
        example is.
        """
        return self._corpus.cut(
            [
                own.answered_by(other)
                for own, other in zip(
                    *(
                        self._corpus.rows([self._texts[i] for i in numbers])
                        for numbers in (rows, lenders)
                    )
                )
            ]
        )


def _key(text: TextPair) -> tuple[int, int]:
    return id(text[0]), id(text[1])


def _raise_numbered(
    tokenizer: PreTrainedTokenizerBase,
    rows: list[TrainableExample],
    sides: Callable[[TrainableExample], Sides],
    where: str,
) -> None:
    """Raise the error of the first row that cannot be tokenised, which numbers rows from the first
    of a list, with the row's own number.
    """
    for name in sides(rows[0]):
        tokenize_rows(
            tokenizer, [(prompt_or_text(row), sides(row)[name]) for row in rows], f"{where}, {name}"
        )


def _note(reasons: dict[int, str], count: int, where: str) -> str:
    """How many rows are left out, and for each reason which."""
    if not reasons:
        return ""
    groups: dict[str, tuple[str, list[int]]] = {}
    for i, reason in reasons.items():
        groups.setdefault(re.sub(r" \(.*?\)", "", reason), (reason, []))[1].append(i)
    told = [
        f"{_listed(numbers).capitalize()}: {reason if len(numbers) == 1 else bare}"
        for bare, (reason, numbers) in groups.items()
    ]
    return f"{len(reasons)} of {count} rows of {where} are left out. {' '.join(told)}"


def _listed(numbers: list[int]) -> str:
    """The rows of these indices as they are counted from 1."""
    more = f" and {len(numbers) - MAX_LISTED_ROWS} more" if len(numbers) > MAX_LISTED_ROWS else ""
    return (
        f"row{'s' if len(numbers) > 1 else ''}"
        f" {', '.join(str(i + 1) for i in numbers[:MAX_LISTED_ROWS])}{more}"
    )
