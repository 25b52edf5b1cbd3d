"""The notebooks: their form, their solutions, and that what is committed is what the present code
shows.
"""

import ast
import json
import re
from functools import cache
from pathlib import Path

import nbformat
import pytest
import torch

from lab.cli.main import main
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
from lab.course.checker import grade
from lab.course.exercises.registry import EXERCISES
from lab.course.handout import SOLUTIONS_FOLDER, copy_notebooks, handout
from lab.course.predictions import WIDGET_MIME
from lab.course.solutions import (
    fold_solutions,
    module_name,
    solution_code,
    solutions_module,
    with_solutions_run,
)
from lab.course.widgets import PLOTLY_MIME
from lab.errors import LabError
from lab.models.tokenizer import load_tokenizer

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


@cache
def lab_names():
    """The functions and classes that the modules of the lab define."""
    files = (ROOT / "lab").rglob("*.py")
    return set().union(*(defined(file.read_text("utf-8")) for file in files))


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
    for cell in code_cells(read_notebook(path)):
        lines = cell.source.splitlines()
        assert len(lines) <= CELL_LINES and max(map(len, lines)) <= CELL_WIDTH, cell.source
        assert defined(cell.source) & lab_names() == set()


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
        assert has_tag(solution, "solution") and solution.cell_type == "markdown"
        assert solution.source.startswith("<details><summary>Solution</summary>")
    assert not any(has_tag(cell, "solution") for cell in code_cells(read_notebook(path)))


@every_notebook
def test_a_notebook_ends_with_what_can_be_said_and_what_could_not_be_shown(path):
    text = "\n".join(
        cell.source for cell in read_notebook(path).cells if cell.cell_type == "markdown"
    )
    assert text.index("## What you can now say") < text.index("## What this could not show")
    assert re.match(rf"# {path.name[:2]} · .*\?\n", read_notebook(path).cells[0].source)


@every_notebook
def test_the_solutions_are_a_module_that_passes_every_check_of_the_notebook(path):
    names = [name for name, one in EXERCISES.items() if one.notebook == int(path.name[:2])]
    module = {}
    exec(solutions_module(read_notebook(path), path.stem), module)
    for name in names:
        assert grade(EXERCISES[name], module[name], 4).passed, name


@every_notebook
def test_run_all_defines_no_function_of_the_learner_but_in_its_own_cell(path):
    """Neither a solution nor another cell puts something into the name of an exercise."""
    for cell in code_cells(read_notebook(path)):
        names = defined(cell.source) & set(EXERCISES)
        assert bool(names) == has_tag(cell, "exercise") and len(names) <= 1
        for name in names:
            module = {}
            exec("import torch\n" + cell.source.split("check(")[0], module)
            assert module[name](*[None] * len(EXERCISES[name].arguments)) is None


@every_notebook
def test_an_outcome_is_the_first_thing_that_its_cell_shows(path):
    for cell in code_cells(read_notebook(path)):
        before, call, _ = cell.source.partition("outcome(")
        if call and "import" not in before.rpartition("\n")[2]:
            assert "print(" not in before and "show(" not in before, cell.source


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


def cell(kind, source, *tags):
    make = nbformat.v4.new_markdown_cell if kind == "markdown" else nbformat.v4.new_code_cell
    return make(source, metadata={"tags": list(tags)} if tags else {})


def small_notebook():
    return nbformat.v4.new_notebook(
        cells=[
            cell("code", "from math import comb, pi\nimport json"),
            cell("code", "def f(x):\n    ...\n\n\ncheck(f)", "exercise"),
            cell("code", "def f(x):\n    return comb(x, 2)\n\n\ncheck(f)", "solution"),
            cell("code", "print(f(4))"),
        ]
    )


def test_a_solution_is_text_in_the_notebook_and_code_only_while_it_is_executed(tmp_path):
    notebook = small_notebook()
    fold_solutions(notebook)
    folded = notebook.cells[2]
    assert folded.cell_type == "markdown" and "return comb(x, 2)" in folded.source
    assert solution_code(folded) == "def f(x):\n    return comb(x, 2)"
    runnable = with_solutions_run(notebook).cells[2]
    assert runnable.cell_type == "code" and runnable.source == solution_code(folded)
    fold_solutions(notebook)
    assert notebook.cells[2] == folded
    module = solutions_module(notebook, "03-x")
    assert "from math import comb\n" in module and "json" not in module and "pi" not in module
    assert solutions_module(nbformat.v4.new_notebook(cells=[]), "03-x") == ""


def test_an_execution_uses_the_solutions_and_keeps_their_text(monkeypatch):
    notebook = small_notebook()
    for one in notebook.cells:
        one.source = one.source.replace("check(f)", "")
    fold_solutions(notebook)
    executed = execute(notebook, fast=True)
    assert [one.cell_type for one in executed.cells] == ["code", "code", "markdown", "code"]
    assert executed.cells[3].outputs[0].text == "6\n"
    assert [one.execution_count for one in code_cells(executed)] == [1, 2, 3]


