"""Reads conversations that a data file holds as text: in JSON, or as Python or NumPy prints a list.

A CSV cannot hold a list of messages in any other way.
"""

import ast
import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from lab.data.rows import DataRow, RowsOrErrors, row_location
from lab.errors import LabError

CONVERSATION_COLUMNS = ("prompt", "chosen", "rejected", "completion", "messages")
WRITTEN_OUT_LIST = re.compile(r"""\s*(?:array\(\s*)?\[\s*\{\s*["'](role|content|from|value)?""")
"""The beginning of a list of messages that is written out as text; group 1 is a key of messages."""
_FIRST_CHARACTERS = re.compile(r"[\s\[a]")


def parse_conversations(rows: RowsOrErrors, source: str | Path) -> RowsOrErrors:
    """The rows, in which each conversation that was written out as text is a list of messages."""
    return [
        (
            number,
            _parse_row(row, source, number)
            if isinstance(row, dict) and any(map(row.__contains__, CONVERSATION_COLUMNS))
            else row,
        )
        for number, row in rows
    ]


def _parse_row(row: DataRow, source: str | Path, number: int) -> DataRow | LabError:
    for column in CONVERSATION_COLUMNS:
        text = row.get(column)
        # Most texts are told from a list by their first character, which is cheap.
        if not isinstance(text, str) or not _FIRST_CHARACTERS.match(text):
            continue
        beginning = WRITTEN_OUT_LIST.match(text)
        if not beginning:
            continue
        messages = _parse_literal(text.strip())
        if beginning[1] and not isinstance(messages, list):
            return LabError(
                f"{row_location(source, number)}: '{column}' begins as a list of messages that is"
                " written out as text, but cannot be read to its end. Write it with json.dumps, or"
                " give a list."
            )
        if isinstance(messages, list) and all(map(_is_message, messages)):
            row = row | {column: messages}
    return row


def _is_message(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    openai_keys = "role" in value and not value.keys().isdisjoint(("content", "tool_calls"))
    sharegpt_keys = value.keys() >= {"from", "value"}
    return sharegpt_keys or openai_keys


def _numpy_literal(text: str) -> Any:
    """A literal as NumPy prints it, which leaves out the commas between the items of a list."""
    return ast.literal_eval(re.sub(r"\}\s*\n\s*\{", "},{", text))


_LITERAL_READERS: tuple[Callable[[str], Any], ...] = (
    partial(json.loads, strict=False),
    ast.literal_eval,
    _numpy_literal,
)


def _parse_literal(text: str) -> Any:
    """The value of a text in JSON or of a literal in Python; None where it is neither.

    Nothing in the text is run.
    """
    for read in _LITERAL_READERS:
        try:
            return read(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            pass
    return None
