"""The part of an error message that a page may show: nothing from files outside of the uploads and
the runs, whoever named the file.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lab
from lab.dashboard.state.run_cache import Snapshot
from lab.runs.states import EventKind
from lab.storage.paths import models_root, runs_root

FILE_KNOBS = ("data", "eval_pairs", "task", "model", "reward_from")
"""Knobs whose value can be the path of a file or a folder."""
BUILT_IN_NAMES = ("", "embedded", "chain", "sentiment", "gold")
ASSETS_FOLDER = Path(lab.__file__).parent / "assets"


def paths_outside(config: Mapping[str, Any]) -> list[str]:
    """Existing paths that a config names and that are outside of the runs folder, the folder of
    fetched models and the lab's own assets; sorted.
    """
    folders = [folder.resolve() for folder in (runs_root(), models_root(), ASSETS_FOLDER)]
    values = {str(config[knob]) for knob in FILE_KNOBS if knob in config} - {*BUILT_IN_NAMES}
    return sorted(
        name
        for name in values
        if (path := _existing_path(name))
        and not any(path.is_relative_to(folder) for folder in folders)
    )


def _existing_path(name: str) -> Path | None:
    try:
        path = Path(name).expanduser().resolve()
        return path if path.exists() else None
    except (OSError, ValueError, RuntimeError):  # not a file name, or ~ of an unknown user
        return None


def visible_error(text: str, config: Mapping[str, Any]) -> str:
    """An error message that may quote the files of a config. If the config names a path outside of
    the lab's folders, the message is replaced by a pointer to the command line.
    """
    if not text or not (names := paths_outside(config)):
        return text
    return (
        f"This failed. The error message could quote {', '.join(names)}, and a page shows nothing"
        " from files outside of the uploads and the runs. Read the message on the command line, or"
        " in the run's log.txt."
    )


def visible_failure(message: str, run: Snapshot) -> str:
    """Why a run failed. A process reads the config's files before its first update, so an error
    after that update cannot quote them and is returned in full.
    """
    start_step = max(
        (
            row["step"]
            for row in run.events
            if row["kind"] in (EventKind.STARTED, EventKind.RESUMED)
        ),
        default=0,
    )
    return message if run.step > start_step else visible_error(message, run.started)
