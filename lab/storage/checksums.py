"""Files with their SHA-256 beside them, in a file SHA256SUMS as `sha256sum` writes it, so that a file
that has changed on the disk is refused.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from lab.errors import LabError
from lab.storage.jsonl import open_to_read, replace_file

CHECKSUM_FILE = "SHA256SUMS"
MAX_READS = 3  # Of a file that another process may be replacing.


def write_with_checksums(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write `files` with their checksums into `folder`.

    The process may be killed at any moment: the old files or the new files are intact. A new folder
    appears in one piece. In an existing folder each file is replaced in one piece, while SHA256SUMS
    holds the checksums of the old and of the new file.
    """
    sums = {name: [hashlib.sha256(data).hexdigest()] for name, data in files.items()}
    if folder.exists():
        _replace_sums(folder, {name: new + _present(folder, name) for name, new in sums.items()})
        for name, data in files.items():
            replace_file(folder / name, data)
        _replace_sums(folder, sums, durable=False)
        return
    partial = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir()
        for name, data in files.items():
            replace_file(partial / name, data)
        _replace_sums(partial, sums)
        os.rename(partial, folder)
    except OSError:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def replace_with_checksum(folder: Path, name: str, data: bytes) -> None:
    """Replace one file of a folder that `write_with_checksums` wrote, and its line in SHA256SUMS; the
    other files and lines stay.
    """
    sums = _read(folder)
    digest = hashlib.sha256(data).hexdigest()
    _replace_sums(folder, sums | {name: [digest, *sums.get(name, [])]})
    replace_file(folder / name, data)
    _replace_sums(folder, sums | {name: [digest]}, durable=False)


def _present(folder: Path, name: str) -> list[str]:
    """The checksum of the existing file, as a list of one or none.

    SHA256SUMS holds two checksums after a kill within `write_with_checksums`, and none of a file of
    another origin; then the file itself is read.
    """
    known = _read(folder).get(name, [])
    if len(known) == 1:
        return known
    actual = _sum(folder / name)
    return [actual] if actual and (not known or actual in known) else []


def require_intact(folder: Path, *names: str, remedy: str = "") -> None:
    """Raise `LabError`, with the sentence `remedy`, for a file of `folder` that has changed since it was
    written, or is gone.

    A file without a line in SHA256SUMS is accepted.
    """
    for name in names:
        for _ in range(MAX_READS):
            known = _read(folder).get(name, [])
            if not known or (actual := _sum(folder / name)) in known:
                break
        else:
            state = (
                "is gone"
                if actual is None
                else "is damaged: its SHA-256 is not the one that was written with it"
            )
            raise LabError(
                f"{folder / name} {state}. {remedy}If it was changed on purpose, remove its line"
                f" from {folder / CHECKSUM_FILE}."
            )


def _sum(path: Path) -> str | None:
    try:
        with open_to_read(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LabError(f"{path} cannot be read: {error.strerror}.") from error


def _replace_sums(folder: Path, sums: Mapping[str, list[str]], durable: bool = True) -> None:
    replace_file(
        folder / CHECKSUM_FILE,
        "".join(f"{digest}  {name}\n" for name, known in sums.items() for digest in known).encode(),
        durable,
    )


def _read(folder: Path) -> dict[str, list[str]]:
    """The checksums of each file; lines of another form are passed over."""
    try:
        lines = (folder / CHECKSUM_FILE).read_text("utf-8", "replace").splitlines()
    except OSError:
        return {}
    known: dict[str, list[str]] = {}
    for line in lines:
        if match := re.fullmatch(r"([0-9a-f]{64}) [ *](.+)", line):
            known.setdefault(match[2], []).append(match[1])
    return known
