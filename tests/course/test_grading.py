"""Grading: what honest learners and cheats get, the limits of a learner's process, and the tables."""

import csv
import io
import json

import nbformat
import pytest
import synthetic_class
import torch

from lab.cli.main import main
from lab.course.check import check
from lab.course.checker import grade
from lab.course.code_hash import code_hash
from lab.course.exercises.registry import EXERCISES
from lab.course.grading import child
from lab.course.grading.exports import NBGRADER_COLUMNS, gradescope_results, write_grades
from lab.course.grading.grade import grade_folder
from lab.course.grading.process import LearnerError, LearnerProcess, Limits
from lab.course.grading.sheets import class_sheet, csv_text, exercise_sheet
from lab.course.grading.similar import form_of, near_duplicates
from lab.course.grading.submissions import Cells, cells_of, program_of, submissions
from lab.errors import LabError

RATIO = "def my_ratio(new, old):\n    return (new - old).exp()"
CALL = (torch.zeros(1, 2, dtype=torch.float64), torch.ones(1, 2, dtype=torch.float64))


@pytest.fixture(scope="module")
def process():
    learner = LearnerProcess(Limits(seconds=20.0))
    yield learner
    learner.close()


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """Three honest learners and five cheats, graded."""
    folder = tmp_path_factory.mktemp("class")
    synthetic_class.write_class(folder, 3)
    return grade_folder(folder, seed=19)


def results(graded, learner):
    return {row.exercise: row for row in graded.learners()[learner]}


# --- a class with cheats


@pytest.mark.parametrize("learner", ["learner01", "learner02"])
def test_an_honest_learner_passes_what_was_written_and_has_no_mark(graded, learner):
    rows = results(graded, learner)
    assert {n for n, row in rows.items() if row.passed} == set(synthetic_class.STYLES)
    assert {row.result for row in rows.values()} == {"passed", "missing"}
    others = {m for row in rows.values() for m in row.marks} - {"like copyist"}
    assert others == set()


def test_a_function_of_the_lab_is_not_there_whether_it_is_imported_openly_or_not(graded):
    row = results(graded, "importer")["my_dpo_loss"]
    assert (row.result, row.marks) == ("uses the lab", ("uses the lab",))
    row = results(graded, "smuggler")["my_dpo_loss"]
    assert row.result == "ModuleNotFoundError" and "lab is not there" in row.message


def test_a_constant_and_a_forged_progress_file_do_not_pass(graded):
    assert not results(graded, "constant")["my_dpo_loss"].passed
    rows = results(graded, "forger")
    assert not any(row.passed for row in rows.values())
    claimed = {n for n, row in rows.items() if "progress.jsonl says passed" in row.marks}
    assert claimed == set(synthetic_class.STYLES)


def test_a_copied_answer_with_other_variables_is_marked_for_both(graded):
    assert "like learner01" in results(graded, "copyist")["my_gae"].marks
    assert "like copyist" in results(graded, "learner01")["my_gae"].marks


# --- the process of a learner


def test_a_function_in_the_process_gives_what_it_gives_here(process):
    process.define(RATIO, "my_ratio")
    assert torch.equal(process(*CALL), (CALL[0] - CALL[1]).exp())
    assert grade(EXERCISES["my_ratio"], process, 3).passed


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        ("import lab", "ModuleNotFoundError", "lab is not there"),
        ("import sys; sys.meta_path.pop(0); import lab", "PermissionError", "may not be opened"),
        ("open('LAB').read()", "PermissionError", "may not be opened"),
        ("open('HERE').read()", "PermissionError", "may not be opened"),
        ("import os; os.system('true')", "PermissionError", "os.system is not allowed"),
        ("import subprocess; subprocess.run(['true'])", "PermissionError", "not allowed"),
        ("import socket; socket.create_connection(('127.0.0.1', 9))", "PermissionError", "socket"),
        ("import os; os.remove('HERE')", "PermissionError", "os.remove is not allowed"),
        ("raise NotImplementedError", "NotImplementedError", ""),
        ("return undefined", "NameError", "at `return undefined`"),
    ],
)
def test_what_a_function_may_not_do_ends_in_an_error_that_says_so(process, body, kind, words):
    lab_file = EXERCISES["my_ratio"].reference.__code__.co_filename
    body = body.replace("LAB", lab_file).replace("HERE", __file__)
    process.define(f"def f():\n    {body}", "f")
    with pytest.raises((LearnerError, NotImplementedError)) as caught:
        process()
    assert type(caught.value).__name__ == kind and words in str(caught.value)


