"""Files that survive a kill at any moment: lines of JSON that are only ever appended, and files
replaced in one piece.
"""

import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import psutil

Shape = Callable[[dict[str, Any]], dict[str, Any] | None]

_BINARY = getattr(os, "O_BINARY", 0)  # Windows would otherwise write two bytes for a newline.
_LEFTOVER = re.compile(r"\.(.+)\.([0-9]{1,10})")


def encode_row(row: dict[str, Any]) -> bytes:
    """One line of JSON. Numbers that are not finite become null, and `not_finite` maps where they
    stood to what they were.
    """
    try:
        text = json.dumps(row, ensure_ascii=False, allow_nan=False)
    except ValueError:
        odd: dict[str, str] = {}
        clean = _finite(row, "", odd)
        text = json.dumps(clean | {"not_finite": odd}, ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "backslashreplace") + b"\n"


def _finite(value: Any, where: str, odd: dict[str, str]) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        odd[where] = str(value)
        return None
    if isinstance(value, dict):
        return {k: _finite(v, f"{where}.{k}" if where else str(k), odd) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v, f"{where}[{i}]", odd) for i, v in enumerate(value)]
    return value


def append_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Add rows to a JSONL file in one write. After a line that a dying process left unfinished, a
    newline comes first.
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
    while data:  # A second turn happens only when the disk is full or a signal came in between.
        data = data[os.write(file, data) :]


def replace_file(path: Path, data: bytes, durable: bool = True) -> None:
    """Give `path` new content in one piece: a reader sees the old or the new file whole, also after
    a crash if `durable`.
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
    path: Path, offset: int = 0, shape: Shape = lambda row: row
) -> tuple[list[dict[str, Any]], int]:
    """Rows of a JSONL file from byte `offset` on, and the offset to go on from. An unfinished last
    line is left for next time.

    A file that is not there, or cannot be read, has no rows. `shape` is as in `parse_rows`.
    """
    block = read_bytes(path, offset)
    end = block.rfind(b"\n") + 1
    return parse_rows(block[:end], shape), offset + end


def read_bytes(path: Path, start: int = 0, count: int = -1) -> bytes:
    """At most `count` bytes of a file from `start` on; none where it is not there or cannot be
    read.
    """
    try:
        with path.open("rb") as file:
            file.seek(start)
            return file.read(count)
    except OSError:
        return b""


def parse_rows(block: bytes, shape: Shape = lambda row: row) -> list[dict[str, Any]]:
    """The rows of some lines of a JSONL file, each as `shape` returns it (`lab.runs.row_schemas`).

    Passed over are lines that a killed process began and the next one closed, that are no JSON
    object, and of which `shape` says None.
    """
    rows = []
    for line in block.split(b"\n"):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and (row := shape(row)) is not None:
            rows.append(row)
    return rows


def remove_partial_files(folder: Path, name: str = "") -> None:
    """Remove what processes that have ended left beside the files of `folder`, or beside `name`
    alone: `.NAME.PID`, as `replace` calls it.
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
    """Whether the process of that number lives and is older than the file, so that it may be its
    own.
    """
    try:
        return psutil.Process(pid).create_time() < path.lstat().st_mtime + 2.0
    except (psutil.Error, OSError, ValueError, OverflowError):
        return False
