"""Reads the rows of text files: JSON lines, an array in JSON, CSV and TSV."""

import csv
import io
import json
import re
from typing import Any

from lab.data.rows import DataRow, RowsOrErrors, row_location
from lab.errors import LabError

DELIMITERS = {".csv": ",", ".tsv": "\t"}
JSON_WHITESPACE = " \t\n"
"""White space between the parts of JSON text, after all line ends have become \\n."""
EXPECTED_LINES = "Expected one JSON object a line."
EXPECTED_ARRAY = "Expected one array of JSON objects, or one object a line."
_BLANK = re.compile(f"[{JSON_WHITESPACE}]*")


def parse_text(data: bytes, extension: str, name: str) -> RowsOrErrors:
    """The rows of a text file, each with the number of the line on which it begins.

    Args:
        data: the bytes of the file, not packed.
        extension: .jsonl, .json, .csv or .tsv.
        name: what errors call the file.

    Raises:
        LabError: the bytes are not UTF-8, or two columns of a CSV have the same name.
    """
    text = _decode(data, name)
    if extension in DELIMITERS:
        return _csv_rows(text, name, DELIMITERS[extension])
    # Not splitlines: JSON text may hold U+2028 and other characters at which that breaks.
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.lstrip(JSON_WHITESPACE).startswith("["):
        return _json_lines(text, name, EXPECTED_ARRAY if extension == ".json" else EXPECTED_LINES)
    if extension == ".json":
        return _json_array(text, name)
    return _json_lines(text, name, f"{EXPECTED_LINES[:-1]}; an array of them belongs in a .json.")


def _decode(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise LabError(
            f"{name} is not UTF-8 text (byte {error.start}). Save it as UTF-8."
        ) from None


def _json_lines(text: str, name: str, expected: str) -> RowsOrErrors:
    return [
        (number, _json_object(line, name, number, expected))
        for number, line in enumerate(text.split("\n"), 1)
        if line.strip()
    ]


def _json_object(line: str, name: str, number: int, expected: str) -> DataRow | LabError:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        return LabError(
            f"{row_location(name, number)} is not JSON ({error.msg} at column {error.colno})."
            f" {expected}"
        )
    except (RecursionError, ValueError):  # Nested too deeply, or a number of too many digits.
        return LabError(f"{row_location(name, number)} is not JSON that can be read. {expected}")
    return _require_object(value, name, number, expected)


def _require_object(value: Any, name: str, number: int, expected: str) -> DataRow | LabError:
    if isinstance(value, dict):
        return value
    return LabError(
        f"{row_location(name, number)} holds {type(value).__name__}, not an object. {expected}"
    )


def _json_array(text: str, name: str) -> RowsOrErrors:
    """The objects of an array; reading ends at the first position that is not JSON."""
    rows: RowsOrErrors = []
    scan = json.JSONDecoder().raw_decode
    at, line, counted = _skip_blank(text, 0) + 1, 1, 0
    try:
        while True:
            at = _skip_blank(text, at)
            if text[at : at + 1] == "]" and not rows:
                break
            line, counted = line + text.count("\n", counted, at), at
            value, at = scan(text, at)
            rows.append((line, _require_object(value, name, line, EXPECTED_ARRAY)))
            at = _skip_blank(text, at)
            if text[at : at + 1] != ",":
                break
            at += 1
        if text[at : at + 1] != "]":
            raise json.JSONDecodeError("Expecting ',' or ']'", text, at)
        if (end := _skip_blank(text, at + 1)) < len(text):
            raise json.JSONDecodeError("Extra text behind the array", text, end)
    except json.JSONDecodeError as error:
        message = (
            f"{row_location(name, error.lineno)} is not JSON ({error.msg} at column"
            f" {error.colno}). {EXPECTED_ARRAY}"
        )
        rows.append((error.lineno, LabError(message)))
    except (RecursionError, ValueError):  # Nested too deeply, or a number of too many digits.
        message = f"{row_location(name, line)} is not JSON that can be read. {EXPECTED_ARRAY}"
        rows.append((line, LabError(message)))
    return rows


def _skip_blank(text: str, at: int) -> int:
    """The first position from `at` on that holds no white space."""
    match = _BLANK.match(text, at)
    return match.end() if match else at


def _csv_rows(text: str, name: str, delimiter: str) -> RowsOrErrors:
    csv.field_size_limit(2**31 - 1)  # A long text is one cell.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: RowsOrErrors = []
    first_line = 1
    try:
        header = next(reader, [])
        _require_different_columns(header, name)
        first_line = reader.line_num + 1
        for cells in reader:
            if len(cells) == len(header):
                rows.append((first_line, dict(zip(header, cells))))
            elif cells:  # An empty line has no cells.
                message = (
                    f"{row_location(name, first_line)} has {len(cells)} cells, but the header has"
                    f" {len(header)}. Put quotes around cells that hold a"
                    f" {'comma' if delimiter == ',' else 'tab'}."
                )
                rows.append((first_line, LabError(message)))
            first_line = reader.line_num + 1
    except csv.Error as error:
        message = f"{row_location(name, first_line)} is not CSV ({error})."
        rows.append((first_line, LabError(message)))
    return rows


def _require_different_columns(header: list[str], name: str) -> None:
    for i, column in enumerate(header):
        if column in header[:i]:
            raise LabError(
                f"{name} has two columns '{column}', so one would hide the other. Rename or"
                " remove one."
            )