def test_a_function_that_never_ends_and_one_that_takes_all_memory_end_their_process_only(process):
    short = LearnerProcess(Limits(seconds=1.0, memory_mib=256))
    try:
        short.define("def f():\n    while True: ...", "f")
        with pytest.raises(LearnerError, match="took longer than 1 s"):
            short()
        short.define("def f():\n    return len(bytearray(2**30))", "f")
        if short.note:  # Memory is not limited on this system.
            pytest.skip(short.note)
        with pytest.raises(LearnerError):
            short()
        short.define("def f():\n    import os; os._exit(0)", "f")
        with pytest.raises(LearnerError, match="ended its process"):
            short()
        short.define("def f():\n    print('noise'); return 3", "f")
        assert short() == 3
    finally:
        short.close()


def test_an_answer_that_is_no_value_of_the_protocol_is_refused_without_a_look_inside():
    for coded in (
        ["tensor", "float64", [3], [1.0], False],
        ["object", 1],
        {},
        None,
        [],
        ["int", "x"],
    ):
        with pytest.raises(ValueError):
            child.decode(coded)
    tensor = torch.tensor([[1.5, float("inf")]], requires_grad=True)
    back = child.decode(json.loads(json.dumps(child.encode((tensor, [True, "ä", 2, None])))))
    assert (
        torch.equal(back[0], tensor) and back[0].requires_grad and back[1] == [True, "ä", 2, None]
    )
    assert type(child.decode(child.encode({1: 2}))).__name__ == "dict"


def test_limits_out_of_range_are_refused():
    with pytest.raises(LabError, match="0.1 to 3600"):
        Limits(seconds=0)


# --- what learners hand in


def notebook(path, *cells, tags=()):
    made = [nbformat.v4.new_code_cell(source) for source in cells]
    if tags:
        made[-1].metadata["tags"] = list(tags)
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=made), path)
    return path


def test_a_program_has_what_the_function_needs_and_nothing_that_trains(tmp_path):
    path = notebook(
        tmp_path / "a.ipynb",
        "%pip install torch\nimport torch as th\nimport math\nfrom lab.course.check import check",
        "EPS = 1e-4\nruns = [train(b) for b in (1, 2)]\n\ndef helper(x):\n    return th.exp(x) + EPS",
        "def my_ratio(a, b):\n    return 0",
        "def my_ratio(a, b):\n    runs = helper(a - b)\n    return runs\n\ncheck(my_ratio)",
    )
    program = program_of(cells_of(path), "my_ratio")
    assert program.source.splitlines()[:2] == ["import torch as th", "EPS = 0.0001"]
    assert "train" not in program.source and "check" not in program.source
    assert program.statement.startswith("def my_ratio(a, b):\n    runs = helper")
    assert program_of(cells_of(path), "my_gae").problem == "missing"


def test_a_cell_with_a_syntax_error_takes_only_its_own_exercise(tmp_path):
    cells = cells_of(notebook(tmp_path / "a.ipynb", RATIO, "def my_gae(r, v:\n    return r"))
    assert program_of(cells, "my_gae").problem == "syntax error"
    assert program_of(cells, "my_ratio").source == RATIO


def test_the_cells_with_the_labs_solutions_do_not_count(tmp_path):
    path = notebook(tmp_path / "a.ipynb", "def my_ratio(a, b):\n    ...", RATIO, tags=["solution"])
    assert program_of(cells_of(path), "my_ratio").statement == "def my_ratio(a, b):\n    ..."


def test_a_solution_that_is_imported_to_go_on_does_not_replace_the_learners_function(tmp_path):
    borrowed = "from solutions.nb05_ppo_to_grpo import my_ratio, my_exact_kl"
    cells = cells_of(notebook(tmp_path / "a.ipynb", RATIO, borrowed))
    assert program_of(cells, "my_ratio").statement == RATIO
    program = program_of(cells, "my_exact_kl")
    assert program.from_lab[1] == "solutions.nb05_ppo_to_grpo.my_exact_kl"


