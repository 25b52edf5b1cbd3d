"""Types of the rows of a data file, and how errors name a row."""

from functools import lru_cache
from pathlib import Path
from typing import Any

from lab.config.data_files import PACKED, TEXT
from lab.errors import LabError

DataRow = dict[str, Any]
"""A row: its values by column."""
NumberedRows = list[tuple[int, DataRow]]
"""Rows with their numbers, from 1: of the line on which the row begins in a text file, of the row
in a Parquet file and on the hub.
"""
RowsOrErrors = list[tuple[int, DataRow | LabError]]
"""As `NumberedRows`; a row that cannot be read is the error that says why."""


def file_extension(name: str | Path) -> str:
    """The extension that says how to read a file, in lower case: .jsonl, or .jsonl.gz."""
    suffixes = [suffix.lower() for suffix in Path(name).suffixes[-2:]]
    return "".join(suffixes if suffixes[-1:] == [PACKED] else suffixes[-1:])


@lru_cache(maxsize=64)
def row_unit(source: str | Path) -> str:
    """The word for a row's number: "line" in a text file, otherwise "row"."""
    return "line" if file_extension(source) in TEXT else "row"


def row_location(source: str | Path, number: int) -> str:
    """How errors name a row: "FILE, line 3"."""
    return f"{source}, {row_unit(source)} {number}"
