"""The comparison of a learner's function with the lab's on random inputs, which names the likely
mistake.
"""

import inspect
import random
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

NUM_CASES = 6
"""Random inputs of one check. An input may depend on its number, so that every kind of case occurs."""
RELATIVE, ABSOLUTE = 1e-4, 1e-6
"""Tolerance of a right answer: rounding passes, a formula that is only close does not."""


class RandomInputs:
    """Random inputs in float64, from a seed. `number` counts the inputs of a check, so that rare cases
    can be included on purpose.
    """

    def __init__(self, seed: int, number: int) -> None:
        self.number = number
        self.random = random.Random(f"{seed}/{number}")
        self._noise = torch.Generator().manual_seed(self.random.getrandbits(62))

    def normal(self, *shape: int, mean: float = 0.0, std: float = 1.0) -> torch.Tensor:
        """Return normal noise of a shape."""
        return mean + std * torch.randn(*shape, generator=self._noise, dtype=torch.float64)

    def between(self, low: float, high: float) -> float:
        """Return a uniform number from `low` to `high`."""
        return self.random.uniform(low, high)

    def probabilities(self, k: int) -> torch.Tensor:
        """Return (k,) positive probabilities that sum to 1."""
        return self.normal(k).softmax(0)

    def flags(self, n: int) -> torch.Tensor:
        """Return (n,) bool that contains both values."""
        return torch.tensor(
            self.random.sample(
                [True, False] + [self.random.random() < 0.5 for _ in range(n - 2)], n
            )
        )

    def mask(self, rows: int, width: int) -> torch.Tensor:
        """Return (rows, width) bool, true on the completion: each row has a prompt, a completion of at
        least two tokens, and padding. All completion lengths differ.
        """
        lengths = self.random.sample(range(2, width - 2), rows)
        starts = [self.random.randint(1, width - 1 - length) for length in lengths]
        position = torch.arange(width)
        return torch.stack(
            [
                (position >= start) & (position < start + length)
                for start, length in zip(starts, lengths)
            ]
        )


@dataclass(frozen=True)
class KnownMistake:
    """A mistake that a check recognises: its name, a function that makes it, and the message for the
    learner.
    """

    name: str
    function: Callable[..., Any]
    message: str


@dataclass(frozen=True)
class Exercise:
    """A function that a learner writes.

    `arguments` are its arguments in order and `returns` describes its value. `reference` is the
    function of the lab, `inputs` makes random inputs, `mistakes` are the known mistakes.
    `probe(function, *inputs)` calls a function and returns the values to compare; by default that
    is the value of one call.
    """

    name: str
    notebook: int
    arguments: tuple[str, ...]
    returns: str
    reference: Callable[..., Any]
    inputs: Callable[[RandomInputs], tuple[Any, ...]]
    mistakes: Sequence[KnownMistake]
    probe: Callable[..., Any] = field(default=lambda function, *inputs: function(*inputs))


@dataclass(frozen=True)
class Verdict:
    """The result of a check: whether the function is right, the name of the mistake if it is known,
    and the message for the learner.
    """

    passed: bool
    mistake: str
    message: str


def grade(exercise: Exercise, function: Callable[..., Any], seed: int) -> Verdict:
    """Return the verdict on `function`, from `NUM_CASES` random inputs that depend on `seed`."""
    cases = [exercise.inputs(RandomInputs(seed, number)) for number in range(NUM_CASES)]
    expected = [exercise.probe(exercise.reference, *_copies(case)) for case in cases]
    results = []
    for case in cases:
        try:
            results.append(exercise.probe(function, *_copies(case)))
        except NotImplementedError:
            return Verdict(False, "not written", f"{exercise.name} is not written yet.")
        except Exception as error:
            return Verdict(False, type(error).__name__, _raised(exercise, function, error, case))
    if all(value is None or value is ... for value in results):
        return Verdict(
            False,
            "not written",
            f"{exercise.name} returns nothing yet. It should give {exercise.returns}.",
        )
    if all(results_equal(a, b) for a, b in zip(results, expected)):
        return Verdict(
            True,
            "",
            f"{exercise.name} agrees with the lab on {NUM_CASES} random inputs (to {RELATIVE:g}).",
        )
    for known in exercise.mistakes:
        if all(
            results_equal(value, exercise.probe(known.function, *_copies(case)))
            for value, case in zip(results, cases)
        ):
            return Verdict(False, known.name, known.message)
    return _unknown_mistake(exercise, cases, results, expected)


def numbers_of_texts(
    function: Callable[..., Any], texts: Sequence[str], *rest: Any
) -> torch.Tensor | None:
    """A probe: call `function` with each text. Returns one number per text, or None if the function is
    not written yet.
    """
    return stack_results([function(text, *rest) for text in texts])


def stack_results(values: Sequence[Any]) -> torch.Tensor | None:
    """Return the results of several calls as one tensor, or None if all are None.

    Raises `TypeError` for a single result that is None or not a number or tensor.
    """
    if all(value is None for value in values):
        return None
    tensors = []
    for value in values:
        tensor = as_tensor(value)
        if tensor is None:
            raise TypeError(f"one call gives {_type_text(value)}")
        tensors.append(tensor)
    return torch.stack(tensors)