def test_a_learner_is_a_subfolder_or_a_notebook_and_no_learner_is_an_error(tmp_path):
    notebook(tmp_path / "s1234567" / "assignment" / "03-dpo.ipynb", RATIO)
    notebook(tmp_path / "s1234567" / ".ipynb_checkpoints" / "03-dpo.ipynb", RATIO)
    notebook(tmp_path / "Zoë Müller.ipynb", RATIO)
    (tmp_path / "empty").mkdir()
    found = submissions(tmp_path)
    assert [(s.learner, len(s.notebooks)) for s in found] == [
        ("Zoë Müller", 1),
        ("s1234567", 1),
    ] or [(s.learner, len(s.notebooks)) for s in found] == [("s1234567", 1), ("Zoë Müller", 1)]
    with pytest.raises(LabError, match="no notebooks"):
        submissions(tmp_path / "empty")
    with pytest.raises(LabError, match="is no folder"):
        submissions(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "text", ["not json", '{"cells": null, "nbformat": 4}', '{"cells": 3}', "[1, 2]", "null", ""]
)
def test_a_file_that_is_no_notebook_is_named_in_the_result_and_stops_nobody(tmp_path, text):
    (tmp_path / "ada").mkdir()
    (tmp_path / "ada" / "05.ipynb").write_text(text)
    notebook(tmp_path / "bob" / "05.ipynb", RATIO)
    rows = grade_folder(tmp_path, only="05", seed=1).learners()
    assert {row.result for row in rows["ada"]} == {"unreadable"}
    assert [row.exercise for row in rows["bob"] if row.passed] == ["my_ratio"]


# --- alike


def form(source):
    import ast

    return form_of(program_of(Cells(tuple(ast.parse(source).body), ()), "my_gae"))


def test_layout_and_comments_do_not_change_a_hash_and_a_constant_does():
    one = "def my_gae(r, v):\n    'text'\n    return r  # right\n"
    assert code_hash(one) == code_hash("def my_gae(r: int, v) -> int:\n\n    return (r)")
    assert code_hash(one) != code_hash(one.replace("return r", "return r + 0"))
    assert len(code_hash(one)) == 12 and code_hash("def (") == ""


def test_renamed_variables_are_near_duplicates_and_short_functions_are_left_out():
    style = synthetic_class.STYLES["my_gae"][0]
    names = {"a": "x", "b": "y", "c": "z", "i": "t"}
    other = {"a": "acc", "b": "nxt", "c": "out", "i": "k"}
    forms = {"ada": form(style.format(**names)), "bob": form(style.format(**other))}
    third = form(synthetic_class.STYLES["my_gae"][1].format(**names))
    short = form("def my_gae(a, b):\n    return a - b")
    found = near_duplicates(forms | {"eve": third, "kim": short, "lee": short})
    assert found == {
        "ada": {"bob": "1.00"},
        "bob": {"ada": "1.00"},
        "eve": {},
        "kim": {},
        "lee": {},
    }
    usual = near_duplicates(forms, form(style.format(**names)))
    assert usual == {"ada": {}, "bob": {}}


# --- tables


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1"])
def test_a_cell_that_a_spreadsheet_would_compute_is_text(text):
    ((_,), (cell,)) = csv.reader(io.StringIO(csv_text(["learner"], [[text]]), newline=""))
    assert cell == f"'{text.strip()}"


