"""Where runs and fetched models lie on disk."""

import os
from contextlib import suppress
from pathlib import Path

from lab.errors import LabError, unknown


def runs_root() -> Path:
    """The folder of all runs: the environment variable LAB_RUNS, or `runs` in the working directory."""
    return Path(os.environ.get("LAB_RUNS") or "runs")


def models_root() -> Path:
    """The folder of fetched models: the environment variable LAB_MODELS, or one in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("LAB_MODELS") or Path(cache) / "alignment-lab" / "models")


def find_run(run: str) -> Path:
    """The folder that `run` means: a path, or the name of a run in `runs_root`; raise `LabError` when no run is there."""
    root = runs_root()
    for path in (Path(run), root / run):
        with suppress(OSError):  # Such as a name that is longer than any file's.
            if run and (path / "config.json").is_file():
                return path
    names = sorted(p.parent.name for p in root.glob("*/config.json") if not p.parent.name.startswith("."))
    if not names:
        raise LabError(f"There is no run '{run}', and none in {root}/ yet. Start one: python -m lab train grpo")
    raise unknown("run", run, names)
