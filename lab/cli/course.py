"""The command course, for the notebooks."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from lab.cli.arguments import OutFolder
from lab.config.input_checks import Range, require_writable
from lab.errors import unknown


def course(
    order: Literal["report", "grade", "handout", "checks", "slides", "build", "copy"],
    folder: Path = Path("notebooks"),
    /,
    only: str = "",
    out: OutFolder = None,
    seed: Annotated[int | None, Range(int, 0, 2**32 - 1)] = None,
    seconds: Annotated[float, Range(float, 0.1, 3600)] = 10.0,
    memory: Annotated[int, Range(int, 16, 2**20)] = 1024,
    hints: bool = True,
    blank: bool = False,
) -> None:
    """The notebooks: copy them, make copies for a class, collect and grade what learners have done, or
    execute them all.

    Args:
        order: report prints a CSV with a row for every learner's folder in FOLDER: which checks
        passed, at which call. grade runs the functions in FOLDER again, where each learner has a
        subfolder or a notebook, and writes tables of the results. handout writes the notebooks without
        their solutions into FOLDER. checks writes a small package with the checks alone into FOLDER.
        slides writes slides of them into FOLDER. build executes the notebooks of a clone and writes
        what they show. copy writes the notebooks into FOLDER without outputs, and their solutions into
        FOLDER/solutions; files that are there stay.
        folder: Where learners' folders lie, or where copies go.
        only: Number of the one notebook to build, grade or show, such as 03; left out, all of them.
        out: Folder for the tables of grade; left out, grades.
        seed: Seed of the inputs of grade; left out, a fresh one, which is printed.
        seconds: Seconds of processor time that grade gives one exercise of one learner.
        memory: Memory limit of grade in MiB, beyond what torch takes.
        hints: Whether a handout has hints.
        blank: Whether in the copies of copy and handout the cells of notebook 09 that one can write whole
        are empty, beside the exercises.
    """
    orders: dict[str, Callable[[], None]] = {
        "report": partial(_report, folder),
        "grade": partial(_grade, folder, only, out or Path("grades"), seed, seconds, memory),
        "handout": partial(_copies, folder, True, hints, blank),
        "copy": partial(_copies, folder, False, True, blank),
        "checks": partial(_checks, folder),
        "slides": partial(_slides, folder, only),
        "build": partial(_build, only),
    }
    orders[order]()


def _report(folder: Path) -> None:
    from lab.course.exercises.registry import EXERCISES
    from lab.course.grading.report import progress_sheet

    print(progress_sheet(folder, list(EXERCISES)), end="")


def _grade(
    folder: Path, only: str, out: Path, seed: int | None, seconds: float, memory: int
) -> None:
    from lab.course.grading.exports import write_grades
    from lab.course.grading.grade import grade_folder
    from lab.course.grading.process import Limits

    require_writable("out", out, folder=True)
    grades = grade_folder(
        folder, only=only, seed=seed, limits=Limits(seconds, memory), log=partial(print, flush=True)
    )
    paths = write_grades(grades, out)
    marked = sum(any(row.marks for row in rows) for rows in grades.learners().values())
    print(f"{len(grades.learners())} learners, {marked} to look at. Seed {grades.seed}.")
    print(f"Written: {', '.join(str(path) for path in paths[:3])}, {out / 'gradescope'}")
    if grades.note:
        print(f"Note: {grades.note}.")


def _copies(folder: Path, without_solutions: bool, hints: bool, blank: bool) -> None:
    from lab.course.handout import copy_notebooks, handout, with_blank_cells

    require_writable("folder", folder, folder=True)
    paths = (
        handout(folder, hints=hints, blank=blank)
        if without_solutions
        else copy_notebooks(folder, blank=blank)
    )
    for path in paths:
        print(path)
    if not paths:
        print(f"{folder} has every notebook already; nothing was changed.")
    for kept in (n for n in with_blank_cells() if blank and folder / n not in paths):
        print(
            f"{kept} was there and stays as it is: --blank was not applied to it. To get it with empty"
            " cells, rename your copy and repeat the command."
        )
    print(f'Open them: cd "{folder}", then python -m jupyterlab. Their runs: alab app, there.')


def _checks(folder: Path) -> None:
    from lab.course.checks_wheel import build_checks_wheel

    require_writable("folder", folder, folder=True)
    path = build_checks_wheel(folder)
    print(f"{path} holds the checks ({path.stat().st_size / 1000:.0f} kB).")


def _slides(folder: Path, only: str) -> None:
    from lab.course.slides import write_slides

    require_writable("folder", folder, folder=True)
    for path in write_slides(folder, only):
        print(path)


def _build(only: str) -> None:
    from lab.course.build_notebooks import build_notebooks, notebooks

    chosen = [path for path in notebooks() if path.name.startswith(only)]
    if not chosen:
        raise unknown("notebook", only, [path.name[:2] for path in notebooks()])
    build_notebooks(chosen)
