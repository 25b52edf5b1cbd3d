"""The tables of a class's grades, safe to open in a spreadsheet."""

import csv
import io
from collections.abc import Iterable, Sequence

from lab.course.exercises.registry import EXERCISES
from lab.course.grading.results import Grades

FORMULA = ("=", "+", "-", "@")
"""Beginnings of a cell that a spreadsheet takes for a formula."""


def safe_cell(value: object) -> str:
    """Return the text of a cell in one line that no spreadsheet takes for a formula."""
    text = f"{value:.2f}" if isinstance(value, float) else " ".join(str(value).split())
    return f"'{text}" if text.startswith(FORMULA) else text


def csv_text(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table as CSV whose cells are safe in a spreadsheet."""
    out = io.StringIO()
    sheet = csv.writer(out, lineterminator="\n")
    sheet.writerow(header)
    sheet.writerows([[safe_cell(value) for value in row] for row in rows])
    return out.getvalue()


def _milliseconds(seconds: float) -> str:
    return f"{seconds:.3f}"


def class_sheet(grades: Grades) -> str:
    """Return CSV with one row for each learner. The column `not read` says why there is no notebook, or
    which cannot be read.
    """
    names = list(dict.fromkeys(row.exercise for row in grades.rows))
    rows = []
    for learner, own in grades.learners().items():
        marks = [f"{row.exercise}: {mark}" for row in own for mark in row.marks]
        passed = sum(row.passed for row in own)
        seconds = _milliseconds(sum(row.cpu_seconds for row in own))
        problem, results = grades.problems.get(learner, ""), [row.result for row in own]
        rows.append([learner, passed, len(own), "; ".join(marks), problem, seconds, *results])
    header = ["learner", "passed", "of", "look at", "not read", "cpu_seconds", *names]
    return csv_text(header, rows)


def exercise_sheet(grades: Grades) -> str:
    """Return CSV with one row for each exercise of each learner."""
    header = [
        "learner",
        "notebook",
        "exercise",
        "result",
        "code",
        "like",
        "look at",
        "cpu_seconds",
        "message",
    ]
    rows = [
        [
            row.learner, f"{EXERCISES[row.exercise].notebook:02d}", row.exercise, row.result, row.code,
            "not compared: short" if row.short else ", ".join(row.like), "; ".join(row.marks),
            _milliseconds(row.cpu_seconds), row.message,
        ]
        for row in grades.rows
    ]  # fmt: skip
    return csv_text(header, rows)
