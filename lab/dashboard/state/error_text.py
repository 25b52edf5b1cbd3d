"""What a page shows of an error: not a word of a file that lies outside of the uploads and the
runs, whoever has named it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab.dashboard.state.run_cache import Snapshot
from lab.runs.states import EventKind
from lab.storage.paths import models_root, runs_root

FILES = ("data", "task", "model", "reward_from")
"""The knobs that can name a file or a folder."""
NAMES = ("", "embedded", "chain", "sentiment", "gold")
ASSETS = Path(__file__).parents[1] / "assets"


def outside(config: Mapping[str, Any]) -> list[str]:
    """The files and folders of this machine that a config names and that are neither uploads, runs,
    fetched models nor the lab's own.
    """
    homes = [home.resolve() for home in (runs_root(), models_root(), ASSETS)]
    named = {str(config[knob]) for knob in FILES if knob in config} - {*NAMES}
    return sorted(
        name
        for name in named
        if (path := _there(name)) and not any(path.is_relative_to(home) for home in homes)
    )


def _there(name: str) -> Path | None:
    try:
        path = Path(name).expanduser().resolve()
        return path if path.exists() else None
    except (OSError, ValueError, RuntimeError):  # No name of a file, or of no user.
        return None


def error(text: str, config: Mapping[str, Any]) -> str:
    """An error that arose where the files of a config were read. Where one of them lies outside,
    its words stay on the command line.
    """
    if not text or not (names := outside(config)):
        return text
    return (
        f"It failed, and its words could quote {', '.join(names)}: of files outside of the uploads"
        " and the runs a page shows nothing. The command line has them, and of a run its log.txt."
    )


def failure(message: str, run: Snapshot) -> str:
    """Why a run failed. Its files are read before the first update of a process, so what fails
    later quotes none.
    """
    began = max(
        (
            row["step"]
            for row in run.events
            if row["kind"] in (EventKind.STARTED, EventKind.RESUMED)
        ),
        default=0,
    )
    return message if run.step > began else error(message, run.started)
