"""Copies of the notebooks for learners: without outputs and without solutions."""

import copy
from pathlib import Path

import nbformat
from nbconvert.preprocessors import ClearOutputPreprocessor, TagRemovePreprocessor

from lab.course.build_notebooks import notebooks, read_notebook
from lab.course.solutions import SOLUTION, module_name, solutions_module
from lab.errors import LabError

SOLUTIONS_FOLDER = "solutions"
OWN, STUB = "own", "stub"
"""The tag of a cell that a learner may write whole, and the key of its metadata with what such a cell
says instead.
"""


def student_copy(
    notebook: nbformat.NotebookNode, *, hints: bool = True, blank: bool = False
) -> nbformat.NotebookNode:
    """Return the notebook without its solutions and without outputs; hints stay unless `hints` is
    False. With `blank` the cells that a learner may write whole only say what to write.
    """
    removed = {SOLUTION} if hints else {SOLUTION, "hint"}
    without_solutions, _ = TagRemovePreprocessor(remove_cell_tags=removed).preprocess(
        copy.deepcopy(notebook), {}
    )
    stripped, _ = ClearOutputPreprocessor().preprocess(without_solutions, {})
    stripped.metadata.pop("lab", None)
    for cell in stripped.cells:
        stub = cell.metadata.pop(STUB, None)
        if blank and stub is not None:
            cell.source = stub
    return stripped


def copy_notebooks(out: Path, *, blank: bool = False) -> list[Path]:
    """Write a student copy of every notebook into the folder `out`, and the solutions into its folder
    `solutions`; return the paths of the files that were written. A file that exists stays as it is,
    since it may hold a learner's work. `blank` is that of `student_copy`.
    """
    (out / SOLUTIONS_FOLDER).mkdir(parents=True, exist_ok=True)
    written = []
    for path in notebooks():
        notebook = read_notebook(path)
        texts = {
            out / path.name: nbformat.writes(student_copy(notebook, blank=blank)) + "\n",
            out / SOLUTIONS_FOLDER / f"{module_name(path.stem)}.py": solutions_module(
                notebook, path.stem
            ),
        }
        for target, text in texts.items():
            if text and not target.exists():
                target.write_text(text, "utf-8")
                written.append(target)
    return written


def with_blank_cells() -> list[str]:
    """Return the file names of the notebooks with cells that a learner may write whole."""
    return [
        path.name
        for path in notebooks()
        if any(STUB in cell.metadata for cell in read_notebook(path).cells)
    ]


def handout(out: Path, *, hints: bool = True, blank: bool = False) -> list[Path]:
    """Write a student copy of every notebook into the folder `out` and return their paths. `hints` and
    `blank` are those of `student_copy`.

    Raises `LabError` when a file exists already, since it may hold a learner's work.
    """
    targets = _new_files(out)
    for path, target in zip(notebooks(), targets):
        nbformat.write(student_copy(read_notebook(path), hints=hints, blank=blank), target)
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
