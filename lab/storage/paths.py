"""Where runs and fetched models lie on disk."""

import os
import shutil
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from lab.config.run_config import RunConfig
from lab.errors import LabError, unknown

NAMED = (
    "embedded",
    "smollm2-135m",
    "gold",
)  # Values of knobs that are names, also where a folder is called so.
RUN_FILES = ("config.json", "status.json", "metrics.jsonl")
FREE_BYTES = 256 * 2**20  # of the disk, below which a page starts and keeps nothing


def runs_root() -> Path:
    """The folder of all runs: the environment variable LAB_RUNS, or `runs` in the working
    directory.
    """
    return Path(os.environ.get("LAB_RUNS") or "runs")


def models_root() -> Path:
    """The folder of fetched models: the environment variable LAB_MODELS, or one in the user's
    cache.
    """
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("LAB_MODELS") or Path(cache) / "alignment-lab" / "models")


def require_space(folder: Path) -> None:
    """Raise `LabError` when the disk that `folder` lies on, or will, is nearly full."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if (free := shutil.disk_usage(there).free) < FREE_BYTES:
        raise LabError(
            f"The disk of {folder} has {free / 2**20:.0f} MiB left, and a run or an upload wants"
            f" {FREE_BYTES / 2**20:.0f}. Free some space, for example in its .trash and .uploads."
        )


def find_run(run: str) -> Path:
    """The folder that `run` means: a path, or the name of a run in `runs_root`; raise `LabError`
    when no run is there.
    """
    root = runs_root()
    for path in (Path(run), root / run):
        with suppress(OSError):  # Such as a name that is longer than any file's.
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


def anchored(config: RunConfig) -> RunConfig:
    """The config with the files and folders that it names given by absolute paths, so that it means
    the same from every working directory.
    """
    there = {
        "model": os.path.isdir,
        "data": os.path.isfile,
        "task": os.path.isfile,
        "reward_from": lambda run: os.path.isfile(Path(run, "config.json")),
    }
    found: dict[str, Any] = {}
    for f in fields(config):
        text = getattr(config, f.name)
        if (
            f.name in there
            and text
            and text not in (*NAMED, *f.metadata["choices"])
            and there[f.name](text)
        ):
            found[f.name] = absolute(text)
    return replace(config, **found)


def absolute(path: str) -> str:
    """The absolute path of a file or folder that exists, without dots where leaving them out
    changes nothing.
    """
    plain = os.path.abspath(path)
    return (
        plain if os.path.exists(plain) and os.path.samefile(plain, path) else os.path.realpath(path)
    )
