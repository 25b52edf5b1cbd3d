"""Reads the grades of `python -m lab course grade` with nbgrader and otter themselves.

python -m venv tools && tools/bin/pip install nbgrader otter-grader
tools/bin/python scripts/try_grading_tools.py grades

The environment needs only these two packages. nbgrader.csv goes row by row into a gradebook of nbgrader,
and what `nbgrader export` writes of it has to say the same. otter grades a notebook made here, and each
results.json has to have the fields of otter's, of the same types, and no values but those that Gradescope's
documentation lists. Where torch and the lab or its wheel of the checks are installed too, nbgrader makes an
assignment with `check(my_dpo_loss, strict=True)` and grades a right and a wrong answer. The script ends with
an error otherwise.
"""

import csv
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import nbformat
from nbgrader.api import Gradebook

NUMBERS = ("raw_score", "late_submission_penalty", "score", "max_score")
TEST = """
OK_FORMAT = True
test = {"name": "q1", "points": 1, "suites": [{"cases": [
    {"code": ">>> answer\\n42", "hidden": False, "locked": False}],
    "scored": True, "setup": "", "teardown": "", "type": "doctest"}]}
"""
FORMATS = {"text", "html", "simple_format", "md", "ansi"}
VISIBILITIES = {"hidden", "after_due_date", "after_published", "visible"}
"""The values that Gradescope's documentation of results.json lists."""
SOLUTION = "### BEGIN SOLUTION\n    {}\n    ### END SOLUTION"
ANSWER = """import torch


def my_dpo_loss(cw, cl, rw, rl, beta):
    {}
"""
RIGHT = "return -torch.nn.functional.logsigmoid(beta * ((cw - rw) - (cl - rl)))"
WRONG = "return -torch.nn.functional.logsigmoid(beta * ((cw + rw) - (cl - rl)))"
STRICT = "from lab.course.check import check\n\ncheck(my_dpo_loss, strict=True)"


def rows_of(path: Path) -> list[dict[str, object]]:
    """Return the rows of a table, read as nbgrader reads tables, with numbers as numbers."""
    with path.open(newline="", encoding="utf-8") as file:
        return [
            {name: float(text) if name in NUMBERS else text for name, text in row.items()}
            for row in csv.DictReader(file)
        ]


def try_nbgrader(table: Path, folder: Path) -> str:
    """Put the table into a gradebook, export it with the command of nbgrader, and compare."""
    rows = rows_of(table)
    database = f"sqlite:///{folder / 'gradebook.db'}"
    with Gradebook(database) as book:
        for name, most in {(row["assignment"], row["max_score"]) for row in rows}:
            book.add_assignment(name)
            book.add_notebook("work", name)
            book.add_grade_cell("cell", "work", name, max_score=most, cell_type="code")
        for student in dict.fromkeys(row["student_id"] for row in rows):
            book.add_student(student, first_name="", last_name="", email="")
        for row in rows:
            book.add_submission(row["assignment"], row["student_id"])
            given = book.find_grade("cell", "work", row["assignment"], row["student_id"])
            given.auto_score = row["raw_score"]
        book.db.commit()
    out = folder / "exported.csv"
    words = ["nbgrader", "export", f"--db={database}", f"--to={out}"]
    subprocess.run([sys.executable, "-m", *words], check=True, cwd=folder, capture_output=True)
    made = rows_of(out)

    def key(row: dict[str, object]) -> tuple[str, str]:
        return str(row["assignment"]), str(row["student_id"])

    assert list(made[0]) == list(rows[0]), (list(made[0]), list(rows[0]))
    differing = [(a, b) for a, b in zip(sorted(rows, key=key), sorted(made, key=key)) if a != b]
    assert len(made) == len(rows) and not differing, differing[:1]
    return f"nbgrader {version('nbgrader')}: {len(rows)} rows went in and came out the same"


