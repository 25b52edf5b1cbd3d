"""The progress sheet of a class: what the learners' progress files say, confirmed by their notebooks."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lab.course.code_hash import code_hash
from lab.course.exercises.registry import EXERCISES
from lab.course.grading.grade import grade_program, programs_of
from lab.course.grading.process import LearnerProcess, Limits
from lab.course.grading.sheets import csv_text
from lab.course.grading.submissions import Program, Submission
from lab.course.progress import PROGRESS_FILE
from lab.errors import LabError
from lab.storage.jsonl import read_jsonl

Rows = Sequence[Mapping[str, Any]]


def progress_sheet(folder: Path, exercises: list[str]) -> str:
    """Return CSV with one row for every progress file under `folder`: its path, the number of checks
    passed, the result of each check, and when it was last used.

    The cell of a check is empty if it was never called, or the last mistake with the number of calls.
    It is "passed (n)", with the number of calls up to the first pass, if a notebook beside the file
    has the very code that passed and this code passes again; otherwise "not confirmed (n)". Raises
    `LabError` when there is no progress file.
    """
    files = sorted(folder.rglob(PROGRESS_FILE))
    if not files:
        raise LabError(
            f"There is no {PROGRESS_FILE} under {folder}. It appears beside a notebook when its first check is called."
        )
    header = ["folder", "passed", "of", "predictions", "last used", *exercises]
    return csv_text(header, [_row(path, folder, exercises) for path in files])


def _row(path: Path, folder: Path, exercises: Sequence[str]) -> list[object]:
    rows = [row for row in read_jsonl(path)[0] if isinstance(row.get("time"), str)]
    checks = {name: [r for r in rows if r.get("check") == name] for name in exercises}
    beside = Submission(path.parent.name, tuple(sorted(path.parent.glob("*.ipynb"))))
    programs, _ = programs_of(beside, {name: EXERCISES[name] for name in exercises})
    plain, with_task = LearnerProcess(Limits()), LearnerProcess(Limits(), with_task=True)
    try:
        cells = [
            _cell(name, calls, programs[name], with_task if EXERCISES[name].uses else plain)
            for name, calls in checks.items()
        ]
    finally:
        plain.close()
        with_task.close()
    predictions = {r["prediction"] for r in rows if isinstance(r.get("prediction"), str)}
    return [
        path.parent.relative_to(folder).as_posix(),
        sum(cell.startswith("passed") for cell in cells),
        len(exercises),
        len(predictions),
        max((r["time"] for r in rows), default=""),
        *cells,
    ]


def _cell(name: str, calls: Rows, program: Program, process: LearnerProcess) -> str:
    if not calls:
        return ""
    passed = [number for number, call in enumerate(calls, 1) if call.get("passed") is True]
    if not passed:
        return f"{calls[-1].get('mistake') or 'other'} ({len(calls)})"
    codes = {call.get("code") for call in calls if call.get("passed") is True}
    if program.source and code_hash(program.statement) in codes - {""}:
        seed = int.from_bytes(os.urandom(4), "big")
        if grade_program("", EXERCISES[name], program, process, seed).passed:
            return f"passed ({passed[0]})"
    return f"not confirmed ({passed[0]})"
