"""Grading: what honest learners and cheats get, the limits of a learner's process, and the tables."""

import csv
import io
import json
import math
import re

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
from lab.course.grading.normalised import form_of
from lab.course.grading.process import LearnerError, LearnerProcess, Limits
from lab.course.grading.results import Grade, Grades
from lab.course.grading.sheets import class_sheet, csv_text, exercise_sheet
from lab.course.grading.similar import near_duplicates
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
    """Three honest learners and eight cheats, graded."""
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
    others = {m for row in rows.values() for m in row.marks} - {"like copyist", "like renamer"}
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


@pytest.mark.parametrize(("cheat", "victim"), [("copyist", "learner02"), ("renamer", "learner01")])
def test_a_copied_answer_is_marked_for_both_whether_its_names_are_changed_or_not(
    graded, cheat, victim
):
    assert f"like {victim}" in results(graded, cheat)["my_gae"].marks
    assert f"like {cheat}" in results(graded, victim)["my_gae"].marks


@pytest.mark.parametrize("cheat", ["paster", "disguised"])
def test_pasted_solutions_are_marked_whether_their_names_are_changed_or_not(graded, cheat):
    marks = {n: results(graded, cheat)[n].marks for n in synthetic_class.STYLES}
    assert all(any("the lab's solution" in mark for mark in own) for own in marks.values()), marks


def test_a_pasted_solution_is_marked_in_every_exercise_that_is_not_short(tmp_path):
    code = {name: synthetic_class.solution(name) for name in EXERCISES}
    synthetic_class.write_notebook(tmp_path / "paster" / "03.ipynb", code)
    synthetic_class.write_notebook(tmp_path / "ada" / "03.ipynb", synthetic_class.honest(1))
    rows = results(grade_folder(tmp_path, only="03", seed=1), "paster")
    marked = {
        n for n, row in rows.items() if row.marks == ("the lab's solution (3 of 3 compared)",)
    }
    assert marked == {"my_completion_mask", "my_dpo_loss", "my_dpo_gradient_weight"}
    (sums,) = [row for name, row in rows.items() if name not in marked]
    assert (sums.exercise, sums.marks, sums.short) == ("my_sequence_logps", (), True)
    sheet = csv.DictReader(io.StringIO(exercise_sheet(grade_folder(tmp_path, only="03", seed=1))))
    assert [row["like"] for row in sheet if row["exercise"] == "my_sequence_logps"] == [
        "",
        "not compared: short",
    ]


def test_a_copy_that_three_learners_share_is_marked_in_a_small_class_too(tmp_path):
    for number in range(8):
        code = synthetic_class.honest(number)
        synthetic_class.write_notebook(tmp_path / f"honest{number}" / "a.ipynb", code)
    bob = {n: synthetic_class.renamed(source) for n, source in synthetic_class.honest(6).items()}
    own = rf"\b(?!{'|'.join(bob)})my_"
    eve = {name: re.sub(own, "the_", source) for name, source in bob.items()}
    synthetic_class.write_notebook(tmp_path / "bob" / "a.ipynb", bob)
    synthetic_class.write_notebook(tmp_path / "eve" / "a.ipynb", eve)
    grades = grade_folder(tmp_path, seed=1)
    marked = {row.learner: row.marks for row in grades.rows if row.exercise == "my_gae"}
    assert marked["bob"] == ("like eve, honest6",) and marked["honest6"] == ("like bob, eve",)
    assert marked["honest1"] == marked["honest3"] == ()  # They share a form with nobody.


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
    assert sorted((s.learner, len(s.notebooks)) for s in found) == [
        ("Zoë Müller", 1),
        ("empty", 0),
        ("s1234567", 1),
    ]
    with pytest.raises(LabError, match="no notebooks"):
        submissions(tmp_path / "empty")
    with pytest.raises(LabError, match="is no folder"):
        submissions(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "text",
    [
        "not json",
        '{"cells": null, "nbformat": 4}',
        '{"cells": 3}',
        "[1, 2]",
        "null",
        "",
        "[" * 100_000,
        '{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells":'
        ' [{"cell_type": "code", "id": "a", "metadata": {}, "source": 5}]}',
    ],
)
def test_a_file_that_is_no_notebook_is_named_in_the_result_and_stops_nobody(tmp_path, text):
    (tmp_path / "ada").mkdir()
    (tmp_path / "ada" / "05.ipynb").write_text(text)
    notebook(tmp_path / "bob" / "05.ipynb", RATIO)
    rows = grade_folder(tmp_path, only="05", seed=1).learners()
    assert {row.result for row in rows["ada"]} == {"unreadable"}
    assert [row.exercise for row in rows["bob"] if row.passed] == ["my_ratio"]


