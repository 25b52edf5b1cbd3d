"""Execute the notebooks from a clean kernel and write what they print, with a picture of every
figure; see whether they have drifted.

A notebook's metadata hold, under "lab", a digest of its code cells as they were executed, and what
a fast execution (LAB_FAST) printed and drew. The first tells when a cell was edited and not run
again. The second is compared with a fast execution by the present code of the lab, so that an edit
to the lab matters only if it changes what the notebook shows.
"""

import base64
import copy
import hashlib
import math
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
from nbclient import NotebookClient

from lab.course.static_images import add_pictures
from lab.course.widgets import PLOTLY_MIME, WIDGET_MIME
from lab.errors import LabError

NOTEBOOK_FOLDER = Path(__file__).parents[2] / "notebooks"
CELL_TIMEOUT_SECONDS = 600  # that one cell may take on a busy machine
CELL_LINES, CELL_WIDTH = 15, 115  # A code cell is read without scrolling.
MAX_NOTEBOOK_BYTES = 1_000_000  # bytes of a notebook file
_TOLERANCE = {
    "rel_tol": 0.01,
    "abs_tol": 1e-3,
}  # Differences of numbers that are no drift: sums differ in the last bits from machine to machine.
_NUMBER = re.compile(r"[-−]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


def notebooks() -> list[Path]:
    """The course's notebooks in order."""
    return sorted(NOTEBOOK_FOLDER.glob("[0-9][0-9]-*.ipynb"))


def read_notebook(path: Path) -> nbformat.NotebookNode:
    """A notebook file."""
    return nbformat.read(path, as_version=4)


def has_tag(cell: nbformat.NotebookNode, tag: str) -> bool:
    """Whether a cell has a tag."""
    return tag in cell.metadata.get("tags", [])


def code_digest(notebook: nbformat.NotebookNode) -> str:
    """What the code cells are, in order."""
    return hashlib.sha256(
        "\0".join(cell.source for cell in notebook.cells if cell.cell_type == "code").encode()
    ).hexdigest()


def execute(notebook: nbformat.NotebookNode, *, fast: bool) -> nbformat.NotebookNode:
    """A copy of the notebook, executed by a clean kernel in a folder of its own; its runs, and what
    it records, are thrown away.
    """
    done = copy.deepcopy(notebook)
    paths = os.pathsep.join(
        [str(NOTEBOOK_FOLDER.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    with tempfile.TemporaryDirectory() as scratch:
        settings = {
            "LAB_RUNS": str(Path(scratch, "runs")),
            "LAB_COURSE": "",
            "LAB_FAST": "1" if fast else "",
            "PYTHONPATH": paths,
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_OFFLINE": "1",
        }
        client = NotebookClient(
            done,
            timeout=CELL_TIMEOUT_SECONDS,
            kernel_name="python3",
            resources={"metadata": {"path": scratch}},
            store_widget_state=False,
        )
        client.execute(env=os.environ | settings)
    return done


def fingerprint(notebook: nbformat.NotebookNode) -> list[list[Any]]:
    """What every code cell showed: its text, and of every figure's lines the name, the number of
    points and their mean height.
    """
    return [
        [_shown(output) for output in cell.outputs]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def _shown(output: nbformat.NotebookNode) -> Any:
    if output.output_type == "stream":
        return output.text
    data = output.get("data", {})
    if PLOTLY_MIME not in data:
        return data.get("text/plain", "")
    return [
        [
            trace.get("name", ""),
            len(heights := _heights(trace)),
            sum(heights) / len(heights) if heights else 0.0,
        ]
        for trace in data[PLOTLY_MIME]["data"]
    ]


def _heights(trace: dict[str, Any]) -> list[float]:
    values = trace.get("y", [])
    if isinstance(values, dict):  # Plotly packs arrays as base64.
        values = np.frombuffer(base64.b64decode(values["bdata"]), dtype=values["dtype"]).tolist()
    return [float(v) for v in values if isinstance(v, int | float) and math.isfinite(v)]


def fingerprint_differences(now: list[list[Any]], then: list[list[Any]]) -> list[str]:
    """Where two fingerprints differ by more than rounding, in words."""
    if len(now) != len(then):
        return [f"{len(now)} code cells instead of {len(then)}"]
    found = []
    for number, (here, there) in enumerate(zip(map(_joined, now), map(_joined, then)), 1):
        if len(here) != len(there):
            found.append(f"code cell {number} shows {len(here)} things instead of {len(there)}")
        found += [
            f"code cell {number}: {a!r} instead of {b!r}"
            for a, b in zip(here, there)
            if not _alike(a, b)
        ]
    return found


def _joined(shown: list[Any]) -> list[Any]:
    """Neighbouring texts as one: a busy kernel sends what is printed in pieces."""
    out: list[Any] = []
    for part in shown:
        if out and isinstance(part, str) and isinstance(out[-1], str):
            out[-1] += part
        else:
            out.append(part)
    return out


def _alike(one: Any, other: Any) -> bool:
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_alike, one, other))
    if isinstance(one, str) and isinstance(other, str):
        numbers = [
            [float(n.replace("−", "-")) for n in _NUMBER.findall(text)] for text in (one, other)
        ]
        return _NUMBER.sub("#", one) == _NUMBER.sub("#", other) and all(map(_alike, *numbers))
    if isinstance(one, int | float) and isinstance(other, int | float):
        return math.isclose(one, other, **_TOLERANCE)
    return one == other


def build_notebooks(paths: Sequence[Path], say: Any = print) -> None:
    """Execute notebooks, twice: in fast mode for the record, then in full for what is shown. Each
    file is replaced when both are done.
    """
    for path in paths:
        notebook = read_notebook(path)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        quick = fingerprint(execute(notebook, fast=True))
        done = execute(notebook, fast=False)
        done.metadata = nbformat.from_dict(
            {
                "kernelspec": {
                    "display_name": "Python 3 (ipykernel)",
                    "language": "python",
                    "name": "python3",
                },
                "language_info": {"name": "python"},
                "lab": {"code": code_digest(done), "fast": quick},
            }
        )
        for cell in done.cells:
            cell.metadata.pop("execution", None)
        add_pictures(done)
        without_widgets(done)
        nbformat.validate(done)
        text = nbformat.writes(done) + "\n"
        if len(text.encode()) > MAX_NOTEBOOK_BYTES:
            raise LabError(
                f"{path} would have {len(text.encode()):,} bytes; at most {MAX_NOTEBOOK_BYTES:,} are kept."
                " Show fewer or smaller figures."
            )
        partial = path.with_suffix(".partial")
        partial.write_text(text, "utf-8")
        shutil.move(partial, path)
        say(f"{path.name}: {len(text.encode()) / 1000:.0f} kB")


def without_widgets(notebook: nbformat.NotebookNode) -> None:
    """Drop what only a running kernel can show, where something else stands in its place."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if WIDGET_MIME in output.get("data", {}) and len(output["data"]) > 1:
                del output["data"][WIDGET_MIME]
