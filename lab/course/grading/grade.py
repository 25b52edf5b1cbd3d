"""Grades of a class: every learner's functions run again with fresh inputs, and what an instructor should
look at.
"""

import ast
import contextlib
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from lab.course.build_notebooks import notebooks, read_notebook
from lab.course.checker import grade
from lab.course.code_hash import code_hash
from lab.course.exercise import Exercise, Verdict
from lab.course.exercises.registry import EXERCISES
from lab.course.grading.marks import marked
from lab.course.grading.normalised import Form, form_of
from lab.course.grading.process import LearnerError, LearnerProcess, Limits
from lab.course.grading.results import (
    ABSENT,
    NO_NOTEBOOK,
    PASSED,
    UNREADABLE,
    USES_LAB,
    Grade,
    Grades,
)
from lab.course.grading.submissions import (
    Cells,
    Program,
    Submission,
    cells_of,
    left_out,
    program_of,
    submissions,
)
from lab.course.solutions import is_solution, solution_code
from lab.errors import LabError
from lab.storage.jsonl import read_jsonl

ENDS = {"OutOfTimeError": "time limit", "ProcessEndedError": "process ended"}


def grade_folder(
    folder: Path,
    *,
    only: str = "",
    seed: int | None = None,
    limits: Limits | None = None,
    log: Callable[[str], None] = lambda text: None,
) -> Grades:
    """Run the functions of every learner in `folder` again, each learner's in a process of their own.

    `only` is the number of one notebook. The inputs depend on `seed`, which is a fresh one unless it
    is given. Raises `LabError` when there is nothing to grade.
    """
    seed = int.from_bytes(os.urandom(4), "big") if seed is None else seed
    wanted = _wanted(only)
    rows: list[Grade] = []
    forms: dict[str, dict[str, Form]] = {name: {} for name in wanted}
    notes, problems = {left_out(folder)}, {}
    for submission in submissions(folder):
        start = time.perf_counter()
        programs, problem = programs_of(submission, wanted)
        if problem:
            problems[submission.learner] = problem
        own, note = _grade_learner(submission, programs, wanted, seed, limits or Limits())
        notes.add(note)
        for row in own:
            if programs[row.exercise].source and row.result not in ABSENT:
                with contextlib.suppress(RecursionError):  # Such deep code has no twin.
                    forms[row.exercise][row.learner] = form_of(programs[row.exercise])
        rows += own
        passed = sum(row.passed for row in own)
        log(f"{submission.learner}: {passed} of {len(own)}, {time.perf_counter() - start:.1f} s")
    rows = marked(rows, forms, solution_forms(wanted))
    return Grades(tuple(rows), seed, "; ".join(sorted(notes - {""})), problems)


def _wanted(only: str) -> dict[str, Exercise]:
    numbers = sorted({exercise.notebook for exercise in EXERCISES.values()})
    if only and (not only.isdigit() or int(only) not in numbers):
        accepted = ", ".join(f"{number:02d}" for number in numbers)
        raise LabError(f"only is '{only}', but takes the number of a notebook: {accepted}.")
    return {n: e for n, e in EXERCISES.items() if not only or e.notebook == int(only)}


def solution_forms(wanted: Iterable[str]) -> dict[str, Form]:
    """Return the forms of the solutions that the lab's own notebooks show."""
    found = {}
    for path in notebooks():
        notebook = read_notebook(path)
        given = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
        for source in (solution_code(cell) for cell in notebook.cells if is_solution(cell)):
            statements = ast.parse("\n".join([*given, source])).body
            for name in wanted:
                if f"def {name}(" in source:
                    found[name] = form_of(program_of(Cells(tuple(statements), ()), name))
    return found


def programs_of(
    submission: Submission, wanted: Mapping[str, Exercise]
) -> tuple[dict[str, Program], str]:
    """Return the learner's code of each exercise, and why something could not be read, in words, or "".

    The code comes from the notebook with the exercise's number if it is there, else from the first that
    has it.
    """
    cells: dict[Path, Cells] = {}
    problems = [] if submission.notebooks else [submission.problem]
    for path in submission.notebooks:
        try:
            cells[path] = cells_of(path)
        except LabError as error:
            problems.append(str(error))
    absent = UNREADABLE if problems else "missing"
    absent = absent if submission.notebooks else NO_NOTEBOOK
    programs = {}
    for name, exercise in wanted.items():
        paths = sorted(cells, key=lambda p: not p.name.startswith(f"{exercise.notebook:02d}"))
        options = [program_of(cells[path], name) for path in paths]
        written = [program for program in options if program.source]
        broken = [program for program in options if program.problem != "missing"]
        programs[name] = next(iter(written + broken), Program(problem=absent))
    return programs, "; ".join(filter(None, problems))


def _grade_learner(
    submission: Submission,
    programs: Mapping[str, Program],
    wanted: Mapping[str, Exercise],
    seed: int,
    limits: Limits,
) -> tuple[list[Grade], str]:
    """Return the grades of one learner, and what could not be limited."""
    claims = {
        str(row.get("check"))
        for path in submission.progress
        for row in read_jsonl(path)[0]
        if row.get("passed") is True
    }
    plain, with_task = LearnerProcess(limits), LearnerProcess(limits, with_task=True)
    rows = []
    try:
        for name, exercise in wanted.items():
            process = with_task if exercise.uses else plain
            row = grade_program(submission.learner, exercise, programs[name], process, seed)
            rows.append(replace(row, claimed=name in claims))
    finally:
        plain.close()
        with_task.close()
    return rows, plain.note or with_task.note


def grade_program(
    learner: str, exercise: Exercise, program: Program, process: LearnerProcess, seed: int
) -> Grade:
    """Return the grade of one function, which runs in `process`."""
    if program.problem:
        return Grade(learner, exercise.name, program.problem)
    code = code_hash(program.statement)
    taken = [n for n in program.from_lab if n.rpartition(".")[0] not in exercise.uses]
    if taken:
        message = f"It uses {', '.join(taken)} of the lab, which is not there when it is graded."
        return Grade(learner, exercise.name, USES_LAB, message, code)
    verdict = _verdict(exercise, program, process, seed)
    result = PASSED if verdict.passed else ENDS.get(verdict.mistake, verdict.mistake)
    message = "" if verdict.passed else verdict.message.splitlines()[0]
    return Grade(learner, exercise.name, result, message, code, cpu_seconds=process.cpu_seconds)


def _verdict(exercise: Exercise, program: Program, process: LearnerProcess, seed: int) -> Verdict:
    try:
        process.define(program.source, exercise.name)
    except (LearnerError, NotImplementedError) as error:
        return Verdict(False, type(error).__name__, f"{type(error).__name__}: {error}")
    return grade(exercise, process, seed)
