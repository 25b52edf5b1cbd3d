"""Copies of the notebooks: as they are, or for a class, without solutions and without outputs."""

import shutil
from pathlib import Path

import nbformat
from nbconvert.preprocessors import ClearOutputPreprocessor, TagRemovePreprocessor

from lab.course.build_notebooks import notebooks, read_notebook
from lab.errors import LabError


def student_copy(notebook: nbformat.NotebookNode, *, hints: bool = True) -> nbformat.NotebookNode:
    """Return the notebook without cells tagged "solution" and without outputs; hints stay unless
    `hints` is False.
    """
    removed = {"solution"} if hints else {"solution", "hint"}
    without_solutions, _ = TagRemovePreprocessor(remove_cell_tags=removed).preprocess(notebook, {})
    copy, _ = ClearOutputPreprocessor().preprocess(without_solutions, {})
    copy.metadata.pop("lab", None)
    return copy


def copy_notebooks(out: Path) -> list[Path]:
    """Write every notebook as it is into the folder `out` and return the paths of the copies.

    Raises `LabError` when a file exists already, since it may hold a learner's work.
    """
    targets = _new_files(out)
    for path, target in zip(notebooks(), targets):
        shutil.copyfile(path, target)
    return targets


def handout(out: Path, *, hints: bool = True) -> list[Path]:
    """Write a student copy of every notebook into the folder `out` and return their paths.

    Raises `LabError` when a file exists already, since it may hold a learner's work.
    """
    targets = _new_files(out)
    for path, target in zip(notebooks(), targets):
        nbformat.write(student_copy(read_notebook(path), hints=hints), target)
    return targets


def _new_files(out: Path) -> list[Path]:
    """Make the folder `out` and return a path in it for every notebook."""
    targets = [out / path.name for path in notebooks()]
    for target in targets:
        if target.exists():
            raise LabError(
                f"{target} exists and may hold a learner's work. Choose an empty folder."
            )
    out.mkdir(parents=True, exist_ok=True)
    return targets
