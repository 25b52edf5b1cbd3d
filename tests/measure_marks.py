"""How often the grader's marks are wrong: measured on right answers that were written independently, and on
made-up classes of honest learners, without running them.

python tests/measure_marks.py [CLASSES]
"""

import ast
import random
import sys
from pathlib import Path

TESTS = Path(__file__).parent / "course"
sys.path.insert(0, str(TESTS))

import synthetic_class  # noqa: E402

from lab.course.exercises.registry import EXERCISES  # noqa: E402
from lab.course.grading import similar  # noqa: E402
from lab.course.grading.grade import solution_forms  # noqa: E402
from lab.course.grading.marks import marked  # noqa: E402
from lab.course.grading.normalised import Form, form_of  # noqa: E402
from lab.course.grading.results import PASSED, Grade  # noqa: E402
from lab.course.grading.submissions import Cells, program_of  # noqa: E402

LEARNERS = 24
LIMITS = (1, 15, 20, 25, 30, 45)
"""Lengths in parts from which on functions are compared, to choose from."""
Class = dict[str, dict[str, Form]]


def form(source: str, name: str) -> Form:
    """The form of a function in a notebook's code."""
    return form_of(program_of(Cells(tuple(ast.parse(source).body), ()), name))


def right_answers() -> list[tuple[str, Form]]:
    """The right answers of right_answers.py, each as a function of its exercise."""
    body = ast.parse((TESTS / "right_answers.py").read_text("utf-8")).body
    functions = {node.name: node for node in body if isinstance(node, ast.FunctionDef)}
    table = next(n.value for n in body if isinstance(n, ast.Assign) and n.targets[0].id == "RIGHT")
    given = "\n".join(ast.unparse(n) for n in body if not isinstance(n, ast.Assign))
    answers = []
    for name, _, answer in (row.elts for row in table.elts):
        answer = answer.args[0] if isinstance(answer, ast.Call) else answer
        if isinstance(answer, ast.Lambda):
            inputs, result = ast.unparse(answer.args), ast.unparse(answer.body)
            code = f"def {name.value}({inputs}):\n    return {result}"
        else:
            code = ast.unparse(functions[answer.id]).replace(answer.id, name.value, 1)
        answers.append((name.value, form(f"{given}\n{code}", name.value)))
    return answers


def made_up(number: int) -> Class:
    """The forms of a class of honest learners, by exercise and learner."""
    learners = range(number * 1000, number * 1000 + LEARNERS)
    return {
        name: {
            f"learner{n}": form(
                f"{synthetic_class.IMPORTS}\n{synthetic_class.honest(n)[name]}", name
            )
            for n in learners
        }
        for name in synthetic_class.STYLES
    }


def with_marks(forms: Class, solutions: dict[str, Form]) -> dict[str, set[str]]:
    """The marks of every learner of a class who has any."""
    names = {learner for own in forms.values() for learner in own}
    rows = [Grade(learner, name, PASSED) for name in forms for learner in sorted(names)]
    found: dict[str, set[str]] = {}
    for row in marked(rows, forms, solutions):
        if row.marks:
            found.setdefault(row.learner, set()).update(row.marks)
    return found


def main() -> None:
    """Print the shares for each limit."""
    classes = [made_up(number) for number in range(int(sys.argv[1]) if sys.argv[1:] else 100)]
    solutions = solution_forms(EXERCISES)
    answers, draw = right_answers(), random.Random(0)
    chosen = similar.MIN_PARTS
    print(
        "limit | solutions compared | right answers that are the solution | honest learners marked"
    )
    for limit in LIMITS:
        similar.MIN_PARTS = limit
        compared = sum(map(similar.is_compared, solutions.values()))
        like = sum(
            similar.is_compared(own) and own.normalised == solutions[name].normalised
            for name, own in answers
        )
        marks = [with_marks(forms, solutions) for forms in classes]
        share = sum(map(len, marks)) / len(classes) / LEARNERS
        print(f"{limit} | {compared} of {len(solutions)} | {like} of {len(answers)} | {share:.1%}")
    similar.MIN_PARTS, found = chosen, 0
    for forms in classes:
        victim = draw.choice(sorted(forms["my_gae"]))
        for name, own in forms.items():
            code = synthetic_class.honest(int(victim.removeprefix("learner")))[name]
            renamed = synthetic_class.renamed(code)
            own["renamer"] = form(f"{synthetic_class.IMPORTS}\n{renamed}", name)
        found += any(victim in mark for mark in with_marks(forms, solutions).get("renamer", ()))
    print(f"Renamed copies of all four functions that are marked: {found} of {len(classes)}")


if __name__ == "__main__":
    main()
