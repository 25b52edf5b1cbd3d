"""Grades in the forms of other tools: a results.json for Gradescope and otter, and the table of
`nbgrader export`.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from lab.course.exercises.registry import EXERCISES
from lab.course.grading.results import Grade, Grades
from lab.course.grading.sheets import class_sheet, csv_text, exercise_sheet
from lab.errors import LabError

NBGRADER_COLUMNS = [
    "assignment", "duedate", "timestamp", "student_id", "last_name", "first_name", "email",
    "raw_score", "late_submission_penalty", "score", "max_score",
]  # fmt: skip

FOR_EXCEL = ("grades.csv", "exercises.csv")
"""Tables that begin with a byte order mark, without which Excel misreads letters such as ë. A program that
reads nbgrader.csv would take the mark for a part of the first column's name.
"""


def gradescope_results(rows: Sequence[Grade]) -> str:
    """Return the results.json of one learner. What an instructor should look at is in `extra_data`,
    which learners do not see.
    """
    tests = [
        {
            "name": row.exercise,
            "number": f"{EXERCISES[row.exercise].notebook:02d}",
            "score": float(row.passed),
            "max_score": 1.0,
            "status": "passed" if row.passed else "failed",
            "output": row.message or row.result,
            "visibility": "visible",
        }
        for row in rows
    ]
    results = {
        "output_format": "text",
        "execution_time": round(sum(row.cpu_seconds for row in rows), 2),
        "tests": tests,
        "extra_data": {
            row.exercise: {"code": row.code, "look at": list(row.marks)} for row in rows if row.code
        },
    }
    return json.dumps(results, indent=1, ensure_ascii=False) + "\n"


def nbgrader_sheet(grades: Grades) -> str:
    """Return the table that `nbgrader export` writes: one row for each notebook of each learner."""
    rows = []
    for learner, own in grades.learners().items():
        for number in sorted({EXERCISES[row.exercise].notebook for row in own}):
            some = [row for row in own if EXERCISES[row.exercise].notebook == number]
            score = float(sum(row.passed for row in some))
            rows.append(
                [f"{number:02d}", "", "", learner, "", "", "", score, 0.0, score, float(len(some))]
            )
    return csv_text(NBGRADER_COLUMNS, rows)


def write_grades(grades: Grades, out: Path) -> list[Path]:
    """Write every form of the grades into the folder `out` and return the paths: grades.csv,
    exercises.csv, nbgrader.csv, and gradescope/LEARNER/results.json.
    """
    files = {
        Path("grades.csv"): class_sheet(grades),
        Path("exercises.csv"): exercise_sheet(grades),
        Path("nbgrader.csv"): nbgrader_sheet(grades),
    }
    for learner, rows in grades.learners().items():
        files[Path("gradescope", learner, "results.json")] = gradescope_results(rows)
    for name, text in files.items():
        path = out / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            encoding = "utf-8-sig" if path.name in FOR_EXCEL else "utf-8"
            path.write_text(text, encoding, errors="backslashreplace")
        except OSError as error:
            raise LabError(
                f"{path} cannot be written: {error.strerror}. Name another folder with --out."
            ) from None
    return [out / name for name in files]
