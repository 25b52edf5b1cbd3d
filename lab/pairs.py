"""Preference pairs as text, from a JSONL file; nothing here needs a model library, and nothing in a file is ever run."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabError

FORMAT = 'one JSON object a line: {"prompt": "…", "chosen": "…", "rejected": "…"}, all text'


@dataclass(frozen=True)
class Pair:
    """Two completions of a prompt, one preferred."""

    prompt: str
    chosen: str
    rejected: str


def load_pairs(path: str | Path) -> list[Pair]:
    """Read preference pairs in TRL's plain-text format; every error names the file and the line."""
    path = Path(path)
    if not path.is_file():
        raise LabError(f"No data file at {path}. Give a JSONL file, {FORMAT}.")
    return parse_pairs(path.read_bytes(), str(path))


def parse_pairs(data: bytes, name: str) -> list[Pair]:
    """The pairs in the bytes of a JSONL file; `name` is what errors call the file."""
    try:
        lines = re.split("\r\n|\r|\n", data.decode("utf-8-sig"))  # JSON text may hold U+2028 and others that splitlines breaks at.
    except UnicodeDecodeError as error:
        raise LabError(f"{name} is not UTF-8 text (byte {error.start}). Save it as UTF-8 JSONL, {FORMAT}.") from None
    pairs = [_pair(line, f"{name}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not pairs:
        raise LabError(f"{name} is empty. It takes at least one line: {FORMAT}.")
    return pairs


def _pair(line: str, where: str) -> Pair:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise LabError(f"{where} is not JSON ({error.msg} at column {error.colno}). Expected {FORMAT}.") from None
    except (RecursionError, ValueError):  # Nested too deeply, or a number of too many digits.
        raise LabError(f"{where} is not JSON that can be read. Expected {FORMAT}.") from None
    if not isinstance(row, dict):
        raise LabError(f"{where} holds {type(row).__name__}, not an object. Expected {FORMAT}.")
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