def test_the_tables_have_a_row_for_each_learner_and_each_exercise(graded, tmp_path):
    rows = list(csv.DictReader(io.StringIO(class_sheet(graded))))
    assert [row["learner"] for row in rows] == sorted(row["learner"] for row in rows)
    by_name = {row["learner"]: row for row in rows}
    assert by_name["learner01"]["passed"] == "4" and by_name["forger"]["passed"] == "0"
    assert by_name["importer"]["look at"].startswith("my_dpo_loss: uses the lab")
    long = list(csv.DictReader(io.StringIO(exercise_sheet(graded))))
    assert len(long) == 8 * len(EXERCISES)
    hashed = [row for row in long if row["result"] == "passed"]
    assert hashed and all(len(row["code"]) == 12 and float(row["seconds"]) >= 0 for row in hashed)
    paths = write_grades(graded, tmp_path / "out")
    assert len(paths) == 3 + 8 and all(path.is_file() for path in paths)
    table = list(csv.reader(io.StringIO((tmp_path / "out" / "nbgrader.csv").read_text("utf-8"))))
    assert (
        table[0] == NBGRADER_COLUMNS
    )  # Without a byte order mark, which nbgrader does not expect.
    for name in ("grades.csv", "exercises.csv"):
        assert (tmp_path / "out" / name).read_bytes().startswith(b"\xef\xbb\xbflearner,")
    dpo = next(row for row in table if row[0] == "03" and row[3] == "learner01")
    assert dpo[7:] == ["1.00", "0.00", "1.00", "4.00"]


def test_the_results_for_gradescope_show_learners_no_marks(graded):
    made = json.loads(gradescope_results(graded.learners()["importer"]))
    scores = {test["name"]: test["score"] for test in made["tests"]}
    assert scores["my_dpo_loss"] == 0.0 and scores["my_gae"] == 1.0
    assert set(made) == {"output_format", "execution_time", "tests", "extra_data"}
    assert made["extra_data"]["my_dpo_loss"]["look at"] == ["uses the lab"]


def test_the_command_grades_one_notebook_and_says_where_the_tables_are(tmp_path, capsys):
    notebook(tmp_path / "class" / "ada.ipynb", RATIO)
    out = tmp_path / "grades"
    main(
        [
            "course",
            "grade",
            str(tmp_path / "class"),
            "--only",
            "05",
            "--out",
            str(out),
            "--seed",
            "4",
        ]
    )
    text = capsys.readouterr().out
    assert "ada: 1 of 5" in text and "1 learners, 0 to look at. Seed 4." in text
    (row,) = csv.DictReader(io.StringIO((out / "grades.csv").read_text("utf-8-sig")))
    assert (row["learner"], row["my_ratio"], row["my_exact_kl"]) == ("ada", "passed", "missing")
    with pytest.raises(LabError, match="only is '77'"):
        grade_folder(tmp_path / "class", only="77")


# --- the progress sheet


def test_an_entry_of_the_progress_file_counts_if_the_notebook_has_the_code_that_passed(
    tmp_path, capsys
):
    digest = code_hash(RATIO)
    entry = {"time": "2026-01-02T03:04:05", "check": "my_ratio", "passed": True, "code": digest}
    forged = [entry | {"check": name} for name in EXERCISES]
    cases = {
        "right": (RATIO, [entry | {"passed": False}, entry]),
        "edited": (RATIO.replace("exp()", "exp() + 0"), [entry]),
        "forged": ("def my_ratio(new, old):\n    ...", forged),
        "no code": (RATIO, [{k: v for k, v in entry.items() if k != "code"}]),
    }
    for learner, (source, rows) in cases.items():
        notebook(tmp_path / learner / "05.ipynb", source)
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / learner / "progress.jsonl").write_text(lines)
    main(["course", "report", str(tmp_path)])
    sheet = {row["folder"]: row for row in csv.DictReader(io.StringIO(capsys.readouterr().out))}
    assert {name: (row["passed"], row["my_ratio"]) for name, row in sheet.items()} == {
        "right": ("1", "passed (2)"),
        "edited": ("0", "not confirmed (1)"),
        "forged": ("0", "not confirmed (1)"),
        "no code": ("0", "not confirmed (1)"),
    }


def test_a_check_records_the_hash_of_the_code_and_the_seed(tmp_path, monkeypatch):
    monkeypatch.setenv("LAB_COURSE", str(tmp_path / "progress.jsonl"))
    check("my_ratio", same_as_ratio, seed=5)
    (row,) = map(json.loads, (tmp_path / "progress.jsonl").read_text().splitlines())
    assert (row["passed"], row["seed"]) == (True, 5)
    assert row["code"] == code_hash("def same_as_ratio(new, old):\n    return (new - old).exp()")


def same_as_ratio(new, old):
    return (new - old).exp()
