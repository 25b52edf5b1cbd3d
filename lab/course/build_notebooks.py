"""Execution of the notebooks in a clean kernel, with an image of every figure, and the test whether
they are up to date.

The metadata of a notebook hold under "lab" a digest of its code cells when they were executed, and a
fingerprint of the outputs of a fast execution (LAB_FAST). The digest shows that a cell was edited
and not executed again. The fingerprint is compared with a fast execution by the current code of the
lab, so that an edit to the lab matters only if it changes the outputs of the notebook.
"""

import base64
import hashlib
import math
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
from nbclient import NotebookClient

from lab.course.setup_cell import put_setup_cell
from lab.course.solutions import fold_solutions, with_outputs_of, with_solutions_run
from lab.course.static_images import add_pictures
from lab.course.widgets import PLOTLY_MIME, WIDGET_MIME
from lab.errors import LabError
from lab.storage.paths import top_level

NOTEBOOK_FOLDER = top_level("notebooks")
CELL_TIMEOUT_SECONDS = 600
MAX_NOTEBOOK_BYTES = 1_000_000
_TOLERANCE = {"rel_tol": 0.01, "abs_tol": 1e-3}
"""Numbers this close count as equal: results differ in the last bits between machines."""
_NUMBER = re.compile(r"[-−]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


def notebooks() -> list[Path]:
    """Return the paths of the notebooks in order."""
    return sorted(NOTEBOOK_FOLDER.glob("[0-9][0-9]-*.ipynb"))


def read_notebook(path: Path) -> nbformat.NotebookNode:
    """Return the notebook in a file."""
    return nbformat.read(path, as_version=4)


def has_tag(cell: nbformat.NotebookNode, tag: str) -> bool:
    """Return whether a cell has a tag."""
    return tag in cell.metadata.get("tags", [])


def code_digest(notebook: nbformat.NotebookNode) -> str:
    """Return the SHA-256 digest of the code cells in order."""
    return hashlib.sha256(
        "\0".join(cell.source for cell in notebook.cells if cell.cell_type == "code").encode()
    ).hexdigest()


def execute(notebook: nbformat.NotebookNode, *, fast: bool) -> nbformat.NotebookNode:
    """Return a copy of the notebook, executed by a clean kernel in a temporary folder with its solutions
    in place and with every prediction set to its first option. Its runs and its progress records are
    deleted.
    """
    executed = with_solutions_run(notebook)
    paths = os.pathsep.join(
        [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    with tempfile.TemporaryDirectory() as scratch:
        settings = {
            "LAB_RUNS": str(Path(scratch, "runs")),
            "LAB_COURSE": "",
            "LAB_FAST": "1" if fast else "",
            "LAB_PREDICTIONS": "first",
            "PYTHONPATH": paths,
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_OFFLINE": "1",
        }
        client = NotebookClient(
            executed,
            timeout=CELL_TIMEOUT_SECONDS,
            kernel_name="python3",
            resources={"metadata": {"path": scratch}},
            store_widget_state=False,
            coalesce_streams=True,
        )
        client.execute(env=os.environ | settings)
    return with_outputs_of(notebook, executed)


def fingerprint(notebook: nbformat.NotebookNode) -> list[list[Any]]:
    """Return the outputs of every code cell: texts, and for each line of a figure its name, the number
    of its points and their mean y.
    """
    return [
        [_output_fingerprint(output) for output in cell.outputs]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def _output_fingerprint(output: nbformat.NotebookNode) -> Any:
    if output.output_type == "stream":
        return output.text
    data = output.get("data", {})
    if PLOTLY_MIME not in data:
        return data.get("text/plain", "")
    return [
        [
            trace.get("name", ""),
            len(values := _y_values(trace)),
            sum(values) / len(values) if values else 0.0,
        ]
        for trace in data[PLOTLY_MIME]["data"]
    ]


def _y_values(trace: dict[str, Any]) -> list[float]:
    values = trace.get("y", [])
    if isinstance(values, dict):  # Plotly packs arrays as base64.
        values = np.frombuffer(base64.b64decode(values["bdata"]), dtype=values["dtype"]).tolist()
    return [float(v) for v in values if isinstance(v, int | float) and math.isfinite(v)]


def fingerprint_differences(now: list[list[Any]], then: list[list[Any]]) -> list[str]:
    """Return a sentence for each difference between two fingerprints that exceeds the tolerance."""
    if len(now) != len(then):
        return [f"{len(now)} code cells instead of {len(then)}"]
    messages = []
    for number, (new, old) in enumerate(zip(map(_join_texts, now), map(_join_texts, then)), 1):
        if len(new) != len(old):
            messages.append(f"code cell {number} shows {len(new)} outputs instead of {len(old)}")
        messages += [
            f"code cell {number}: {a!r} instead of {b!r}"
            for a, b in zip(new, old)
            if not _nearly_equal(a, b)
        ]
    return messages


def _join_texts(outputs: list[Any]) -> list[Any]:
    """Join neighbouring texts: a busy kernel sends printed text in several pieces."""
    joined: list[Any] = []
    for output in outputs:
        if joined and isinstance(output, str) and isinstance(joined[-1], str):
            joined[-1] += output
        else:
            joined.append(output)
    return joined


def _nearly_equal(one: Any, other: Any) -> bool:
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_nearly_equal, one, other))
    if isinstance(one, str) and isinstance(other, str):
        numbers = [
            [float(n.replace("−", "-")) for n in _NUMBER.findall(text)] for text in (one, other)
        ]
        return _NUMBER.sub("#", one) == _NUMBER.sub("#", other) and all(
            map(_nearly_equal, *numbers)
        )
    if isinstance(one, int | float) and isinstance(other, int | float):
        return math.isclose(one, other, **_TOLERANCE)
    return bool(one == other)


def build_notebooks(paths: Sequence[Path], log: Callable[[str], None] = print) -> None:
    """Execute each notebook twice: fast for its fingerprint, then in full for its outputs. The file is
    replaced when both have finished.

    Raises `LabError` when a notebook becomes larger than `MAX_NOTEBOOK_BYTES`, and for the copies that
    an installed lab holds.
    """
    if NOTEBOOK_FOLDER.is_relative_to(Path(__file__).parents[1]):
        raise LabError(
            f"{NOTEBOOK_FOLDER} belongs to the installed lab. Only the notebooks of a clone are built:"
            " run make notebooks there. For copies of your own: alab course copy FOLDER"
        )
    for path in paths:
        notebook = read_notebook(path)
        put_setup_cell(notebook)
        fold_solutions(notebook)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        fast_outputs = fingerprint(execute(notebook, fast=True))
        executed = execute(notebook, fast=False)
        executed.metadata = nbformat.from_dict(
            {
                "kernelspec": {
                    "display_name": "Python 3 (ipykernel)",
                    "language": "python",
                    "name": "python3",
                },
                "language_info": {"name": "python"},
                "lab": {"code": code_digest(executed), "fast": fast_outputs},
            }
        )
        for cell in executed.cells:
            cell.metadata.pop("execution", None)
        add_pictures(executed)
        remove_widgets(executed)
        nbformat.validate(executed)
        text = nbformat.writes(executed) + "\n"
        if len(text.encode()) > MAX_NOTEBOOK_BYTES:
            raise LabError(
                f"{path} would have {len(text.encode()):,} bytes; at most {MAX_NOTEBOOK_BYTES:,} are kept."
                " Show fewer or smaller figures."
            )
        partial = path.with_suffix(".partial")
        partial.write_text(text, "utf-8")
        shutil.move(partial, path)
        log(f"{path.name}: {len(text.encode()) / 1000:.0f} kB")


def put_setup_cells(paths: Sequence[Path]) -> list[Path]:
    """Put the cell that installs the lab into notebooks without executing them; return the paths of
    those that changed.
    """
    changed = []
    for path in paths:
        notebook = read_notebook(path)
        was_current = notebook.metadata.get("lab", {}).get("code") == code_digest(notebook)
        put_setup_cell(notebook)
        if was_current:
            notebook.metadata["lab"]["code"] = code_digest(notebook)
        text = nbformat.writes(notebook) + "\n"
        if text != path.read_text("utf-8"):
            path.write_text(text, "utf-8")
            changed.append(path)
    return changed


def remove_widgets(notebook: nbformat.NotebookNode) -> None:
    """Remove widgets, which need a running kernel, from outputs that have another form too."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if WIDGET_MIME in output.get("data", {}) and len(output["data"]) > 1:
                del output["data"][WIDGET_MIME]
