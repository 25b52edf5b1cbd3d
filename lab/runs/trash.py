"""The trash: deleted runs, moved into .trash of their folder, and restored from there."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from lab.errors import LabError
from lab.runs.catalogue import run_paths
from lab.runs.folder import RunFolder
from lab.runs.run_names import run_path, safe_name
from lab.runs.states import ACTIVE_STATES, WAITING_STATES
from lab.storage.paths import RUN_FILES

TRASH_FOLDER = ".trash"
MAX_TRASHED_RUNS = 500
_TRASHED_NAME = re.compile(r"([^~]+)(~[0-9]{1,6})?")


def discard(root: Path, name: str) -> str:
    """Move the run `name` of `root` into the trash; return its name there, which `restore` takes.

    Raises `LabError` for a run that trains or waits in the queue, for a folder that is no run and for
    a name that could lead out of `root`.
    """
    folder = RunFolder(run_path(root, name))
    if folder.path not in run_paths(root):
        _ = folder.config  # Raises `LabError`, because there is no run.
    state = folder.state
    if state in ACTIVE_STATES:
        raise LabError(
            f"{folder.path} is being trained. Stop it first: python -m lab control {folder.path}"
            " stop"
        )
    if state in WAITING_STATES:
        raise LabError(f"{folder.path} is {state}. Take it out of the queue first.")
    return move_to_trash(root, name)


def move_to_trash(root: Path, name: str) -> str:
    """Move the folder of a run into the trash, whatever its state is; return its name there."""
    path, trash = run_path(root, name), Path(root) / TRASH_FOLDER
    try:
        trash.mkdir(exist_ok=True)
        if (count := len(os.listdir(trash))) >= MAX_TRASHED_RUNS:
            raise LabError(
                f"The trash {trash} holds {count} runs, and takes at most {MAX_TRASHED_RUNS}."
                " Restore some, or delete that folder yourself."
            )
        target = _free_path(trash, name, "~")
        os.rename(path, target)
    except OSError as error:
        raise LabError(f"Cannot move {path} to {trash}: {error.strerror}.") from error
    return target.name


def restore(root: Path, trashed_name: str) -> str:
    """Move a run back from the trash; return its name.

    A number is added to the name when another run has taken it.
    """
    match = _TRASHED_NAME.fullmatch(trashed_name)
    name = safe_name(match[1] if match else trashed_name)
    folder = Path(root) / TRASH_FOLDER / trashed_name
    try:
        target = _free_path(Path(root), name, "-")
        os.rename(folder, target)
    except OSError as error:
        raise LabError(f"Cannot restore {folder}: {error.strerror}.") from error
    return target.name


def trashed_runs(root: Path) -> list[str]:
    """Return the names in the trash of all runs there, the one that was deleted last first."""
    trash = Path(root) / TRASH_FOLDER
    if not trash.is_dir():
        return []
    paths = [
        path
        for path in trash.iterdir()
        if _TRASHED_NAME.fullmatch(path.name)
        and any(os.path.lexists(path / file) for file in RUN_FILES)
    ]
    return [path.name for path in sorted(paths, key=lambda p: p.lstat().st_ctime, reverse=True)]


def _free_path(folder: Path, name: str, separator: str) -> Path:
    """The first path that does not exist of NAME, then NAME with 2, 3, … behind `separator`."""
    return next(path for path in _numbered(folder, name, separator) if not os.path.lexists(path))


def _numbered(folder: Path, name: str, separator: str) -> Iterator[Path]:
    yield folder / name
    for number in range(2, 1_000_000):
        yield folder / f"{name}{separator}{number}"
