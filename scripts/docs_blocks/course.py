"""The blocks of the course: its notebooks, its exercises, its lines and actions, and the bank of questions."""

import json
from pathlib import Path

from lab.course.exercises.registry import EXERCISES
from lab.course.grading.grade import solution_forms
from lab.course.grading.similar import is_compared
from lab.course.outline import exercise_table, lines_table, notebook_table
from lab.course.quiz_bank import quiz_page

PATH_RECORD = Path(__file__).parents[2] / "lab" / "assets" / "course" / "learner-path.json"
PATH_COLUMNS = {
    "words_read": "words to read",
    "cells_run": "cells run",
    "functions_written": "functions written",
    "predictions": "predictions",
    "cpu_seconds": "CPU seconds",
    "longest_cell_seconds": "seconds of the longest cell",
}


def path_table() -> str:
    """Return the table of what a learner does in a notebook, with its command, in Markdown."""
    record = json.loads(PATH_RECORD.read_text("utf-8"))
    columns = {key: text for key, text in PATH_COLUMNS.items() if key in record["notebooks"][0]}
    rows = [f"| notebook | {' | '.join(columns.values())} |", f"| --- |{' --- |' * len(columns)}"]
    rows += [
        f"| {own['notebook']} | {' | '.join(str(own[column]) for column in columns)} |"
        for own in record["notebooks"]
    ]
    source = f"`{record['command']}`, {record['device']}, commit {record['commit']}"
    source += f", load {record['load_before']} before."
    return "\n".join([*rows, "", source])


def not_compared() -> str:
    """Return the exercises whose solution is too short to be compared, in Markdown."""
    forms = solution_forms(EXERCISES)
    names = [name for name in EXERCISES if not is_compared(forms[name])]
    listed = ", ".join(f"`{name}`" for name in names)
    return f"{len(names)} of {len(EXERCISES)}: {listed}."


BLOCKS = {
    "not-compared": not_compared,
    "course-path": path_table,
    "course-notebooks": notebook_table,
    "course-exercises": exercise_table,
    "course-lines": lines_table,
    "quiz-bank": quiz_page,
}