def results_equal(result: Any, expected: Any) -> bool:
    """Return whether two results are equal. Text must be identical. Numbers and tensors must have the
    same shape and agree within the tolerance; NaN equals NaN.
    """
    if isinstance(expected, str) or isinstance(result, str):
        return bool(result == expected)
    one, other = as_tensor(result), as_tensor(expected)
    if one is None or other is None or one.shape != other.shape:
        return False
    return torch.allclose(one, other, rtol=RELATIVE, atol=ABSOLUTE, equal_nan=True)


def as_tensor(value: Any) -> torch.Tensor | None:
    """Return a tensor, a number, or a tuple of them as one float64 tensor; None for any other value,
    including a list.
    """
    if isinstance(value, torch.Tensor):
        return value.detach().double()
    if isinstance(value, bool | int | float):
        return torch.tensor(float(value), dtype=torch.float64)
    if isinstance(value, tuple) and value:
        tensors = [t for t in map(as_tensor, value) if t is not None]
        if len(tensors) == len(value) and len({t.shape for t in tensors}) == 1:
            return torch.stack(tensors)
    return None


def _copies(case: tuple[Any, ...]) -> list[Any]:
    """Return copies of the inputs, since a function may write into them."""
    return [value.clone() if isinstance(value, torch.Tensor) else value for value in case]


def _unknown_mistake(
    exercise: Exercise, cases: list[tuple[Any, ...]], results: list[Any], expected: list[Any]
) -> Verdict:
    """Return the verdict on an unknown mistake: wrong type, wrong shape, NaN, or the first entry that
    differs.
    """
    number = next(i for i, (a, b) in enumerate(zip(results, expected)) if not results_equal(a, b))
    got, want = results[number], expected[number]
    called = f"It was called with {inputs_text(exercise, cases[number])}."
    if isinstance(want, str) or isinstance(got, str):
        return Verdict(
            False, "other", f"{exercise.name} gives {got!r}, but {want!r} is right. {called}"
        )
    values, right = as_tensor(got), as_tensor(want)
    assert right is not None  # Every reference returns text, numbers or tensors.
    if values is None:
        return Verdict(
            False,
            "kind",
            f"{exercise.name} gives {_type_text(got)}, but should give {exercise.returns}. {called}",
        )
    if values.shape != right.shape:
        return Verdict(
            False,
            "shape",
            f"{exercise.name} gives the shape {tuple(values.shape)}, but should give {exercise.returns},"
            f" here {tuple(right.shape)}. {called}",
        )
    if (values.isnan() & ~right.isnan()).any():
        return Verdict(
            False,
            "NaN",
            f"{exercise.name} gives NaN. Look for 0/0, the log of 0 or a difference of infinities."
            f" {called}",
        )
    index = (
        (~torch.isclose(values, right, rtol=RELATIVE, atol=ABSOLUTE, equal_nan=True))
        .nonzero()[0]
        .tolist()
    )
    where = f"at {index} " if index else ""
    return Verdict(
        False,
        "other",
        f"{exercise.name} gives {values[tuple(index)].item():.5g} {where}where"
        f" {right[tuple(index)].item():.5g} is right. This is none of the mistakes that the check knows."
        f" {called}",
    )


def _type_text(value: Any) -> str:
    if value is None:
        return "None (is there a return on every path?)"
    if isinstance(value, list):
        return "a list (torch.tensor(…) makes it a tensor)"
    if isinstance(value, tuple):
        return "a tuple of values with different types or shapes"
    return f"a {type(value).__name__}"


def inputs_text(exercise: Exercise, case: tuple[Any, ...]) -> str:
    """Return the inputs of a call as short text."""
    return ", ".join(f"{name} = {_short(value)}" for name, value in zip(exercise.arguments, case))


def _short(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        numbers = (
            torch.round(value, decimals=3).tolist()
            if value.is_floating_point()
            else value.long().tolist()
        )
        text = str(numbers).replace(" ", "")
        return f"{tuple(value.shape)} {text if len(text) <= 120 else text[:119] + '…'}"
    return f"{value:.4g}" if isinstance(value, float) else repr(value)


def _raised(
    exercise: Exercise, function: Callable[..., Any], error: Exception, case: tuple[Any, ...]
) -> str:
    """Return the message for an exception of the learner's function, with its line and the input."""
    call = f"{exercise.name}({', '.join(exercise.arguments)})"
    try:
        inspect.signature(function).bind(*case)
    except TypeError:
        return (
            f"The check calls {call} with {len(case)} arguments in this order, but your function"
            f" takes {inspect.signature(function)}."
        )
    except ValueError:  # A builtin without a signature.
        pass
    source = getattr(getattr(function, "__code__", None), "co_filename", None)
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == source
    ]
    line = f" in the line `{frames[-1].line}`" if frames and frames[-1].line else ""
    return (
        f"{exercise.name} stopped with {type(error).__name__}: {error}{line}. It was called with"
        f" {inputs_text(exercise, case)}."
    )
