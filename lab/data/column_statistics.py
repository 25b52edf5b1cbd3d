"""Statistics of a data file: of each column how full, how varied and how long it is, and of pairs how
the lengths of chosen and rejected differ.
"""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import fields
from json import dumps
from math import ceil
from typing import Any

import numpy as np

from lab.data.examples import Example, FullText, plain_text
from lab.data.rows import RowsOrErrors
from lab.errors import LabError

COLUMN_OF_FIELD = {"desirable": "label"}
"""The columns whose names differ from those of the fields of an example."""
FULL_TEXT_COLUMNS = ("messages", "text")


class _Column:
    """Counts the values of one column; a value without a visible character is empty. A label has no
    length.
    """

    def __init__(self, is_label: bool = False) -> None:
        self._is_label = is_label
        self._filled = self._empty = 0
        self._hashes: set[int] = set()
        self._characters = array("q")

    def add(self, value: Any) -> None:
        text = _words(value)
        if not text.strip():
            self._empty += 1
            return
        self._filled += 1
        self._hashes.add(hash(text if isinstance(value, str) else repr(value)))
        if isinstance(value, str | list | dict) and not self._is_label:
            self._characters.append(len(text))

    def summary(self) -> dict[str, Any]:
        counts = {"rows": self._filled, "empty": self._empty, "distinct": len(self._hashes)}
        if not self._characters:
            return counts
        return counts | {"characters": summarise_lengths(self._characters)}


def column_statistics(
    rows: RowsOrErrors, examples: Sequence[tuple[int, Example]]
) -> dict[str, dict[str, Any]]:
    """Returns for each column the number of `rows` that fill it, of `empty` ones and of `distinct`
    values, and its lengths in `characters`.

    `examples` are those of the rows that can be read as the format of the file; their texts come
    first, as training reads them: without an implicit prompt, a full text as `text`.
    """
    by_number = dict(examples)
    names = [field.name for field in fields(examples[0][1])] if examples else []
    covered = {COLUMN_OF_FIELD.get(name, name) for name in names}
    if examples and isinstance(examples[0][1], FullText):
        covered |= {*FULL_TEXT_COLUMNS}
    readable = [(number, row) for number, row in rows if not isinstance(row, LabError)]
    others = dict.fromkeys(name for _, row in readable for name in row if name not in covered)
    columns = {COLUMN_OF_FIELD.get(name, name): _Column(name == "desirable") for name in names}
    columns |= {str(name): _Column() for name in others}
    for number, row in readable:
        example = by_number.get(number)
        for name in names:
            column = COLUMN_OF_FIELD.get(name, name)
            columns[column].add(getattr(example, name) if example else row.get(column))
        for name in others:
            columns[str(name)].add(row.get(name))
    return {name: column.summary() for name, column in columns.items()}


def _words(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, list) and all(
        isinstance(part, dict) and isinstance(part.get("content"), str | None) for part in value
    ):
        return plain_text(value)
    return dumps(value, ensure_ascii=False, default=str)


def pair_statistics(lengths: Mapping[str, Sequence[int]], equal: int) -> dict[str, Any]:
    """Returns how the lengths in tokens of `chosen` and `rejected` differ, for the pairs in `lengths`.

    `longer_is_chosen` is the share of pairs in which a rule that always prefers the longer
    completion agrees with the data; a tie counts one half. `equal` is the number of pairs whose
    completions are the same text, which have no lengths.

    Anchor: lengths (3, 5, 2) against (1, 5, 4) are longer, equal and shorter: a share of 0.5 and a
    mean difference of 0.
    """
    differences = np.subtract(lengths["chosen"], lengths["rejected"])
    longer, shorter = int((differences > 0).sum()), int((differences < 0).sum())
    same = len(differences) - longer - shorter
    return {
        "pairs": len(differences),
        "equal": equal,
        "chosen_longer": longer,
        "rejected_longer": shorter,
        "same_length": same,
        "longer_is_chosen": (longer + same / 2) / len(differences),
        "mean_difference": float(differences.mean()),
        "median_difference": float(np.median(differences)),
    }


def summarise_lengths(lengths: Sequence[int]) -> dict[str, int]:
    """Returns the minimum, the median, the 95 % quantile and the maximum of some lengths.

    A quantile is the smallest value that at least this share of all values does not exceed.
    """
    ordered = np.sort(np.asarray(lengths))
    return {
        "min": int(ordered[0]),
        "median": int(ordered[ceil(0.5 * len(ordered)) - 1]),
        "95 %": int(ordered[ceil(0.95 * len(ordered)) - 1]),
        "max": int(ordered[-1]),
    }
