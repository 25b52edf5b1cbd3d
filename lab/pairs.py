"""Preference pairs as text, from a data file; nothing here needs a model library."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.errors import LabError
from lab.formats import Numbered, numbered, parse, place

FORMAT = 'one JSON object a line: {"prompt": "…", "chosen": "…", "rejected": "…"}, all text'


@dataclass(frozen=True)
class Pair:
    """Two completions of a prompt, one preferred."""

    prompt: str
    chosen: str
    rejected: str


def load_pairs(source: str | Path) -> list[Pair]:
    """Read preference pairs in TRL's plain-text format; every error names the file and the line."""
    return _pairs(numbered(source), source)


def parse_pairs(data: bytes, name: str) -> list[Pair]:
    """The pairs in the bytes of a file; the ending of `name` says how to read it, and errors call the file so."""
    return _pairs(parse(data, name), name)


def _pairs(found: Numbered, source: str | Path) -> list[Pair]:
    return [_pair(row, place(source, number)) for number, row in found]


def _pair(row: dict[str, Any], where: str) -> Pair:
    for field in ("prompt", "chosen", "rejected"):
        if field not in row:
            raise LabError(f"{where} has no '{field}' (it has: {', '.join(map(str, row)) or 'nothing'}). Expected {FORMAT}.")
        if not isinstance(row[field], str):
            raise LabError(f"{where}: '{field}' is {type(row[field]).__name__}, not text. Conversations as lists are not read; render them to text. "
                           f"Expected {FORMAT}.")
        if any("\ud800" <= c <= "\udfff" for c in row[field]):
            raise LabError(f"{where}: '{field}' holds half of a surrogate pair, which is no character. Correct the line.")
    if not row["chosen"] or not row["rejected"]:
        raise LabError(f"{where}: a completion is empty. Remove the line or fill it in.")
    if row["chosen"] == row["rejected"]:
        raise LabError(f"{where}: chosen equals rejected, so the pair prefers nothing. Remove the line or correct it.")
    return Pair(row["prompt"], row["chosen"], row["rejected"])
