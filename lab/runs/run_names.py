"""The names that a run may have."""

import re
from pathlib import Path

from lab.errors import LabError

RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def safe_name(name: str) -> str:
    """Return `name` if it can be the name of a run; raise `LabError` for any other, such as one that
    leads out of the runs' folder.
    """
    if not RUN_NAME.fullmatch(name):
        raise LabError(
            f"'{name}' cannot be the name of a run. A name has up to 100 letters, digits, dots,"
            " dashes and underscores, and starts with a letter or a digit."
        )
    return name


def run_path(root: Path, name: str) -> Path:
    """Return the folder of the run `name` in `root`, whether it exists or not."""
    return Path(root) / safe_name(name)
