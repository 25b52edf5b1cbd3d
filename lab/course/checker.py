"""The comparison of a learner's function with the lab's on random inputs, which names the likely
mistake or says where the difference is.
"""

import traceback
from collections.abc import Callable
from typing import Any

import torch

from lab.course.exercise import Exercise, RandomInputs, Verdict
from lab.course.localise import localise
from lab.course.values import (
    RELATIVE,
    as_tensor,
    lies_between,
    results_equal,
    significant,
    type_text,
    value_text,
)
from lab.training.own_functions import error_place, unfit_signature

NUM_CASES = 6
"""Random inputs of one check. An input may depend on its number, so that every kind of case occurs."""
NOT_DETACHED = "not detached"
Call = tuple[Any, ...]


def grade(exercise: Exercise, function: Callable[..., Any], seed: int) -> Verdict:
    """Return the verdict on `function`, from `NUM_CASES` random inputs that depend on `seed`."""
    calls = calls_of(exercise, seed)
    expected = [exercise.probe(exercise.reference, *_copies(call)) for call in calls]
    results = []
    for call in calls:
        try:
            results.append(exercise.probe(function, *_copies(call)))
        except NotImplementedError as error:
            if _raised_by_learner(function, error):
                return Verdict(False, "not written", f"{exercise.name} is not written yet.")
            return _raised(exercise, function, error, call, seed)
        except Exception as error:
            return _raised(exercise, function, error, call, seed)
    if all(value is None or value is ... for value in results):
        return Verdict(
            False,
            "not written",
            f"{exercise.name} returns nothing yet. It should give {exercise.returns}.",
        )
    if _all_right(exercise, calls, results, expected):
        if exercise.detached and _has_gradient(function, calls[0]):
            known = next(m for m in exercise.mistakes if m.name == NOT_DETACHED)
            return Verdict(False, known.name, known.message)
        return Verdict(
            True,
            "",
            f"{exercise.name} agrees with the lab on {NUM_CASES} random inputs (to {RELATIVE:g}).",
        )
    for known in exercise.mistakes:
        if known.name != NOT_DETACHED and _makes(exercise, known.function, calls, results):
            return Verdict(False, known.name, known.message)
    return _unknown_mistake(exercise, function, calls, results, expected, seed)


def calls_of(exercise: Exercise, seed: int) -> list[Call]:
    """Return the arguments of every call of a check."""
    return [
        call
        for number in range(NUM_CASES)
        for call in exercise.calls(*exercise.inputs(RandomInputs(seed, number)))
    ]


def _all_right(
    exercise: Exercise, calls: list[Call], results: list[Any], expected: list[Any]
) -> bool:
    if all(map(results_equal, results, expected)):
        return True
    if exercise.limit is None:
        return False
    limits = [exercise.limit(*_copies(call)) for call in calls]
    return all(map(lies_between, results, expected, limits))


def _makes(
    exercise: Exercise, mistake: Callable[..., Any], calls: list[Call], results: list[Any]
) -> bool:
    """Whether a known mistake gives the learner's results."""
    return all(
        results_equal(value, exercise.probe(mistake, *_copies(call)))
        for value, call in zip(results, calls)
    )


def _has_gradient(function: Callable[..., Any], call: Call) -> bool:
    """Whether a gradient flows through the learner's function; one that cannot take tensors with a
    gradient has none.
    """
    inputs = [
        value.clone().requires_grad_() if isinstance(value, torch.Tensor) else value
        for value in call
    ]
    try:
        value = function(*inputs)
    except Exception:
        return False
    return isinstance(value, torch.Tensor) and value.requires_grad


def _copies(call: Call) -> list[Any]:
    """Return copies of the arguments, since a function may write into them."""
    return [value.clone() if isinstance(value, torch.Tensor) else value for value in call]


def _unknown_mistake(
    exercise: Exercise,
    function: Callable[..., Any],
    calls: list[Call],
    results: list[Any],
    expected: list[Any],
    seed: int,
) -> Verdict:
    """Return the verdict on a mistake that is not in the exercise's list: wrong kind or shape, or
    where the difference lies.
    """
    number = next(i for i, (a, b) in enumerate(zip(results, expected)) if not results_equal(a, b))
    got, want = results[number], expected[number]
    values, right = as_tensor(got), as_tensor(want)
    shown = (
        f"{exercise.name} gives {_given(got)}, right is {_given(want)}."
        f"\n{_input(exercise, calls[number], seed)}"
    )
    if right is None or isinstance(got, str):
        return Verdict(False, "other", shown)
    if values is None:
        message = f"{exercise.name} gives {type_text(got)}, but should give {exercise.returns}."
        return Verdict(False, "kind", f"{message}\n{_input(exercise, calls[number], seed)}")
    kind, text = localise(
        exercise, lambda *inputs: exercise.probe(function, *inputs), calls, results, expected
    )
    if significant(values.shape) != significant(right.shape):
        text += (
            f" {exercise.name} gives the shape {tuple(values.shape)}, but should give"
            f" {exercise.returns}, here {tuple(right.shape)}."
        )
    return Verdict(False, kind, f"{text.strip()}\n{shown}")


def _given(value: Any) -> str:
    tensor = as_tensor(value)
    return value_text(value if tensor is None else tensor)


def _input(exercise: Exercise, call: Call, seed: int) -> str:
    """Return all arguments of a call, and how to check with them again."""
    lines = [f"  {name} = {value_text(value)}" for name, value in zip(exercise.arguments, call)]
    again = f"check({exercise.name}, seed={seed}) makes this input again:"
    return "\n".join([again, *lines])


def _frames(error: BaseException) -> list[traceback.FrameSummary]:
    return list(traceback.extract_tb(error.__traceback__))


def _raised_by_learner(function: Callable[..., Any], error: BaseException) -> bool:
    """Whether the exception comes from a line of the learner's own, and not from deeper inside."""
    code = getattr(function, "__code__", None)
    return code is None or _frames(error)[-1].filename == code.co_filename


def _raised(
    exercise: Exercise, function: Callable[..., Any], error: Exception, call: Call, seed: int
) -> Verdict:
    """Return the verdict on a function that raises: the exception as it is, with its line and the
    input. A wrong number of arguments is the only case in which the function was not entered.
    """
    if (signature := unfit_signature(function, call)) is not None:
        return Verdict(
            False,
            "signature",
            f"The check calls {exercise.name}({', '.join(exercise.arguments)}) with {len(call)}"
            f" arguments in this order, but your function takes {signature}.",
        )
    return Verdict(
        False,
        type(error).__name__,
        f"{exercise.name} stopped with {type(error).__name__}: {error}{error_place(function, error)}."
        f"\n{_input(exercise, call, seed)}",
    )
