"""Finds runs: all runs of a folder, the newest first, one by its name, a free name for a new one."""

import os
import time
from pathlib import Path

from lab.errors import LabError
from lab.runs.folder import RunFolder
from lab.runs.run_names import RUN_NAME
from lab.storage.paths import RUN_FILES, find_run, runs_root


def list_runs(root: Path | None = None) -> list[RunFolder]:
    """Return every run in `root` whose config can be read, by name; `lab.runs.damage` finds the others."""
    runs = []
    for path in run_paths(root):
        try:
            RunFolder(path).config  # noqa: B018  # A folder of another program or version is no run of this lab.
        except LabError:
            continue
        runs.append(RunFolder(path))
    return runs


def newest_first(runs: list[RunFolder]) -> list[RunFolder]:
    """Return the runs, the one that was created last first."""

    def created(run: RunFolder) -> float:
        try:
            return (run.path / "config.json").stat().st_mtime
        except OSError:  # It was deleted a moment ago.
            return 0.0

    return sorted(runs, key=created, reverse=True)


def run_paths(root: Path | None = None) -> list[Path]:
    """Return every folder in `root` that may be a run, by name."""
    root = runs_root() if root is None else Path(root)
    try:
        names = sorted(os.listdir(root))
    except OSError:
        return []
    return [root / name for name in names if RUN_NAME.fullmatch(name) and _may_be_run(root / name)]


def _may_be_run(path: Path) -> bool:
    """Whether a folder holds files of a run, or cannot be read."""
    try:
        return not {*RUN_FILES}.isdisjoint(os.listdir(path))
    except NotADirectoryError:
        return False
    except OSError:
        return True


def open_run(run: str) -> RunFolder:
    """Return the run that `run` names: a folder, or the name of a run in `runs_root`."""
    return RunFolder(find_run(run))


def new_path(method: str, root: Path | None = None) -> Path:
    """Return a path for a new run that does not exist yet: METHOD-MONTHDAY-TIME in `root`."""
    path = first = (
        runs_root() if root is None else Path(root)
    ) / f"{method}-{time.strftime('%m%d-%H%M%S')}"
    for number in range(2, 1000):
        if not path.exists():
            break
        path = first.with_name(f"{first.name}-{number}")
    return path
