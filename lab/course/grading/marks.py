"""Marks for an instructor to look at: copies, the lab's functions, and entries that nothing confirms."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from lab.course.grading.normalised import Form
from lab.course.grading.results import USES_LAB, Grade
from lab.course.grading.similar import (
    LAB,
    Pair,
    is_compared,
    is_copy,
    near_duplicates,
    number_compared,
    suspicious_pairs,
)


def marked(
    rows: Iterable[Grade], forms: Mapping[str, Mapping[str, Form]], solutions: Mapping[str, Form]
) -> list[Grade]:
    """Return the grades of a class with what to look at. `forms` has the learners' code by exercise and
    learner, `solutions` the lab's by exercise.
    """
    with_lab = {
        name: {**own, LAB: solutions[name]} if name in solutions else own
        for name, own in forms.items()
    }
    alike = {name: near_duplicates(own) for name, own in with_lab.items()}
    pairs = suspicious_pairs(with_lab, alike)
    copies: dict[str, dict[str, str]] = {}
    for name, own in forms.items():
        for learner, form in own.items():
            pair = frozenset((learner, LAB))
            if is_copy(form, solutions.get(name)):
                copies.setdefault(learner, {})[name] = LAB
            elif pair in pairs and pair in alike[name]:
                copies.setdefault(learner, {})[name] = f"{LAB} with other names"

    def mark(row: Grade) -> Grade:
        form = forms.get(row.exercise, {}).get(row.learner)
        if form is None:
            return replace(row, marks=tuple(_own_marks(row)))
        found = {
            _other(p, row.learner): m for p, m in alike[row.exercise].items() if row.learner in p
        }
        like = [f"{name} ({match.how})" for name, match in sorted(found.items()) if not match.usual]
        marks = list(_own_marks(row))
        if mine := copies.get(row.learner, {}).get(row.exercise):
            count = number_compared(with_lab, (row.learner, LAB))
            marks.append(f"{mine} ({len(copies[row.learner])} of {count} compared)")
        copied = sorted(n for n in found if n != LAB and frozenset((n, row.learner)) in pairs)
        if copied:
            marks.append(f"like {', '.join(copied)}")
        short = not is_compared(form)
        return replace(row, like=tuple(like), marks=tuple(marks), short=short)

    return [mark(row) for row in rows]


def _own_marks(row: Grade) -> Iterable[str]:
    if row.claimed and not row.passed:
        yield "progress.jsonl says passed"
    if row.result == USES_LAB:
        yield USES_LAB


def _other(pair: Pair, learner: str) -> str:
    (other,) = pair - {learner}
    return other
