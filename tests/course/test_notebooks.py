"""The notebooks: their form, their solutions, and that what is committed is what the present code
shows.
"""

import ast
import json
import re
from pathlib import Path

import nbformat
import pytest

from lab.course.build_notebooks import (
    MAX_NOTEBOOK_BYTES,
    code_digest,
    execute,
    fingerprint,
    fingerprint_differences,
    has_tag,
    notebooks,
    read_notebook,
)
from lab.course.check import check
from lab.course.exercises.registry import EXERCISES
from lab.course.handout import handout
from lab.course.widgets import PLOTLY_MIME, WIDGET_MIME
from lab.errors import LabError

ROOT = Path(__file__).parents[2]
PATHS = notebooks()
NAMES = [path.stem for path in PATHS]
CELL_LINES, CELL_WIDTH = 15, 115  # A code cell is read without scrolling.
every_notebook = pytest.mark.parametrize("path", PATHS, ids=NAMES)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def defined(source):
    return {
        node.name
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
    }


@every_notebook
def test_a_notebook_is_committed_executed_in_order_without_errors_and_small(path):
    notebook = read_notebook(path)
    nbformat.validate(notebook)
    assert path.stat().st_size <= MAX_NOTEBOOK_BYTES
    assert [cell.execution_count for cell in code_cells(notebook)] == list(
        range(1, len(code_cells(notebook)) + 1)
    )
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    assert [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"] == []


@every_notebook
def test_a_notebook_that_was_edited_has_been_executed_again(path):
    notebook = read_notebook(path)
    assert notebook.metadata["lab"]["code"] == code_digest(notebook), "make notebooks"


@every_notebook
def test_every_figure_is_there_for_a_static_viewer_too_and_no_widget_is_left_without_its_kernel(
    path,
):
    for cell in code_cells(read_notebook(path)):
        for output in cell.outputs:
            data = output.get("data", {})
            assert WIDGET_MIME not in data
            assert (PLOTLY_MIME in data) == ("image/png" in data)
            assert not data or data["text/plain"]


@every_notebook
def test_cells_are_short_and_redefine_nothing_that_the_lab_has(path):
    lab_names = set().union(
        *(
            defined(file.read_text("utf-8"))
            for file in (ROOT / "lab").rglob("*.py")
            if file.parent.name != "ui"
        )
    )
    for cell in code_cells(read_notebook(path)):
        lines = cell.source.splitlines()
        assert len(lines) <= CELL_LINES and max(map(len, lines)) <= CELL_WIDTH, cell.source
        assert defined(cell.source) & lab_names == set()


@every_notebook
def test_a_notebook_asks_for_its_exercises_each_with_a_hint_and_a_folded_solution(path):
    cells, number = read_notebook(path).cells, int(path.name[:2])
    asked = [i for i, cell in enumerate(cells) if has_tag(cell, "exercise")]
    names = [re.search(r"^check\((\w+)\)$", cells[i].source, re.M).group(1) for i in asked]
    assert sorted(names) == sorted(
        name for name, exercise in EXERCISES.items() if exercise.notebook == number
    )
    for i in asked:
        hint, solution = cells[i + 1], cells[i + 2]
        assert (
            has_tag(hint, "hint")
            and hint.source.startswith("<details><summary>Hint</summary>")
            and hint.source.endswith("</details>")
        )
        assert (
            has_tag(solution, "solution")
            and solution.metadata["jupyter"]["source_hidden"] is True
            and "recorded=False" in solution.source
        )


@every_notebook
def test_a_notebook_ends_with_what_can_be_said_and_what_could_not_be_shown(path):
    text = "\n".join(
        cell.source for cell in read_notebook(path).cells if cell.cell_type == "markdown"
    )
    assert text.index("## What you can now say") < text.index("## What this could not show")
    assert re.match(rf"# {path.name[:2]} · .*\?\n", read_notebook(path).cells[0].source)


@every_notebook
def test_every_solution_passes_its_check_and_every_unwritten_exercise_says_so(
    path, capsys, monkeypatch
):
    monkeypatch.setenv("LAB_COURSE", "")
    imports = "import torch\nfrom torch.nn.functional import logsigmoid"
    for cell in read_notebook(path).cells:
        starts = [
            start
            for tag, start in (("exercise", "Not yet: "), ("solution", "Right: "))
            if has_tag(cell, tag)
        ]
        for start in starts:
            exec(f"{imports}\n{cell.source}", {"check": check})
            assert capsys.readouterr().out.startswith(start), cell.source
        if cell.cell_type == "code" and not starts:
            imports = "\n".join(
                [
                    imports,
                    *(
                        ast.unparse(node)
                        for node in ast.parse(cell.source).body
                        if isinstance(node, ast.Import | ast.ImportFrom)
                    ),
                ]
            )


@pytest.mark.timeout(600)
@every_notebook
def test_the_present_code_shows_what_is_committed(path):
    notebook = read_notebook(path)
    assert (
        fingerprint_differences(
            fingerprint(execute(notebook, fast=True)), notebook.metadata["lab"]["fast"]
        )
        == []
    ), "make notebooks"


# --- the machinery
# ----------------------------------------------------------------------------------------------------


def test_differences_are_found_beyond_rounding_and_only_there():
    then = [[["a 1.0000 b"], "KL 2.50 nats"], [[["line", 3, 0.5]]]]
    assert fingerprint_differences(then, json.loads(json.dumps(then))) == []
    assert (
        fingerprint_differences([[["a 1.0000 b"], "KL 2.51 nats"], [[["line", 3, 0.5001]]]], then)
        == []
    )
    assert (
        fingerprint_differences([[["a 1.0000 b"], "KL 2.", "50 nats"], [[["line", 3, 0.5]]]], then)
        == []
    )
    assert (
        len(fingerprint_differences([[["a 1.0000 b"], "KL 2.60 nats"], [[["line", 3, 0.5]]]], then))
        == 1
    )
    assert (
        len(fingerprint_differences([[["a 1.0000 b"], "KL 2.50 bits"], [[["line", 4, 0.5]]]], then))
        == 2
    )
    assert (
        len(fingerprint_differences(then[:1], then)) == 1
        and len(fingerprint_differences([then[0][:1], then[1]], then)) == 1
    )


def test_a_handout_keeps_hints_and_loses_solutions_and_never_overwrites_work(tmp_path):
    written = handout(tmp_path / "class")
    assert [path.name for path in written] == [path.name for path in PATHS]
    for path, original in zip(written, PATHS):
        copy, whole = nbformat.read(path, as_version=4), read_notebook(original)
        nbformat.validate(copy)
        assert [cell.source for cell in copy.cells] == [
            cell.source for cell in whole.cells if not has_tag(cell, "solution")
        ]
        assert all(cell.outputs == [] and cell.execution_count is None for cell in code_cells(copy))
        assert not any(has_tag(cell, "solution") for cell in copy.cells)
    with pytest.raises(LabError, match="may hold a learner's work"):
        handout(tmp_path / "class")
