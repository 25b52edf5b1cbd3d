"""Rows of a data file: JSONL, CSV, Parquet or a data set of the Hugging Face hub. Nothing in a file is ever run, and no model library is loaded."""

import csv
import io
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from lab.errors import LabError

TEXT, TABLE = (".jsonl", ".json", ".csv"), (".parquet",)
SOURCES = ("a file of JSON lines (.jsonl), a .csv with a header, a .parquet, or a data set of the hub as owner/name or owner/name:split "
           "(the split train if none is named)")
Row = dict[str, Any]
Numbered = list[tuple[int, Row]]
Attempted = list[tuple[int, Row | LabError]]


def rows(source: str | Path) -> list[Row]:
    """The rows of a data source in their order, each a dict from column to value; `LabError` says which line cannot be read, or what is missing.

    A CSV's values are all text. A hub id needs the network, unless its data is in the local cache.
    """
    return [row for _, row in numbered(source)]


def numbered(source: str | Path) -> Numbered:
    """The rows of a data source, each with the number of the line on which it begins, or in a Parquet file and on the hub of the row, from 1."""
    return _sound(attempted(source))


def parse(data: bytes, name: str) -> Numbered:
    """The numbered rows in the bytes of a file; the ending of `name` says how to read them, and errors call the file so."""
    return _sound(_parse(data, name))


def attempted(source: str | Path) -> Attempted:
    """As `numbered`, but a line that cannot be read comes as its error instead of ending the reading."""
    if Path(source).is_file():
        return _parse(Path(source).read_bytes(), str(source))
    hub = re.fullmatch(r"(\w[\w.-]*/[\w.-]+?)(?::([\w.-]+))?", str(source))
    if not hub or Path(source).is_dir() or Path(hub[1]).suffix in TEXT + TABLE:
        raise LabError(f"No data file at {source}. Give {SOURCES}.")
    return _from_hub(*hub.groups())


def _sound(found: Attempted) -> Numbered:
    for _, row in found:
        if isinstance(row, LabError):
            raise row
    return found


@cache
def unit(source: str | Path) -> str:
    """What the rows of a source are counted in: the lines of a text, or rows."""
    return "line" if Path(source).suffix.lower() in TEXT else "row"


def place(source: str | Path, number: int) -> str:
    """How errors name a row."""
    return f"{source}, {unit(source)} {number}"


def _parse(data: bytes, name: str) -> Attempted:
    kind = Path(name).suffix.lower()
    if kind in TABLE:
        found = _parquet(data, name)
    elif kind in TEXT:
        found = _csv(_decoded(data, name), name) if kind == ".csv" else _json_lines(_decoded(data, name), name)
    else:
        raise LabError(f"{name} ends in '{kind}', which is no known format. Give {SOURCES}.")
    if not found:
        raise LabError(f"{name} is empty: it has no rows.")
    return found


def _decoded(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise LabError(f"{name} is not UTF-8 text (byte {error.start}). Save it as UTF-8.") from None


def _json_lines(text: str, name: str) -> Attempted:
    lines = re.split("\r\n|\r|\n", text) if "\r" in text else text.split("\n")  # JSON text may hold U+2028 and others that splitlines breaks at.
    return [(number, _json_object(line, place(name, number))) for number, line in enumerate(lines, 1) if line.strip()]


def _json_object(line: str, where: str) -> Row | LabError:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        return LabError(f"{where} is not JSON ({error.msg} at column {error.colno}). Expected one JSON object a line.")
    except (RecursionError, ValueError):  # Nested too deeply, or a number of too many digits.
        return LabError(f"{where} is not JSON that can be read. Expected one JSON object a line.")
    return row if isinstance(row, dict) else LabError(f"{where} holds {type(row).__name__}, not an object. Expected one JSON object a line.")


def _csv(text: str, name: str) -> Attempted:
    csv.field_size_limit(2**31 - 1)  # A long text is one cell.
    reader, found, start = csv.reader(io.StringIO(text, newline=""), strict=True), [], 1
    try:
        header = next(reader, [])
        start = reader.line_num + 1
        for cells in reader:
            if len(cells) == len(header):
                found.append((start, dict(zip(header, cells))))
            elif cells:  # An empty line has no cells.
                found.append((start, LabError(f"{place(name, start)} has {len(cells)} cells, but the header has {len(header)}. "
                                              "Put quotes around cells that hold a comma.")))
            start = reader.line_num + 1
    except csv.Error as error:
        found.append((start, LabError(f"{place(name, start)} is not CSV ({error}).")))
    return found


def _parquet(data: bytes, name: str) -> Numbered:
    from pyarrow import ArrowException, BufferReader
    from pyarrow.parquet import read_table

    try:
        return list(enumerate(read_table(BufferReader(data)).to_pylist(), 1))
    except (ArrowException, OSError) as error:
        raise LabError(f"{name} is not a Parquet file that can be read ({str(error).splitlines()[0]}).") from None


def _from_hub(name: str, split: str | None) -> Numbered:
    try:
        from datasets import load_dataset

        return list(enumerate(load_dataset(name, split=split or "train"), 1))
    except ConnectionError as error:
        raise LabError(f"The hub cannot be reached for '{name}', and it is not in the local cache ({error}). Go online, or give a file: {SOURCES}.") from None
    except Exception as error:  # Whatever the hub's reader raises: no such data set, no such split, a gated one.
        raise LabError(f"Could not load '{name}' from the hub ({str(error).splitlines()[0] if str(error) else type(error).__name__}). "
                       f"Give {SOURCES}.") from error
