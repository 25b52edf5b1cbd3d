"""Grades of a class: every learner's functions run again with fresh inputs, and what an instructor should
look at.
"""

import ast
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from lab.course.build_notebooks import notebooks, read_notebook
from lab.course.checker import grade
from lab.course.code_hash import code_hash
from lab.course.exercise import Exercise, Verdict
from lab.course.exercises.registry import EXERCISES
from lab.course.grading.process import LearnerError, LearnerProcess, Limits
from lab.course.grading.similar import (
    Alike,
    Form,
    form_of,
    is_copy,
    near_duplicates,
    suspicious_pairs,
)
from lab.course.grading.submissions import (
    Cells,
    Program,
    Submission,
    cells_of,
    program_of,
    submissions,
)
from lab.course.solutions import is_solution, solution_code
from lab.errors import LabError
from lab.storage.jsonl import read_jsonl

PASSED, USES_LAB, UNREADABLE = "passed", "uses the lab", "unreadable"
ABSENT = ("missing", "not written")
ENDS = {"OutOfTimeError": "time limit", "ProcessEndedError": "process ended"}


@dataclass(frozen=True)
class Grade:
    """The result of one exercise of one learner. `result` is "passed", the name of the mistake, or why
    there is none. `like` names learners with nearly the same code, `marks` what to look at.
    """

    learner: str
    exercise: str
    result: str
    message: str = ""
    code: str = ""
    like: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    seconds: float = 0.0
    claimed: bool = False

    @property
    def passed(self) -> bool:
        """Whether the function passed its check."""
        return self.result == PASSED


@dataclass(frozen=True)
class Grades:
    """The grades of a class, and what could not be limited on this system."""

    rows: tuple[Grade, ...]
    seed: int
    note: str = ""

    def learners(self) -> dict[str, list[Grade]]:
        """Return the grades by learner."""
        names = dict.fromkeys(row.learner for row in self.rows)
        return {name: [row for row in self.rows if row.learner == name] for name in names}


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
    solutions = _solutions(wanted)
    rows: list[Grade] = []
    forms: dict[str, dict[str, Form]] = {name: {} for name in wanted}
    notes = set()
    for submission in submissions(folder):
        start = time.perf_counter()
        programs = programs_of(submission, wanted)
        own, note = _grade_learner(submission, programs, wanted, seed, limits or Limits())
        notes.add(note)
        for row in own:
            if programs[row.exercise].source and row.result not in ABSENT:
                forms[row.exercise][row.learner] = form_of(programs[row.exercise])
        rows += own
        passed = sum(row.passed for row in own)
        log(f"{submission.learner}: {passed} of {len(own)}, {time.perf_counter() - start:.1f} s")
    alike = {name: near_duplicates(forms[name], solutions.get(name)) for name in wanted}
    pairs = suspicious_pairs(forms, alike)
    rows = [_marked(row, alike, pairs, forms[row.exercise], solutions) for row in rows]
    return Grades(tuple(rows), seed, "; ".join(sorted(notes - {""})))


def _wanted(only: str) -> dict[str, Exercise]:
    numbers = sorted({exercise.notebook for exercise in EXERCISES.values()})
    if only and (not only.isdigit() or int(only) not in numbers):
        accepted = ", ".join(f"{number:02d}" for number in numbers)
        raise LabError(f"only is '{only}', but takes the number of a notebook: {accepted}.")
    return {n: e for n, e in EXERCISES.items() if not only or e.notebook == int(only)}


def _solutions(wanted: Iterable[str]) -> dict[str, Form]:
    """Return the forms of the solutions that the lab's own notebooks show."""
    sources = [
        solution_code(cell)
        for path in notebooks()
        for cell in read_notebook(path).cells
        if is_solution(cell)
    ]
    found = {}
    for name in wanted:
        for source in sources:
            if f"def {name}(" in source:
                found[name] = form_of(program_of(_cells_of_source(source), name))
    return found


def _cells_of_source(source: str) -> Cells:
    return Cells(tuple(ast.parse(source).body), ())


def programs_of(submission: Submission, wanted: Mapping[str, Exercise]) -> dict[str, Program]:
    """Return the learner's code of each exercise: from the notebook with the exercise's number if it is
    there, else from the first that has it.
    """
    cells: dict[Path, Cells] = {}
    unreadable = ""
    for path in submission.notebooks:
        try:
            cells[path] = cells_of(path)
        except LabError as error:
            unreadable = str(error)
    programs = {}
    for name, exercise in wanted.items():
        paths = sorted(cells, key=lambda p: not p.name.startswith(f"{exercise.notebook:02d}"))
        options = [program_of(cells[path], name) for path in paths]
        written = [program for program in options if program.source]
        broken = [program for program in options if program.problem == "syntax error"]
        programs[name] = next(
            iter(written + broken), Program(problem=UNREADABLE if unreadable else "missing")
        )
    return programs


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
    return Grade(learner, exercise.name, result, message, code, seconds=process.used)


def _verdict(exercise: Exercise, program: Program, process: LearnerProcess, seed: int) -> Verdict:
    try:
        process.define(program.source, exercise.name)
    except (LearnerError, NotImplementedError) as error:
        return Verdict(False, type(error).__name__, f"{type(error).__name__}: {error}")
    return grade(exercise, process, seed)


def _marked(
    row: Grade,
    alike: Mapping[str, Mapping[str, Alike]],
    pairs: set[frozenset[str]],
    forms: Mapping[str, Form],
    solutions: Mapping[str, Form],
) -> Grade:
    """Return the grade with what an instructor should look at."""
    others: Alike = alike[row.exercise].get(row.learner, {})
    like = tuple(f"{other} ({how})" for other, how in others.items())
    copied = [o for o in others if frozenset((o, row.learner)) in pairs]
    marks = []
    if row.claimed and not row.passed:
        marks.append("progress.jsonl says passed")
    if row.result == USES_LAB:
        marks.append(USES_LAB)
    if row.learner in forms and is_copy(forms[row.learner], solutions.get(row.exercise)):
        marks.append("the lab's solution")
    if copied:
        marks.append(f"like {', '.join(copied)}")
    return replace(row, like=like, marks=tuple(marks))
