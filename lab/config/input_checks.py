"""Checks what people give: numbers within a range, text in UTF-8, a device, a path that can be
written. Each check raises `LabError` in one line.
"""

import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.errors import LabError

DEVICE = r"auto|cpu|cuda(:[0-9]{1,3})?"
ROOM = 40  # Bytes that the name of a temporary file beside the real one may add to it.


@dataclass(frozen=True)
class Range:
    """Whole numbers (`kind` int) or numbers (float) from `low` to `high`, both included."""

    kind: type
    low: float
    high: float

    def __str__(self) -> str:
        return f"a {'whole ' if self.kind is int else ''}number {self.bounds()}"

    def bounds(self) -> str:
        """Return the range in words, such as "from 1 to 10,000"."""
        return f"from {_written(self.low)} to {_written(self.high)}"

    def check(self, name: str, value: Any) -> None:
        """Raise `LabError` unless `value`, given as `name`, is a number of this kind within the range.
        NaN and infinity are refused.
        """
        fits = not isinstance(value, bool) and isinstance(
            value, int if self.kind is int else (int, float)
        )
        if not (fits and self.low <= value <= self.high):
            raise LabError(f"{name} is {value!r}, but takes {self}.")

    def read(self, name: str, text: str) -> Any:
        """Return the number that is written in `text`; raise `LabError` if it is not in the range."""
        try:
            value = self.kind(text)
        except ValueError:
            raise LabError(f"{name} is '{text}', but takes {self}.") from None
        self.check(name, value)
        return value


def _written(bound: float) -> str:
    return f"{bound:,.0f}" if bound == int(bound) and abs(bound) < 1e10 else f"{bound:g}"


SEED_RANGE = Range(int, 0, 2**31 - 1)
TALK = {
    "seed": SEED_RANGE,
    "temperature": Range(float, 0, 10),
    "max_tokens": Range(int, 0, 8192),
    "draws": Range(int, 0, 256),
}
"""Ranges of the numbers in a request for completions, from the command line or from a page."""


def require_text(name: str, text: Any) -> None:
    """Raise `LabError` if `text` is not a string, or if no file or tokenizer takes it: it holds a NUL,
    or comes from bytes that are not UTF-8.
    """
    if not isinstance(text, str):
        raise LabError(f"{name} is {text!r}, but takes text.")
    if "\0" in text:
        raise LabError(f"{name} is {ascii(text)}, which holds a NUL. Leave it out.")
    if re.search(r"[\ud800-\udfff]", text):
        raise LabError(f"{name} is {ascii(text)}, which is not UTF-8. Write it in UTF-8.")


def require_device(text: str) -> None:
    """Raise `LabError` unless `text` has the form of a device. This machine may lack the device."""
    if not re.fullmatch(DEVICE, text):
        raise LabError(f"device is '{text}', but takes auto, cpu, cuda or cuda:N.")


def require_writable(name: str, path: Path, *, folder: bool, new: bool = False) -> None:
    """Raise `LabError` unless a file can be written at `path`.

    A temporary file in the nearest folder that exists shows missing permissions, a read-only disk
    or a full one. Missing parent folders are no error.

    Args:
        name: the name of the path in errors.
        path: the path to check.
        folder: the path is for a folder, not for a file.
        new: refuse a path that exists.
    """
    wanted = "a folder" if folder else "a file"
    try:
        there = path.exists()
        (path.parent / f"{path.name}{'-' * ROOM}").exists()
    except OSError as error:
        raise LabError(
            f"{name} is '{path}', where nothing can be written: {error.strerror}. Give a shorter"
            " path, or one that you may read."
        ) from None
    if there and new:
        raise LabError(f"{name} is '{path}', which exists already. Give {wanted} that does not.")
    if there and path.is_dir() != folder:
        raise LabError(
            f"{name} is '{path}', but takes {wanted}, and a {'file' if folder else 'folder'} is"
            " there. Give another path."
        )
    if there and not folder and not os.access(path, os.W_OK):
        raise LabError(
            f"{name} is '{path}', which may not be written. Change its permissions or give another"
            " path."
        )
    ground = path if there and folder else path.parent
    while not os.path.lexists(ground):
        ground = ground.parent
    try:
        with tempfile.TemporaryFile(dir=ground):
            pass
    except OSError as error:
        reason = "it is no folder" if not ground.is_dir() else error.strerror
        raise LabError(
            f"{name} is '{path}', but nothing can be written in {ground}: {reason}. Give {wanted}"
            " in a folder that you may write."
        ) from None
