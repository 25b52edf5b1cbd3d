"""The runs that the lab ships."""

from pathlib import Path

import lab
from lab.runs.folder import RunFolder

FOLDER = Path(lab.__file__).parent / "assets" / "runs"


def recorded_run(method: str) -> RunFolder | None:
    """The recorded run of a method's defaults; None while there is none."""
    path = FOLDER / method
    return RunFolder(path) if (path / "config.json").is_file() else None
