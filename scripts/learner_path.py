"""Walks a new learner's path through notebooks and counts its actions.

    python scripts/learner_path.py 03 06 --record lab/assets/course/learner-path.json

Each notebook is the copy that `python -m lab course copy` makes. Cells are run in their order by a kernel
with one thread. At an exercise the stub is run first, then the solution is written in its place and checked.
A question is answered with its first option before the next cell. The script ends with an error if a cell
fails or a check does not pass. Reading, thinking and mistakes take no time here, so the seconds are those of
the machine alone. With --fast a run has three updates: then the actions count, and no seconds are given.
"""

import argparse
import json
import os
import platform
import re
import tempfile
import time
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell

from lab.course.build_notebooks import CELL_TIMEOUT_SECONDS, has_tag, notebooks, read_notebook
from lab.course.handout import copy_notebooks
from lab.course.solutions import is_solution, solution_code
from lab.experiments.run_log import code_commit

PICK = """import lab.course.predictions as _p
for _one in _p._asked.values():
    _one.value = _one.value or _one.options[0]
"""
CPU = "import resource as _r; print(sum(sum(_r.getrusage(w)[:2]) for w in (_r.RUSAGE_SELF, _r.RUSAGE_CHILDREN)))"


class Walk:
    """One notebook, and what a learner does in it."""

    def __init__(self, folder: Path, number: str) -> None:
        path = next(folder.glob(f"{number}-*.ipynb"))
        source = read_notebook(next(p for p in notebooks() if p.name == path.name))
        self.solutions = [solution_code(cell) for cell in source.cells if is_solution(cell)]
        self.notebook = nbformat.read(path, as_version=4)
        self.client = NotebookClient(
            self.notebook,
            timeout=CELL_TIMEOUT_SECONDS,
            kernel_name="python3",
            resources={"metadata": {"path": str(folder)}},
        )
        self.counts = {"notebook": number, "words_read": 0, "cells_run": 0, "functions_written": 0}
        self.counts |= {"checks_passed": 0, "predictions": 0}
        self.longest = 0.0

    def go(self, environment: dict[str, str]) -> dict[str, Any]:
        """Runs the notebook from top to bottom and returns the counts."""
        start = time.perf_counter()
        with self.client.setup_kernel(env=environment):
            for place, cell in enumerate(self.notebook.cells):
                if cell.cell_type == "markdown":
                    self.counts["words_read"] += len(re.findall(r"\w+", cell.source))
                elif cell.cell_type == "code":
                    self._code(place, cell)
            cpu = float(self._hidden(CPU))
        seconds = {"machine_seconds": round(time.perf_counter() - start, 1)}
        seconds |= {"cpu_seconds": round(cpu, 1), "longest_cell_seconds": round(self.longest, 1)}
        return self.counts | seconds

    def _code(self, place: int, cell: nbformat.NotebookNode) -> None:
        self._run(place, cell)
        if has_tag(cell, "exercise"):
            function = self.solutions.pop(0)
            check = next(line for line in cell.source.splitlines() if line.startswith("check("))
            cell.source = f"{function}\n\n\n{check}"
            self.counts["functions_written"] += 1
            shown = self._run(place, cell)
            if "Right: " not in shown:
                raise SystemExit(f"{check} does not pass: {shown[:500]}")
            self.counts["checks_passed"] += 1
        if asked := len(re.findall(r"\bpredict\(", cell.source)):
            self.counts["predictions"] += asked
            self._hidden(PICK)

    def _run(self, place: int, cell: nbformat.NotebookNode) -> str:
        self.counts["cells_run"] += 1
        start = time.perf_counter()
        self.client.execute_cell(cell, place)
        self.longest = max(self.longest, time.perf_counter() - start)
        return "".join(output.get("text", "") for output in cell.outputs)

    def _hidden(self, code: str) -> str:
        """Runs code that is no action of the learner, and returns what it prints."""
        cell = new_code_cell(code)
        self.notebook.cells.append(cell)
        self.client.execute_cell(cell, len(self.notebook.cells) - 1)
        self.notebook.cells.pop()
        return "".join(output.get("text", "") for output in cell.outputs)


def walk(numbers: list[str], fast: bool) -> list[dict[str, Any]]:
    """Returns what a learner does in each of the notebooks, in new copies with a new progress file."""
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        copy_notebooks(folder)
        settings = {
            "LAB_RUNS": str(folder / "runs"),
            "OMP_NUM_THREADS": "1",
            "LAB_FAST": "1" if fast else "",
        }
        settings |= {"LAB_COURSE": str(folder / "progress.jsonl"), "LAB_PREDICTIONS": ""}
        paths = [str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]
        settings["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        for number in numbers:
            row = Walk(folder, number).go(dict(os.environ) | settings)
            rows.append({k: v for k, v in row.items() if not (fast and k.endswith("seconds"))})
            print(json.dumps(row), "load", *os.getloadavg(), flush=True)
    return rows


def main() -> None:
    """Walk through the notebooks and write the record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("numbers", nargs="+", help="numbers of notebooks, such as 03")
    parser.add_argument("--record", type=Path, help="file to write the counts into")
    parser.add_argument("--fast", action="store_true", help="runs with three updates")
    given = parser.parse_args()
    words = [*given.numbers, *(["--fast"] if given.fast else [])]
    facts = {
        "command": f"python scripts/learner_path.py {' '.join(words)}",
        "device": f"cpu, {platform.machine()}, one thread",
        "commit": code_commit(),
        "load_before": round(os.getloadavg()[0], 1),
    }
    facts |= {"notebooks": walk(given.numbers, given.fast)}
    if given.record:
        given.record.write_text(json.dumps(facts, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
