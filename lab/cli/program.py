"""The name by which the user has called the command line, for help and messages."""

import shutil
import sys
from pathlib import Path

MODULE = "python -m lab"


def program() -> str:
    """Return how the user can call the lab again: `alab`, the path of that command where the shell
    does not find it by its name, or `python -m lab`.
    """
    called = Path(sys.argv[0])
    if called.stem != "alab":
        return MODULE
    on_path = shutil.which("alab")
    return "alab" if on_path and Path(on_path).resolve() == called.resolve() else str(called)
