"""Cells after one that waits for a prediction: those that need its names wait too, and say so in one line."""

import ast
import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from lab.course.build_notebooks import notebooks, read_notebook
from lab.course.handout import student_copy
from lab.course.waiting import names_of

ROOT = Path(__file__).parents[2]
ASK = """from lab.course.predictions import outcome, predict, require_predictions

asked = predict("Which?", ("one", "two"))"""


def run_all(cells, folder, **settings):
    """Execute every cell in a real kernel, whatever the ones before it raised; returns of each cell the
    name of its error ("" for none) and all that it shows.
    """
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(own) for own in cells])
    executed = executed_copy(notebook, folder, **settings)
    return [(error_of(cell)[0], shown(cell)) for cell in executed.cells]


def executed_copy(notebook, folder, **settings):
    client = NotebookClient(
        notebook,
        timeout=300,
        kernel_name="python3",
        allow_errors=True,
        resources={"metadata": {"path": str(folder)}},
    )
    own = {"LAB_PREDICTIONS": "", "LAB_COURSE": "", "LAB_RUNS": str(folder / "runs")}
    return client.execute(env=os.environ | own | {"PYTHONPATH": str(ROOT)} | settings)


def error_of(cell):
    errors = [own for own in cell.outputs if own.output_type == "error"]
    return (errors[0].ename, "\n".join(errors[0].traceback)) if errors else ("", "")


def shown(cell):
    streams = [own.text for own in cell.outputs if own.output_type == "stream"]
    return "".join(streams) + error_of(cell)[1]


def test_a_cell_that_needs_a_waiting_cell_says_so_and_errors_of_its_own_stay(tmp_path):
    told = run_all(
        [
            ASK,
            "early = 1\nfrom math import pi\nrequire_predictions()\nrun, kept = [3], {}",
            "print(run[0])",
            "total = sum(run)",
            "print(total)",
            "print(early, pi < 4)",
            "print(mispelt)",
            "for own in run: print(own)",
            "run = [5]",
            "print(run[0])",
            "asked.value = 'one'",
            "require_predictions()\nrun, kept = [3], {}",
            "total = sum(run) + len(kept)\nprint(total)",
            "print(mispelt)",
        ],
        tmp_path,
    )
    errors = [name for name, _ in told]
    waits, real = "PredictFirst", "NameError"
    assert errors == ["", waits, waits, waits, waits, "", real, waits, "", "", "", "", "", real]
    assert told[2][1] == (
        "Predict first. This cell needs run, which a cell above gives after its prediction."
    )
    assert "needs total," in told[4][1]
    assert [told[place][1] for place in (5, 9, 12)] == ["1 True\n", "5\n", "3\n"]


def test_a_cell_does_not_take_an_older_value_for_that_of_a_waiting_cell(tmp_path):
    told = run_all(
        [
            "found = {'old': 1}\nruns = {}",
            ASK,
            "require_predictions()\nfound = [2]\nruns['new'] = 3",
            "print(found)",
            "print(runs)",
            "for found in (7, 8):\n    print(found)",
            "print(found)",
        ],
        tmp_path,
    )
    assert [name for name, _ in told[2:]] == ["PredictFirst"] * 3 + [""] * 2
    assert [text for _, text in told[5:]] == ["7\n8\n", "8\n"]


def test_a_prediction_that_is_set_leaves_every_error_as_it_is(tmp_path):
    told = run_all([ASK, "require_predictions()\nprint(run)"], tmp_path, LAB_PREDICTIONS="first")
    assert told[1][0] == "NameError"


@pytest.mark.parametrize(
    ("source", "reads", "writes"),
    [
        ("a = b + 1\nc = a", {"b"}, {"a", "c"}),
        ("a += b", {"a", "b"}, {"a"}),
        ("for x, y in rows:\n    z = x", {"rows"}, {"x", "y", "z"}),
        ("t = [x for x in rows if x > low]", {"rows", "low"}, {"t"}),
        ("def f(x, y=d):\n    k = x + g\n    return k", {"d", "g"}, {"f"}),
        ("class C(B):\n    n = q", {"B", "q"}, {"C"}),
        ("import os.path\nfrom math import pi as p", set(), {"os", "p"}),
        ("table[key] = 1", {"table", "key"}, {"table"}),
        ("run.note = 1", {"run"}, {"run"}),
        ("with open(path) as file:\n    text = file.read()", {"open", "path"}, {"file", "text"}),
        ("print(n := 3, n)", {"print"}, {"n"}),
        ("try:\n    a = 1\nexcept Bad as e:\n    b = e", {"Bad"}, {"a", "b", "e"}),
        ("f = lambda x: x + m", {"m"}, {"f"}),
    ],
)
def test_names_that_a_cell_reads_and_writes(source, reads, writes):
    assert names_of(ast.parse(source).body) == (reads, writes)


ASKING = [
    path for path in notebooks() if any("predict(" in c.source for c in read_notebook(path).cells)
]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("path", ASKING, ids=lambda path: path.stem)
def test_run_all_of_an_unanswered_notebook_ends_in_no_error_but_that_its_predictions_come_first(
    path, tmp_path
):
    notebook = student_copy(read_notebook(path))
    executed = executed_copy(notebook, tmp_path, LAB_FAST="1", HF_HUB_OFFLINE="1")
    said = [error_of(cell) for cell in executed.cells if cell.cell_type == "code"]
    assert [text for name, text in said if name not in ("", "PredictFirst")] == []
    assert sum(name == "PredictFirst" for name, _ in said) > 0
