"""Holds the token ids of a data set: which rows are trained on, and their ids, which are made when
they are first needed and then stay in memory as arrays.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar, overload

import numpy as np
from transformers import PreTrainedTokenizerBase

from lab.data.examples import Demonstration, FullText, Pair, Text, UnpairedExample, prompt_or_text
from lab.data.length_bounds import CharacterBounds
from lab.data.token_rows import (
    EncodedExample,
    RowIds,
    TextPair,
    departure_note,
    omission_reason,
    refusal_reason,
    template_notes,
    tokenize_rows,
    truncate,
)
from lab.errors import LabError

ROWS_PER_CALL = 1024
"""Rows that are tokenised at a time."""
MAX_LISTED_ROWS = 10
"""Numbers of rows that a note lists."""
TrainableExample = TypeVar("TrainableExample", Pair, UnpairedExample, Demonstration, FullText)
Sides = Mapping[str, Text | None]
"""The completions of a row, by the name that errors have for each; None for a full text."""


class _StoredIds(NamedTuple):
    """Ids of a text. The text is here because the store finds ids by the text's identity, which
    Python would give to another object once the text is gone.
    """

    text: TextPair
    ids: np.ndarray
    prompt_length: int
    trained: list[bool] | None


class Corpus:
    """Tokenises prompts and completions for one run, each once, and cuts them to `max_length`, of
    which `mode` keeps start or end.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int, mode: str) -> None:
        self._tokenizer, self._max_length, self._mode = tokenizer, max_length, mode
        self._bounds = CharacterBounds(tokenizer)
        self._ids: dict[tuple[int, int], _StoredIds] = {}

    def rows(self, texts: Sequence[TextPair]) -> list[RowIds]:
        """Returns the ids of prompts and completions, before truncation."""
        new = [text for text in texts if _identity(text) not in self._ids]
        for text, row in zip(new, tokenize_rows(self._tokenizer, new, "row") if new else []):
            self._store(text, row)
        return [
            RowIds(ids[:length].tolist(), ids[length:].tolist(), trained)
            for _, ids, length, trained in (self._ids[_identity(text)] for text in texts)
        ]

    def _store(self, text: TextPair, row: RowIds) -> None:
        ids = np.array(row.ids, dtype=np.int32)
        self._ids[_identity(text)] = _StoredIds(text, ids, len(row.start), row.trained)

    def cut(self, rows: Sequence[RowIds]) -> list[EncodedExample]:
        """Returns rows as examples of at most `max_length` tokens."""
        return [truncate(row, self._max_length, self._mode) for row in rows]

    def fitting(
        self, rows: list[TrainableExample], sides: Callable[[TrainableExample], Sides], where: str
    ) -> tuple[list[TrainableExample], list[str]]:
        """Returns the rows that can be trained on, in their order, and notes: on the rows that are
        left out, and on what the chat template does not read of a prompt.

        Only rows that `CharacterBounds` does not accept are tokenised here.

        Args:
            rows: examples of one kind.
            sides: gives a row's completions.
            where: the name of the data in errors and notes.

        Raises:
            LabError: training refuses a row, or no row is left.
        """
        reasons: dict[int, str] = {}
        departures: dict[int, str] = {}
        doubtful = self._doubtful_rows(rows, sides)
        for first in range(0, len(doubtful), ROWS_PER_CALL):
            block = doubtful[first : first + ROWS_PER_CALL]
            for i, ids in self._tokenize_block(rows, block, sides, where):
                if departing := [side.departure for side in ids if side.departure]:
                    departures[i] = departing[0]
                location = f"{where}, {{}} {i + 1}"
                if reason := self._omission_reason(rows[i], sides(rows[i]), ids, location):
                    reasons[i] = reason
        omissions = _omission_note(reasons, len(rows), where)
        if len(reasons) == len(rows):
            raise LabError(f"No row of {where} is left to train on. {omissions}")
        is_full_text = isinstance(rows[0], FullText)
        notes = [
            f"{where}, row 1: {note}"
            for note in template_notes(self._tokenizer, prompt_or_text(rows[0]), is_full_text)
        ]
        if departures:
            note = departure_note(next(iter(departures.values())))
            notes.append(f"{where}, {_row_numbers(list(departures))}: {note}")
        if omissions:
            notes.append(omissions)
        return [row for i, row in enumerate(rows) if i not in reasons] if reasons else rows, notes

    def _doubtful_rows(
        self, rows: list[TrainableExample], sides: Callable[[TrainableExample], Sides]
    ) -> list[int]:
        """Indices of the rows of which the characters alone do not prove that they fit."""
        return [
            i
            for i, row in enumerate(rows)
            if not self._bounds.fit(
                prompt_or_text(row), list(sides(row).values()), self._max_length, self._mode
            )
        ]

    def _tokenize_block(
        self,
        rows: list[TrainableExample],
        block: list[int],
        sides: Callable[[TrainableExample], Sides],
        where: str,
    ) -> list[tuple[int, list[RowIds]]]:
        """The ids of each completion of the rows with the indices `block`."""
        texts: list[TextPair] = [
            (prompt_or_text(rows[i]), completion)
            for i in block
            for completion in sides(rows[i]).values()
        ]
        try:
            ids = iter(tokenize_rows(self._tokenizer, texts, where))
        except LabError:
            _raise_with_row_number(self._tokenizer, rows, sides, where)
            raise
        return [(i, [next(ids) for _ in sides(rows[i])]) for i in block]

    def _omission_reason(
        self, row: TrainableExample, sides: Sides, ids: list[RowIds], location: str
    ) -> str:
        """Why the row is left out; the ids of a row that is not left out are stored."""
        for (name, completion), side in zip(sides.items(), ids):
            text = (prompt_or_text(row), completion)
            if refusal := refusal_reason(self._tokenizer, text, side):
                raise LabError(f"{location.format(name)}: {refusal}")
        reason = omission_reason(align_prompts(ids), self._max_length, self._mode)
        if not reason:
            for completion, side in zip(sides.values(), ids):
                self._store((prompt_or_text(row), completion), side)
        return reason


