"""Rows of a data file: JSON, CSV, Parquet or a data set of the Hugging Face hub. Nothing in a file
is ever run, and no model library is loaded.
"""

import ast
import csv
import gzip
import io
import json
import re
import zlib
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from lab.config.data_files import ENDINGS, PACKED, TABLE, TEXT
from lab.errors import LabError

DELIMITERS = {".csv": ",", ".tsv": "\t"}
MAX_UNPACKED_BYTES = 2**30  # Bytes that a .gz may hold.
ACCEPTED_SOURCES = (
    "a file of JSON lines (.jsonl), a .json with an array of objects, a .csv or .tsv with a header,"
    " each of them perhaps packed as .gz, a .parquet, or a data set of the hub as owner/name or"
    " owner/name:split (the split train if none is named)"
)
JSON_WHITESPACE = " \t\n"  # Space between the parts of JSON text, once every line ends alike.
EXPECTED_LINES, EXPECTED_ARRAY = (
    "Expected one JSON object a line.",
    "Expected one array of JSON objects, or one object a line.",
)
CONVERSATION_COLUMNS = (
    "prompt",
    "chosen",
    "rejected",
    "completion",
    "messages",
)  # Columns that may hold a conversation.
WRITTEN_OUT_LIST = re.compile(
    r"""\s*(?:array\(\s*)?\[\s*\{\s*["'](role|content|from|value)?"""
)  # How a list of messages begins that is written out as text.
DataRow = dict[str, Any]
NumberedRows = list[tuple[int, DataRow]]
RowsOrErrors = list[tuple[int, DataRow | LabError]]


def load_rows(source: str | Path) -> list[DataRow]:
    """The rows of a data source in their order, each a dict from column to value; `LabError` says
    which line cannot be read, or what is missing.

    A CSV's values are all text, but a list of messages that is written out as text, in JSON or as
    Python prints it, is read as that list. A hub id needs the network, unless its data is in the
    local cache.
    """
    return [row for _, row in read_numbered_rows(source)]


def read_numbered_rows(source: str | Path) -> NumberedRows:
    """The rows of a data source, each with the number of the line on which it begins, or in a
    Parquet file and on the hub of the row, from 1.
    """
    return _raise_first_error(read_rows_lenient(source))


def parse_file(data: bytes, name: str, limit: int = MAX_UNPACKED_BYTES) -> NumberedRows:
    """The numbered rows in the bytes of a file; the ending of `name` says how to read them, and
    errors call the file so. `limit` is as for `unpacked`.
    """
    return _raise_first_error(_talks(_parse(unpacked(data, name, limit), name), name))


