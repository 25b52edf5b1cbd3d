"""Copies for a class: the notebooks without solutions and without what they printed."""

from pathlib import Path

import nbformat

from lab.course.build_notebooks import has_tag, notebooks, read_notebook
from lab.errors import LabError


def student_copy(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook without cells tagged "solution"; what other cells showed is cleared, hints stay."""
    notebook.cells = [cell for cell in notebook.cells if not has_tag(cell, "solution")]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    notebook.metadata.pop("lab", None)
    return notebook


def handout(out: Path) -> list[Path]:
    """Write a student's copy of every notebook into the folder `out`; a file that is there already
    raises `LabError`, for it may hold work.
    """
    written = []
    for path in notebooks():
        target = out / path.name
        if target.exists():
            raise LabError(
                f"{target} exists and may hold a learner's work. Choose an empty folder."
            )
        written.append(target)
    out.mkdir(parents=True, exist_ok=True)
    for path, target in zip(notebooks(), written):
        nbformat.write(student_copy(read_notebook(path)), target)
    return written
