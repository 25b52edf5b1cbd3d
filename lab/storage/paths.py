"""Where runs and fetched models lie on disk."""

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from lab.config.run_config import RunConfig
from lab.errors import LabError, unknown

RESERVED_NAMES = ("embedded", "smollm2-135m", "gold")
"""Values of settings that are names, even where a folder has the same name."""
RUN_FILES = ("config.json", "status.json", "metrics.jsonl")
MIN_FREE_BYTES = 256 * 2**20  # With less free disk space no page starts a run or stores an upload.


def runs_root() -> Path:
    """Return the folder of all runs: the environment variable LAB_RUNS, or `runs` in the working
    directory.
    """
    return Path(os.environ.get("LAB_RUNS") or "runs")


def models_root() -> Path:
    """Return the folder of fetched models: the environment variable LAB_MODELS, or a folder in the
    user's cache.
    """
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("LAB_MODELS") or Path(cache) / "alignment-lab" / "models")


def top_level(name: str) -> Path:
    """Return the path of app.py or of the folder notebooks: in a clone they lie beside `lab`, and a wheel
    holds copies in `lab/top_level` (setup.py).
    """
    package = Path(__file__).parents[1]
    copies = package / "top_level"
    return (copies if copies.is_dir() else package.parent) / name


def require_space(folder: Path) -> None:
    """Raise `LabError` when the disk of `folder`, which need not exist yet, is nearly full."""
    existing = next(
        path for path in (folder.absolute(), *folder.absolute().parents) if path.exists()
    )
    if (free := shutil.disk_usage(existing).free) < MIN_FREE_BYTES:
        raise LabError(
            f"The disk of {folder} has {free / 2**20:.0f} MiB left, and a run or an upload needs"
            f" {MIN_FREE_BYTES / 2**20:.0f}. Free some space, for example in its .trash and"
            " .uploads."
        )


def find_run(run: str) -> Path:
    """Return the folder that `run` names: a path, or the name of a run in `runs_root`; raise
    `LabError` when there is no run.
    """
    root = runs_root()
    for path in (Path(run), root / run):
        with suppress(OSError):  # For example, the name is too long for a file.
            if run and any(os.path.lexists(path / name) for name in RUN_FILES):
                return path
    names = sorted(
        p.parent.name for p in root.glob("*/config.json") if not p.parent.name.startswith(".")
    )
    if not names:
        raise LabError(
            f"There is no run '{run}', and none in {root}/ yet. Start one: python -m lab train grpo"
        )
    raise unknown("run", run, names)


def with_absolute_paths(config: RunConfig) -> RunConfig:
    """Return the config with absolute paths of the files and folders that it names, so that it
    means the same from every working directory.
    """
    exists: dict[str, Callable[[str], bool]] = {
        "model": os.path.isdir,
        "data": os.path.isfile,
        "eval_pairs": os.path.isfile,
        "task": os.path.isfile,
        "reward_from": lambda run: os.path.isfile(Path(run, "config.json")),
    }
    paths: dict[str, Any] = {}
    for f in fields(config):
        text = getattr(config, f.name)
        if (
            f.name in exists
            and text
            and text not in (*RESERVED_NAMES, *f.metadata["choices"])
            and exists[f.name](text)
        ):
            paths[f.name] = absolute_path(text)
    return replace(config, **paths)


def absolute_path(path: str) -> str:
    """Return the absolute path of an existing file or folder.

    Dots are removed from it unless that would lead to another file, as behind a symbolic link.
    """
    shortened = os.path.abspath(path)
    if os.path.exists(shortened) and os.path.samefile(shortened, path):
        return shortened
    return os.path.realpath(path)