def unpacked(data: bytes, name: str, limit: int = MAX_UNPACKED_BYTES) -> bytes:
    """The bytes of a file, those that a .gz holds if it is one; `LabError` when they are more than
    `limit`.
    """
    if not file_extension(name).endswith(PACKED):
        return data
    try:
        with gzip.open(io.BytesIO(data)) as file:
            text = file.read(limit + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise LabError(
            f"{name} is not gzip that can be read ({error}). Pack it again, or give the file"
            " unpacked."
        ) from None
    if len(text) > limit:
        raise LabError(
            f"{name} holds more than {limit // 2**20} MiB. Unpack it, or give a part of it."
        )
    return text


def read_rows_lenient(source: str | Path) -> RowsOrErrors:
    """As `numbered`, but a line that cannot be read comes as its error instead of ending the
    reading.
    """
    hub = require_source(source)
    found = (
        _from_hub(*hub.groups())
        if hub
        else _parse(unpacked(Path(source).read_bytes(), str(source)), str(source))
    )
    return _talks(found, source)


def require_source(source: str | Path) -> re.Match[str] | None:
    """The parts of a hub id, or None for a file that is there; `LabError` for a source that is
    neither.
    """
    if Path(source).is_file():
        return None
    hub = re.fullmatch(r"(\w[\w.-]*/[\w.-]+?)(?::([\w.-]+))?", str(source))
    if not hub or Path(source).is_dir() or file_extension(hub[1]) in ENDINGS:
        raise LabError(f"No data file at {source}. Give {ACCEPTED_SOURCES}.")
    return hub


def _raise_first_error(found: RowsOrErrors) -> NumberedRows:
    for _, row in found:
        if isinstance(row, LabError):
            raise row
    return found


def file_extension(name: str | Path) -> str:
    """The ending that says how to read a file, in lower case; of data.jsonl.gz it is .jsonl.gz."""
    suffixes = [suffix.lower() for suffix in Path(name).suffixes[-2:]]
    return "".join(suffixes if suffixes[-1:] == [PACKED] else suffixes[-1:])


@lru_cache(maxsize=64)
def row_unit(source: str | Path) -> str:
    """What the rows of a source are counted in: the lines of a text, or rows."""
    return "line" if file_extension(source) in TEXT else "row"


def row_location(source: str | Path, number: int) -> str:
    """How errors name a row."""
    return f"{source}, {row_unit(source)} {number}"


def _parse(data: bytes, name: str) -> RowsOrErrors:
    kind = file_extension(name)
    if kind not in ENDINGS:
        raise LabError(
            f"{name} ends in '{kind}', which is no known format. Give {ACCEPTED_SOURCES}."
        )
    found = _parquet(data, name) if kind == TABLE else _text(data, kind.removesuffix(PACKED), name)
    if not found:
        raise LabError(f"{name} is empty: it has no rows.")
    return found


def _text(data: bytes, kind: str, name: str) -> RowsOrErrors:
    text = _decoded(data, name)
    if kind in DELIMITERS:
        return _csv(text, name, DELIMITERS[kind])
    text = text.replace("\r\n", "\n").replace(
        "\r", "\n"
    )  # JSON text may hold U+2028 and others that splitlines breaks at.
    if not text.lstrip(JSON_WHITESPACE).startswith("["):
        return _json_lines(text, name, EXPECTED_ARRAY if kind == ".json" else EXPECTED_LINES)
    return (
        _json_array(text, name)
        if kind == ".json"
        else _json_lines(text, name, f"{EXPECTED_LINES[:-1]}; an array of them belongs in a .json.")
    )


def _decoded(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise LabError(
            f"{name} is not UTF-8 text (byte {error.start}). Save it as UTF-8."
        ) from None


def _json_lines(text: str, name: str, expected: str) -> RowsOrErrors:
    return [
        (number, _json_object(line, row_location(name, number), expected))
        for number, line in enumerate(text.split("\n"), 1)
        if line.strip()
    ]


def _json_object(line: str, where: str, expected: str) -> DataRow | LabError:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        return LabError(f"{where} is not JSON ({error.msg} at column {error.colno}). {expected}")
    except (RecursionError, ValueError):  # Nested too deeply, or a number of too many digits.
        return LabError(f"{where} is not JSON that can be read. {expected}")
    return _object(row, where, expected)


def _object(row: Any, where: str, expected: str) -> DataRow | LabError:
    return (
        row
        if isinstance(row, dict)
        else LabError(f"{where} holds {type(row).__name__}, not an object. {expected}")
    )


def _json_array(text: str, name: str) -> RowsOrErrors:
    """The objects of an array, each with the line on which it begins; the reading ends at the first
    place that is not JSON.
    """
    found: RowsOrErrors = []
    scan, blank = json.JSONDecoder().raw_decode, re.compile(f"[{JSON_WHITESPACE}]*")
    at, line, counted = blank.match(text).end() + 1, 1, 0
    try:
        while True:
            at = blank.match(text, at).end()
            if text[at : at + 1] == "]" and not found:
                break
            line, counted = line + text.count("\n", counted, at), at
            row, at = scan(text, at)
            found.append((line, _object(row, row_location(name, line), EXPECTED_ARRAY)))
            at = blank.match(text, at).end()
            if text[at : at + 1] != ",":
                break
            at += 1
        if text[at : at + 1] != "]":
            raise json.JSONDecodeError("Expecting ',' or ']'", text, at)
        if (rest := blank.match(text, at + 1).end()) < len(text):
            raise json.JSONDecodeError("Extra text behind the array", text, rest)
    except json.JSONDecodeError as error:
        found.append(
            (
                error.lineno,
                LabError(
                    f"{row_location(name, error.lineno)} is not JSON ({error.msg} at column"
                    f" {error.colno}). {EXPECTED_ARRAY}"
                ),
            )
        )
    except (RecursionError, ValueError):  # Nested too deeply, or a number of too many digits.
        found.append(
            (
                line,
                LabError(
                    f"{row_location(name, line)} is not JSON that can be read. {EXPECTED_ARRAY}"
                ),
            )
        )
    return found


def _csv(text: str, name: str, delimiter: str) -> RowsOrErrors:
    csv.field_size_limit(2**31 - 1)  # A long text is one cell.
    reader, found, start = (
        csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True),
        [],
        1,
    )
    try:
        header = next(reader, [])
        if repeated := next(
            (column for i, column in enumerate(header) if column in header[:i]), None
        ):
            raise LabError(
                f"{name} has two columns '{repeated}', so one would hide the other. Rename or"
                " remove one."
            )
        start = reader.line_num + 1
        for cells in reader:
            if len(cells) == len(header):
                found.append((start, dict(zip(header, cells))))
            elif cells:  # An empty line has no cells.
                found.append(
                    (
                        start,
                        LabError(
                            f"{row_location(name, start)} has {len(cells)} cells, but the header has"
                            f" {len(header)}. Put quotes around cells that hold a"
                            f" {'comma' if delimiter == ',' else 'tab'}."
                        ),
                    )
                )
            start = reader.line_num + 1
    except csv.Error as error:
        found.append((start, LabError(f"{row_location(name, start)} is not CSV ({error}).")))
    return found


def _talks(found: RowsOrErrors, source: str | Path) -> RowsOrErrors:
    """The rows with each conversation that is written out as text as the list of messages that it
    stands for.
    """
    return [
        (
            number,
            (
                _talk(row, row_location(source, number))
                if isinstance(row, dict)
                and any(_listed(row.get(column)) for column in CONVERSATION_COLUMNS)
                else row
            ),
        )
        for number, row in found
    ]


def _listed(value: Any) -> re.Match | None:
    return WRITTEN_OUT_LIST.match(value) if isinstance(value, str) else None


def _talk(row: DataRow, where: str) -> DataRow | LabError:
    for column in CONVERSATION_COLUMNS:
        if not (begins := _listed(row.get(column))):
            continue
        messages = _literal(row[column].strip())
        if begins[1] and not isinstance(messages, list):
            return LabError(
                f"{where}: '{column}' begins as a list of messages that is written out as text, but"
                " cannot be read to its end. Write it with json.dumps, or give a list."
            )
        if isinstance(messages, list) and all(map(_is_message, messages)):
            row = row | {column: messages}
    return row


def _is_message(part: Any) -> bool:
    return isinstance(part, dict) and bool(
        part.keys() >= {"from", "value"}
        or "role" in part
        and part.keys() & {"content", "tool_calls"}
    )


def _literal(text: str) -> Any:
    """A text as JSON, or else as a literal of Python (or NumPy, which leaves out commas), which is
    parsed and never run; None where it is neither.
    """
    for read in (
        partial(json.loads, strict=False),
        ast.literal_eval,
        lambda text: ast.literal_eval(re.sub(r"\}\s*\n\s*\{", "},{", text)),
    ):
        try:
            return read(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            pass
    return None


def _parquet(data: bytes, name: str) -> NumberedRows:
    from pyarrow import ArrowException, BufferReader
    from pyarrow.parquet import read_table

    try:
        return list(enumerate(read_table(BufferReader(data)).to_pylist(), 1))
    except (ArrowException, OSError) as error:
        raise LabError(
            f"{name} is not a Parquet file that can be read ({str(error).splitlines()[0]})."
        ) from None


def _from_hub(name: str, split: str | None) -> NumberedRows:
    try:
        from datasets import load_dataset

        return list(enumerate(load_dataset(name, split=split or "train"), 1))
    except ConnectionError as error:
        raise LabError(
            f"The hub cannot be reached for '{name}', and it is not in the local cache ({error})."
            f" Go online, or give a file: {ACCEPTED_SOURCES}."
        ) from None
    except (
        Exception
    ) as error:  # Whatever the hub's reader raises: no such data set, no such split, a gated one.
        raise LabError(
            f"Could not load '{name}' from the hub"
            f" ({str(error).splitlines()[0] if str(error) else type(error).__name__}). Give"
            f" {ACCEPTED_SOURCES}."
        ) from error
