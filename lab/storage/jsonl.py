"""Files that survive a kill at any moment: lines of JSON that are only ever appended, and files that
are replaced in one piece.
"""

import errno
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterable
from io import BufferedReader
from pathlib import Path
from typing import Any

import psutil

CheckRow = Callable[[dict[str, Any]], dict[str, Any] | None]

_BINARY = getattr(os, "O_BINARY", 0)  # Windows would otherwise write two bytes for a newline.
_LEFTOVER = re.compile(r"\.(.+)\.([0-9]{1,10})")


def encode_row(row: dict[str, Any]) -> bytes:
    """Return a row as one line of JSON.

    Numbers that are not finite become null; the key `not_finite` maps their positions to their values,
    such as {"metrics.loss": "nan"}.
    """
    try:
        text = json.dumps(row, ensure_ascii=False, allow_nan=False)
    except ValueError:
        not_finite: dict[str, str] = {}
        finite = _finite(row, "", not_finite)
        text = json.dumps(finite | {"not_finite": not_finite}, ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "backslashreplace") + b"\n"


def _finite(value: Any, where: str, not_finite: dict[str, str]) -> Any:
    """`value` without numbers that are not finite, which go into `not_finite` under their position."""
    if isinstance(value, float) and not math.isfinite(value):
        not_finite[where] = str(value)
        return None
    if isinstance(value, dict):
        return {
            key: _finite(inner, f"{where}.{key}" if where else str(key), not_finite)
            for key, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [_finite(inner, f"{where}[{i}]", not_finite) for i, inner in enumerate(value)]
    return value


def append_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Append rows to a JSONL file in one write.

    A newline comes first where a killed process left its last line unfinished.
    """
    data = b"".join(encode_row(row) for row in rows)
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | _BINARY, 0o644)
    try:
        if os.fstat(file).st_size:
            os.lseek(file, -1, os.SEEK_END)
            if os.read(file, 1) != b"\n":
                data = b"\n" + data
        _write_all(file, data)
    finally:
        os.close(file)


def _write_all(file: int, data: bytes) -> None:
    while data:  # One write is enough unless the disk is full or a signal interrupts it.
        data = data[os.write(file, data) :]


def replace_file(path: Path, data: bytes, durable: bool = True) -> None:
    """Replace the content of `path` in one piece: a reader sees the whole old or the whole new file,
    also after a crash of the machine if `durable`.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        file = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _BINARY, 0o644)
        try:
            _write_all(file, data)
            if durable:
                os.fsync(file)
        finally:
            os.close(file)
        os.replace(partial, path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def read_jsonl(
    path: Path, offset: int = 0, check: CheckRow = lambda row: row
) -> tuple[list[dict[str, Any]], int]:
    """Return the rows of a JSONL file from byte `offset` on, and the offset for the next call.

    An unfinished last line is left for the next call. A file that does not exist, or cannot be read,
    has no rows. `check` is as in `parse_rows`.
    """
    block = read_bytes(path, offset)
    end = block.rfind(b"\n") + 1
    return parse_rows(block[:end], check), offset + end


def open_to_read(path: Path) -> BufferedReader:
    """Open a file for reading; raise `OSError` for a pipe or a device, whose reader could wait forever."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(errno.EINVAL, "it is a pipe or a device, not a file", str(path))
    return path.open("rb")


def read_text(path: Path) -> str:
    """Return the UTF-8 text of a file that `open_to_read` opens."""
    with open_to_read(path) as file:
        return file.read().decode("utf-8")


def read_bytes(path: Path, start: int = 0, count: int = -1) -> bytes:
    """Return at most `count` bytes of a file from byte `start` on; no bytes of a file that does not
    exist or cannot be read.
    """
    try:
        with open_to_read(path) as file:
            file.seek(start)
            return file.read(count)
    except OSError:
        return b""


def parse_rows(block: bytes, check: CheckRow = lambda row: row) -> list[dict[str, Any]]:
    """Return the rows of some lines of a JSONL file, each as `check` returns it (see
    `lab.runs.row_schemas`).

    It passes over unfinished lines, lines that are no JSON object, and rows for which `check` returns
    None.
    """
    rows = []
    for line in block.split(b"\n"):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and (row := check(row)) is not None:
            rows.append(row)
    return rows


def remove_partial_files(folder: Path, name: str = "") -> None:
    """Remove the partial files `.NAME.PID` of `replace_file` that killed processes left in `folder`:
    all of them, or those of the file `name` alone.
    """
    for path in folder.iterdir() if folder.is_dir() else []:
        match = _LEFTOVER.fullmatch(path.name)
        if match and name in ("", match[1]) and not _in_use(int(match[2]), path):
            (
                shutil.rmtree(path, ignore_errors=True)
                if path.is_dir() and not path.is_symlink()
                else path.unlink(missing_ok=True)
            )


def _in_use(pid: int, path: Path) -> bool:
    """Whether the process `pid` lives and is older than the file, so that it may be writing it."""
    try:
        return psutil.Process(pid).create_time() < path.lstat().st_mtime + 2.0
    except (psutil.Error, OSError, ValueError, OverflowError):
        return False