def assignment(body: str) -> nbformat.NotebookNode:
    """Return a notebook of nbgrader with one answer and the strict check as its test of one point."""
    answer, test = nbformat.v4.new_code_cell(ANSWER.format(body)), nbformat.v4.new_code_cell(STRICT)
    common = {"schema_version": 3, "task": False}
    answer.metadata["nbgrader"] = common | {
        "grade_id": "answer", "grade": False, "solution": True, "locked": False,
    }  # fmt: skip
    test.metadata["nbgrader"] = common | {
        "grade_id": "test", "grade": True, "solution": False, "locked": True, "points": 1,
    }  # fmt: skip
    notebook = nbformat.v4.new_notebook(cells=[answer, test])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    return notebook


def try_strict_check(folder: Path) -> str:
    """Let nbgrader make an assignment, and grade a right and a wrong answer by the strict check."""
    places = {
        "source/ps1": SOLUTION.format(RIGHT), "submitted/ada/ps1": RIGHT, "submitted/bob/ps1": WRONG
    }  # fmt: skip
    for place, body in places.items():
        (folder / place).mkdir(parents=True)
        nbformat.write(assignment(body), folder / place / "work.ipynb")
    environment = os.environ | {"LAB_COURSE": "", "LAB_RUNS": str(folder / "runs")}
    for words in (
        ["generate_assignment", "ps1"],
        ["autograde", "ps1"],
        ["export", "--to=grades.csv"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "nbgrader", *words],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert not done.returncode, done.stderr[-800:]
    released = (folder / "release" / "ps1" / "work.ipynb").read_text("utf-8")
    assert "logsigmoid" not in released and "check(my_dpo_loss, strict=True)" in released
    scores = {row["student_id"]: row["score"] for row in rows_of(folder / "grades.csv")}
    assert scores == {"ada": 1.0, "bob": 0.0}, scores
    return (
        "nbgrader generate_assignment, autograde, export: the right answer 1 point, the wrong one 0"
    )


def results_of_otter(folder: Path) -> dict[str, object]:
    """Return the results.json that otter writes for a notebook with one right answer."""
    (folder / "tests").mkdir()
    (folder / "tests" / "q1.py").write_text(TEST, "utf-8")
    cells = [nbformat.v4.new_code_cell("answer = 42")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, folder / "work.ipynb")
    for words in (
        ["generate", "-t", "tests", "-o", "autograder.zip", "--no-environment"],
        ["run", "work.ipynb", "-a", "autograder.zip", "--no-logo"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "otter", *words], cwd=folder, capture_output=True, text=True
        )
        assert not done.returncode, done.stderr[-800:]
    return json.loads((folder / "results.json").read_text("utf-8"))


def try_otter(paths: list[Path], folder: Path) -> str:
    """Compare the fields of every results.json with those of otter's own."""
    theirs = results_of_otter(folder)
    scored = next(test for test in theirs["tests"] if "score" in test)
    for path in paths:
        ours = json.loads(path.read_text("utf-8"))
        assert {test["visibility"] for test in ours["tests"]} <= VISIBILITIES
        assert ours["output_format"] in FORMATS
        assert set(theirs) - set(ours) <= {"stdout_visibility"}, set(theirs) - set(ours)
        for test in ours["tests"]:
            for name, value in scored.items():
                kinds = (int, float) if isinstance(value, int | float) else type(value)
                assert isinstance(test.get(name), kinds), (path, test, name)
            assert (
                test["status"] in ("passed", "failed") and 0 <= test["score"] <= test["max_score"]
            )
    return (
        f"otter {version('otter-grader')}: {len(paths)} files have its fields"
        f" ({', '.join(scored)}) with its types"
    )


def main() -> None:
    """Try both tools."""
    # nbgrader calls a program of its environment by name.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    grades = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as temporary:
        for tool in ("nbgrader", "strict", "otter"):
            Path(temporary, tool).mkdir()
        print(try_nbgrader(grades / "nbgrader.csv", Path(temporary, "nbgrader")))
        if importlib.util.find_spec("torch") and importlib.util.find_spec("lab"):
            print(try_strict_check(Path(temporary, "strict")))
        print(try_otter(sorted(grades.glob("gradescope/*/results.json")), Path(temporary, "otter")))


if __name__ == "__main__":
    main()
