"""The command course, for the notebooks."""

from pathlib import Path
from typing import Literal

from lab.config.input_checks import require_writable
from lab.errors import unknown


def course(
    order: Literal["report", "handout", "build", "copy"],
    folder: Path = Path("notebooks"),
    /,
    only: str = "",
) -> None:
    """The notebooks: copy them, collect what learners have done, make copies for a class, or execute
    them all.

    Args:
        order: report prints a CSV with a row for every learner's folder in FOLDER: which checks
        passed, at which call. handout writes the notebooks without their solutions into FOLDER. build
        executes the notebooks of a clone and writes what they show. copy writes the notebooks into
        FOLDER without outputs, and their solutions into FOLDER/solutions; files that are there stay.
        folder: Where learners' folders lie, or where copies go.
        only: Number of the one notebook to build, such as 03; left out, all of them.
    """
    if order == "report":
        from lab.course.exercises.registry import EXERCISES
        from lab.course.progress import progress_sheet

        print(progress_sheet(folder, list(EXERCISES)), end="")
    elif order in ("copy", "handout"):
        from lab.course.handout import copy_notebooks, handout

        require_writable("folder", folder, folder=True)
        written = copy_notebooks(folder) if order == "copy" else handout(folder)
        for path in written:
            print(path)
        if not written:
            print(f"{folder} has every notebook already; nothing was changed.")
        print(f'Open them: cd "{folder}", then python -m jupyterlab. Their runs: alab app, there.')
    else:
        from lab.course.build_notebooks import build_notebooks, notebooks

        chosen = [path for path in notebooks() if path.name.startswith(only)]
        if not chosen:
            raise unknown("notebook", only, [path.name[:2] for path in notebooks()])
        build_notebooks(chosen)