def test_a_copy_has_no_outputs_and_its_solutions_beside_it_and_never_overwrites_work(tmp_path):
    written = copy_notebooks(tmp_path / "course")
    folder = tmp_path / "course" / SOLUTIONS_FOLDER
    for original in PATHS:
        copy = nbformat.read(tmp_path / "course" / original.name, as_version=4)
        assert all(one.outputs == [] for one in code_cells(copy))
        assert not any(has_tag(one, "solution") for one in copy.cells)
        module = folder / f"{module_name(original.stem)}.py"
        has_exercises = any(has_tag(one, "exercise") for one in copy.cells)
        assert module.is_file() == has_exercises
        assert (module in written) == has_exercises
    work, lost = tmp_path / "course" / PATHS[3].name, tmp_path / "course" / PATHS[4].name
    work.write_text("a learner's work")
    lost.unlink()
    assert copy_notebooks(tmp_path / "course") == [lost]
    assert work.read_text() == "a learner's work"


def test_a_blank_copy_of_notebook_09_only_says_what_to_write_and_the_usual_one_has_the_code(
    tmp_path,
):
    usual = [path for path in copy_notebooks(tmp_path / "usual") if path.suffix == ".ipynb"]
    blank = [
        path for path in copy_notebooks(tmp_path / "blank", blank=True) if path.suffix == ".ipynb"
    ]
    for original, one, other in zip(PATHS, usual, blank, strict=True):
        whole = [
            cell.source for cell in read_notebook(original).cells if not has_tag(cell, "solution")
        ]
        sources = [
            [cell.source for cell in nbformat.read(path, as_version=4).cells]
            for path in (one, other)
        ]
        assert sources[0] == whole, original.stem
        changed = [(a, b) for a, b in zip(whole, sources[1], strict=True) if a != b]
        assert len(changed) == (10 if original.name.startswith("09") else 0), original.stem
        for code, stub in changed:
            assert defined(stub) == defined(code) and "# " in stub
            ast.parse(stub)
        assert "stub" not in other.read_text("utf-8")


def test_the_examples_in_the_blank_cells_of_notebook_09_are_what_its_code_gives():
    notebook = read_notebook(next(path for path in PATHS if path.name.startswith("09")))
    stubs = [cell for cell in notebook.cells if "stub" in cell.metadata]
    cells = {name: cell for cell in stubs for name in defined(cell.source)}
    tokenizer = load_tokenizer("embedded")
    names = {"torch": torch, "tokenizer": tokenizer}
    names |= {"PAD": tokenizer.pad_token_id, "END": tokenizer.eos_token_id}
    for name in ("pair_rows", "problem"):
        exec(cells[name].source, names)
    assert (
        "of 1+1=, 2 and 36: the ids have 2\n    # rows of 7 tokens"
        in cells["pair_rows"].metadata.stub
    )
    ids, mask = names["pair_rows"]([{"prompt": "1+1=", "chosen": "2", "rejected": "36"}])
    assert ids.shape == (2, 7)
    assert [row.nonzero().flatten().tolist() for row in mask] == [[4, 5], [4, 5, 6]]
    assert "7-9*3= has 7-9=98, 98*3=94" in cells["problem"].metadata.stub
    assert names["answer"]("7-9*3=") == "94"


def test_the_first_notebook_says_where_hints_and_solutions_are_in_each_of_its_forms(tmp_path):
    original = next(path for path in PATHS if path.name.startswith("00"))
    copy_notebooks(tmp_path / "copy")
    handout(tmp_path / "bare", hints=False)
    for folder, hints, folded, beside in (
        (original.parent, True, True, False),
        (tmp_path / "copy", True, False, True),
        (tmp_path / "bare", False, False, False),
    ):
        cells = nbformat.read(folder / original.name, as_version=4).cells
        assert any(has_tag(cell, "hint") for cell in cells) == hints
        assert any(has_tag(cell, "solution") for cell in cells) == folded
        assert (folder / SOLUTIONS_FOLDER / f"{module_name(original.stem)}.py").is_file() == beside
        text = "".join(cell.source for cell in cells if cell.cell_type == "markdown")
        # True in each form, since all of them have the same text.
        assert "may have a folded hint under it" in text
        assert "On the lab's site its solution is folded there too" in text
        assert "beside a copy the solutions are in the folder `solutions`" in text
        assert "a handout has none" in text and "solutions are folded" not in text


def test_a_blank_copy_over_an_older_one_says_that_it_stays(tmp_path, capsys):
    main(["course", "copy", str(tmp_path / "a")])
    assert "--blank" not in capsys.readouterr().out
    main(["course", "copy", str(tmp_path / "a"), "--blank"])
    said = capsys.readouterr().out
    assert (
        "09-from-scratch.ipynb was there and stays as it is: --blank was not applied to it" in said
    )
    (tmp_path / "a" / "09-from-scratch.ipynb").rename(tmp_path / "a" / "mine.ipynb")
    main(["course", "copy", str(tmp_path / "a"), "--blank"])
    assert "not applied" not in capsys.readouterr().out
    blank = (tmp_path / "a" / "09-from-scratch.ipynb").read_text("utf-8")
    assert blank != (tmp_path / "a" / "mine.ipynb").read_text("utf-8")


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
