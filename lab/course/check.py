"""`check`: what a learner calls on a function of theirs."""

import os
from collections.abc import Callable
from typing import Any

from lab.course.checker import grade
from lab.course.exercises.registry import EXERCISES
from lab.course.progress import record_progress
from lab.errors import LabError, unknown


def check(*given: str | Callable[..., Any], recorded: bool = True) -> None:
    """`check(my_dpo_loss)`, or `check("my_dpo_loss", function)` for a function of another name: say
    whether it is right, or what is wrong.

    Nothing is raised for a wrong function. The call is recorded for the progress sheet, unless
    `recorded` is False, as in the notebooks' own solutions. Raises `LabError` when there is no such
    exercise.
    """
    function = given[-1] if given else None
    if not callable(function) or len(given) > 2:
        raise LabError(
            "check takes a function, as in check(my_dpo_loss), or a name and a function, as in"
            ' check("my_dpo_loss", function).'
        )
    name = given[0] if len(given) == 2 else getattr(function, "__name__", "")
    if name not in EXERCISES:
        raise unknown("exercise", str(name), list(EXERCISES))
    verdict = grade(EXERCISES[name], function, int.from_bytes(os.urandom(4), "big"))
    print(f"{'Right' if verdict.passed else 'Not yet'}: {verdict.message}")
    if recorded:
        record_progress(
            {
                "notebook": EXERCISES[name].notebook,
                "check": name,
                "passed": verdict.passed,
                "mistake": verdict.mistake,
            }
        )