def align_prompts(sides: Sequence[RowIds]) -> list[RowIds]:
    """Returns the completions of one prompt with prompts of one length: where the first of them
    departs from the prompt, all begin, as in TRL.
    """
    start = min(len(side.start) for side in sides)
    return [side.beginning_at(start) for side in sides]


class Examples(Sequence[EncodedExample]):
    """Prompts and completions of a corpus as examples, which are made when they are asked for.

    Each completion begins where it, or the row with its index in `beside`, departs from the prompt.
    """

    def __init__(
        self, corpus: Corpus, texts: list[TextPair], beside: list[TextPair] | None = None
    ) -> None:
        self._corpus, self._texts, self._beside = corpus, texts, beside

    def __len__(self) -> int:
        return len(self._texts)

    @overload
    def __getitem__(self, i: int) -> EncodedExample: ...

    @overload
    def __getitem__(self, i: slice) -> list[EncodedExample]: ...

    def __getitem__(self, i: int | slice) -> EncodedExample | list[EncodedExample]:
        return self.at(range(len(self))[i]) if isinstance(i, slice) else self.at([i])[0]

    def at(self, indices: Sequence[int]) -> list[EncodedExample]:
        """Returns the examples with these indices, which are tokenised together."""
        rows = self._rows(indices)
        if self._beside is not None:
            beside = self._corpus.rows([self._beside[i] for i in indices])
            rows = [align_prompts(pair)[0] for pair in zip(rows, beside)]
        return self._corpus.cut(rows)

    def crossed(self, rows: Sequence[int], lenders: Sequence[int]) -> list[EncodedExample]:
        """Returns the prompts of `rows`, each with the completion of a row in `lenders`, truncated
        as every example is.
        """
        pairs = zip(self._rows(rows), self._rows(lenders))
        return self._corpus.cut([row.answered_by(lender) for row, lender in pairs])

    def _rows(self, indices: Sequence[int]) -> list[RowIds]:
        return self._corpus.rows([self._texts[i] for i in indices])


def _identity(text: TextPair) -> tuple[int, int]:
    return id(text[0]), id(text[1])


def _raise_with_row_number(
    tokenizer: PreTrainedTokenizerBase,
    rows: list[TrainableExample],
    sides: Callable[[TrainableExample], Sides],
    where: str,
) -> None:
    """Raise the error of the first row that cannot be tokenised, with the row's number in the data
    instead of its number in a block.
    """
    for name in sides(rows[0]):
        texts: list[TextPair] = [(prompt_or_text(row), sides(row)[name]) for row in rows]
        tokenize_rows(tokenizer, texts, f"{where}, {name}")


def _omission_note(reasons: dict[int, str], count: int, where: str) -> str:
    """A note that counts the rows that are left out, and lists their numbers for each reason."""
    if not reasons:
        return ""
    groups: dict[str, tuple[str, list[int]]] = {}
    for i, reason in reasons.items():
        without_brackets = re.sub(r" \(.*?\)", "", reason)
        groups.setdefault(without_brackets, (reason, []))[1].append(i)
    sentences = [
        f"{_row_numbers(indices).capitalize()}: {reason if len(indices) == 1 else shortened}"
        for shortened, (reason, indices) in groups.items()
    ]
    return f"{len(reasons)} of {count} rows of {where} are left out. {' '.join(sentences)}"


def _row_numbers(indices: list[int]) -> str:
    """The rows with these indices, counted from 1: "rows 1, 4 and 12 more"."""
    numbers = ", ".join(str(i + 1) for i in indices[:MAX_LISTED_ROWS])
    hidden = len(indices) - MAX_LISTED_ROWS
    return f"row{'s' if len(indices) > 1 else ''} {numbers}{f' and {hidden} more' * (hidden > 0)}"
