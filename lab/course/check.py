"""`check`, which a learner calls with a function to test it."""

import inspect
import os
import textwrap
from collections.abc import Callable
from typing import Any

from lab.course.checker import grade
from lab.course.code_hash import code_hash
from lab.course.exercises.registry import EXERCISES
from lab.course.progress import record_progress
from lab.errors import LabError, unknown


def check(
    *arguments: str | Callable[..., Any],
    recorded: bool = True,
    strict: bool = False,
    seed: int | None = None,
) -> None:
    """Print whether a function is right, or what is wrong with it: `check(my_dpo_loss)`, or
    `check("my_dpo_loss", function)` for a function of another name.

    A wrong function raises nothing, unless `strict` is True: then it raises `LabError`, so that a
    notebook that is executed without a reader fails. `seed` makes the inputs of an earlier check
    again. The call is recorded for the progress sheet, with the hash of the function's code, unless
    `recorded` is False, as in the solutions of the notebooks. Raises `LabError` when there is no such exercise.
    """
    function = arguments[-1] if arguments else None
    if not callable(function) or len(arguments) > 2:
        raise LabError(
            "check takes a function, as in check(my_dpo_loss), or a name and a function, as in"
            ' check("my_dpo_loss", function).'
        )
    name = arguments[0] if len(arguments) == 2 else getattr(function, "__name__", "")
    if not isinstance(name, str) or name not in EXERCISES:
        raise unknown("exercise", str(name), list(EXERCISES))
    seed = int.from_bytes(os.urandom(4), "big") if seed is None else seed
    verdict = grade(EXERCISES[name], function, seed)
    print(f"{'Right' if verdict.passed else 'Not yet'}: {verdict.message}")
    if recorded:
        record_progress(
            {
                "notebook": EXERCISES[name].notebook,
                "check": name,
                "passed": verdict.passed,
                "mistake": verdict.mistake,
                "code": _code(function),
                "seed": seed,
            }
        )
    if strict and not verdict.passed:
        raise LabError(f"{name}: {verdict.message}")


def _code(function: Callable[..., Any]) -> str:
    """Return the hash of a function's code, or "" where its source is not known."""
    try:
        return code_hash(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError):
        return ""