def test_a_hand_in_that_is_a_link_is_not_followed(tmp_path):
    notebook(tmp_path / "elsewhere.ipynb", RATIO)
    notebook(tmp_path / "class" / "bob.ipynb", RATIO)
    (tmp_path / "class" / "ada").mkdir()
    (tmp_path / "class" / "ada" / "05.ipynb").symlink_to(tmp_path / "elsewhere.ipynb")
    grades = grade_folder(tmp_path / "class", only="05", seed=1)
    assert {row.result for row in grades.learners()["ada"]} == {"unreadable"}
    assert "a link to another file" in grades.problems["ada"]


def test_a_message_that_is_no_text_does_not_stop_the_tables(tmp_path):
    grade = Grade("ada", "my_ratio", "ValueError", "\ud800")
    paths = write_grades(Grades((grade,), 1), tmp_path)
    assert all(path.stat().st_size for path in paths) and len(paths) == 4
    assert "\\ud800" in (tmp_path / "exercises.csv").read_text("utf-8-sig")


def test_code_that_is_nested_too_deeply_stops_nobody(tmp_path):
    for learner, terms in (("deep", 200), ("deeper", 1000)):
        sums = "+".join(["new"] * terms)
        notebook(tmp_path / f"{learner}.ipynb", f"{RATIO} + 0 * ({sums})")
    notebook(tmp_path / "ada.ipynb", RATIO)
    rows = grade_folder(tmp_path, only="05", seed=1).learners()
    found = {name: next(r for r in own if r.exercise == "my_ratio") for name, own in rows.items()}
    assert found["ada"].passed and found["deep"].passed
    assert found["deeper"].result == "nested too deeply"


def test_an_empty_hand_in_has_a_row_that_says_why(tmp_path, capsys):
    notebook(tmp_path / "class" / "ada.ipynb", RATIO)
    (tmp_path / "class" / "nobody").mkdir()
    (tmp_path / "class" / "pdf" / "in").mkdir(parents=True)
    (tmp_path / "class" / "pdf" / "in" / "work.pdf").write_text("x")
    (tmp_path / "class" / "blank.ipynb").write_text("")
    (tmp_path / "class" / "text.txt").write_text("")
    (tmp_path / "class" / "names.csv").write_text("ada")
    for _ in range(2):  # The second time the tables of the first lie there.
        out = tmp_path / "class" / "grades"
        folder = str(tmp_path / "class")
        main(["course", "grade", folder, "--only", "05", "--out", str(out), "--seed", "4"])
        assert "left out: names.csv" in capsys.readouterr().out
        rows = list(csv.DictReader(io.StringIO((out / "grades.csv").read_text("utf-8-sig"))))
        assert {row["learner"]: (row["not read"], row["my_ratio"]) for row in rows} == {
            "ada": ("", "passed"),
            "blank": (
                "blank.ipynb is no notebook that can be read: it is an empty file",
                "unreadable",
            ),
            "nobody": ("the folder is empty", "no notebook"),
            "pdf": ("the folder has no notebook, but work.pdf", "no notebook"),
            "text": ("text.txt is an empty file", "no notebook"),
        }


# --- alike


def form(source):
    import ast

    return form_of(program_of(Cells(tuple(ast.parse(source).body), ()), "my_gae"))


