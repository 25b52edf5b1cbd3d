"""Runs that were deleted: moved aside into .trash of their folder, and brought back."""

import os
import re
from pathlib import Path

from lab.errors import LabError
from lab.runs.catalogue import run_paths
from lab.runs.folder import RunFolder
from lab.runs.run_names import run_path, safe_name
from lab.runs.states import ACTIVE_STATES, WAITING_STATES
from lab.storage.paths import RUN_FILES

TRASH_FOLDER = ".trash"
MAX_TRASHED_RUNS = 500  # runs in the trash
_PLACE = re.compile(r"([^~]+)(~[0-9]{1,6})?")


def discard(root: Path, name: str) -> str:
    """Move the run `name` of `root` into the trash; returns its place there, which `restore` takes.

    Raises `LabError` for a run that trains, for a folder that is no run and for a name that could
    lead out of `root`.
    """
    folder = RunFolder(run_path(root, name))
    if folder.path not in run_paths(root):
        _ = folder.config  # Raises, for there is no run.
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
    """Move the folder of a run into the trash, whatever its state is; returns its place there."""
    path, trash = run_path(root, name), Path(root) / TRASH_FOLDER
    try:
        trash.mkdir(exist_ok=True)
        if (held := len(os.listdir(trash))) >= MAX_TRASHED_RUNS:
            raise LabError(
                f"The trash {trash} holds {held} runs, and takes at most {MAX_TRASHED_RUNS}. Bring some back,"
                " or delete that folder yourself."
            )
        place = next(p for p in _numbered(trash, name, "~") if not os.path.lexists(p))
        os.rename(path, place)
    except OSError as error:
        raise LabError(f"Cannot move {path} to {trash}: {error.strerror}.") from error
    return place.name


def restore(root: Path, place: str) -> str:
    """Bring a run back from the trash; returns its name, which has a number behind it when another
    run has taken the old one.
    """
    match = _PLACE.fullmatch(place)
    name = safe_name(match[1] if match else place)
    folder = Path(root) / TRASH_FOLDER / place
    try:
        back = next(p for p in _numbered(Path(root), name, "-") if not os.path.lexists(p))
        os.rename(folder, back)
    except OSError as error:
        raise LabError(f"Cannot bring {folder} back: {error.strerror}.") from error
    return back.name


def trashed_runs(root: Path) -> list[str]:
    """The places of all runs in the trash, the one that was moved last first."""
    trash = Path(root) / TRASH_FOLDER
    found = (
        [
            p
            for p in trash.iterdir()
            if _PLACE.fullmatch(p.name) and any(os.path.lexists(p / file) for file in RUN_FILES)
        ]
        if trash.is_dir()
        else []
    )
    return [p.name for p in sorted(found, key=lambda p: p.lstat().st_ctime, reverse=True)]


def _numbered(folder: Path, name: str, mark: str):
    """NAME, then NAME with 2, 3, … behind it."""
    yield folder / name
    for number in range(2, 1_000_000):
        yield folder / f"{name}{mark}{number}"
