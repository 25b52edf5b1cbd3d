"""Files with their SHA-256 beside them, in a file SHA256SUMS as `sha256sum` writes it: what has
changed on the disk is refused, not used.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from lab.errors import LabError
from lab.storage.jsonl import replace_file

CHECKSUM_FILE = "SHA256SUMS"
MAX_READS = 3  # at a file that another process may be replacing


def write_with_checksums(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write `files` with their checksums into `folder`, so that whatever moment the process is
    killed at, the old files or the new ones are sound.

    A new folder appears in one piece. In one that exists each file is replaced in one piece, while
    SHA256SUMS knows the old and the new.
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


def _present(folder: Path, name: str) -> list[str]:
    """The checksum of the file that is there, as SHA256SUMS says; after a kill in between it knows
    two, and of a file of another origin none.
    """
    known = _read(folder).get(name, [])
    if len(known) == 1:
        return known
    found = _sum(folder / name)
    return [found] if found and (not known or found in known) else []


def require_intact(folder: Path, *names: str, remedy: str = "") -> None:
    """Raise `LabError`, with what mends it, for a file of `folder` that is not as it was written,
    or is gone.

    A file of which SHA256SUMS says nothing is taken as it is.
    """
    for name in names:
        for _ in range(MAX_READS):
            known = _read(folder).get(name, [])
            if not known or (found := _sum(folder / name)) in known:
                break
        else:
            state = (
                "is gone"
                if found is None
                else "is damaged: its SHA-256 is not the one that was written with it"
            )
            raise LabError(
                f"{folder / name} {state}. {remedy}If it was changed on purpose, remove its line"
                f" from {folder / CHECKSUM_FILE}."
            )


def _sum(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LabError(f"{path} cannot be read: {error.strerror}.") from error


def _replace_sums(folder: Path, sums: Mapping[str, list[str]], durable: bool = True) -> None:
    replace_file(
        folder / CHECKSUM_FILE,
        "".join(f"{one}  {name}\n" for name, several in sums.items() for one in several).encode(),
        durable,
    )


def _read(folder: Path) -> dict[str, list[str]]:
    """The checksums of each file; lines of another shape are none."""
    try:
        lines = (folder / CHECKSUM_FILE).read_text("utf-8", "replace").splitlines()
    except OSError:
        return {}
    known: dict[str, list[str]] = {}
    for line in lines:
        if match := re.fullmatch(r"([0-9a-f]{64}) [ *](.+)", line):
            known.setdefault(match[2], []).append(match[1])
    return known