def test_layout_and_comments_do_not_change_a_hash_and_a_constant_does():
    one = "def my_gae(r, v):\n    'text'\n    return r  # right\n"
    assert code_hash(one) == code_hash("def my_gae(r: int, v) -> int:\n\n    return (r)")
    assert code_hash(one) != code_hash(one.replace("return r", "return r + 0"))
    assert len(code_hash(one)) == 12 and code_hash("def (") == ""


ONE = """import torch
def weighted(x, w):
    total = (x * w).sum()
    return total / w.sum()
def my_gae(rewards, values):
    'Advantages.'
    out = []
    for t in range(len(rewards)):
        mean = weighted(rewards[t:], w=values[t:])
        out.append(torch.exp(mean) - max(v for v in values))
    return torch.stack(out)"""
SAME = """import torch as th
from torch import exp
def my_gae(b, a):
    found: list = []
    'Not an advantage.'
    for k in range(len(b)):
        w = helper(b[k:], q=a[k:])
        found.append(exp(w) - max(t for t in a))  # here
    return th.stack(found)
def helper(out, q):
    values = (out * q).sum()
    return values / q.sum()"""
CHANGES = (("max(", "min("), ("* q", "+ q"), ("a[k:]", "a[1:]"), ("for t in a", "for t in b"))


def test_the_normalised_form_has_the_code_and_no_names_of_the_learner():
    assert form(ONE).normalised == form(SAME).normalised and form(ONE).text != form(SAME).text
    for change in CHANGES:
        assert change[0] in SAME
        assert form(ONE).normalised != form(SAME.replace(*change)).normalised


def test_near_duplicates_are_found_with_other_names_and_short_functions_are_left_out():
    style = synthetic_class.STYLES["my_gae"][0]
    names = {"a": "x", "b": "y", "c": "z", "i": "t"}
    other = {"a": "acc", "b": "nxt", "c": "out", "i": "k"}
    forms = {"ada": form(style.format(**names)), "bob": form(style.format(**other))}
    third = form(synthetic_class.STYLES["my_gae"][1].format(**names))
    short = form("def my_gae(a, b):\n    return a - b")
    found = near_duplicates(forms | {"eve": third, "kim": short, "lee": short})
    assert {pair: match.how for pair, match in found.items()} == {frozenset(("ada", "bob")): "1.00"}
    # Of five learners one other writes it: 1 of 5.
    assert [match.bits for match in found.values()] == [pytest.approx(math.log2(5))]


def test_what_a_fifth_of_the_class_writes_is_usual():
    style = synthetic_class.STYLES["my_gae"][0]
    names = [{"a": f"x{n}", "b": f"y{n}", "c": f"z{n}", "i": f"t{n}"} for n in range(20)]
    for many, usual in ((4, False), (5, True)):
        forms = {f"l{n}": form(style.format(**names[n])) for n in range(many)}
        forms |= {f"k{n}": form(f"def my_gae(a):\n    return {'+a' * (30 + n)}") for n in range(16)}
        found = near_duplicates(
            {n: f for n, f in forms.items() if n[0] == "l" or n in ("k0", "k9")}
        )
        assert {match.usual for match in found.values()} == {usual}


# --- tables


def test_the_seconds_are_those_of_the_processor(process):
    process.define("import time\ndef f(n):\n    time.sleep(n)", "f")
    process(0.5)
    assert process.cpu_seconds < 0.4
    process.define(
        "import time\ndef f(n):\n    end = time.process_time() + n\n    while time.process_time() < end: ...",
        "f",
    )
    process(0.5)
    assert 0.5 <= process.cpu_seconds < 0.9


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
    assert len(long) == 11 * len(EXERCISES)
    hashed = [row for row in long if row["result"] == "passed"]
    assert hashed and all(
        len(row["code"]) == 12 and float(row["cpu_seconds"]) >= 0 for row in hashed
    )
    paths = write_grades(graded, tmp_path / "out")
    assert len(paths) == 3 + 11 and all(path.is_file() for path in paths)
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
