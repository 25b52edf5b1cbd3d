"""Compare a learner's function with the lab's on fresh random inputs, and name the likely mistake."""

import inspect
import random
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

NUM_CASES = (
    6  # Random inputs of one check; an input may depend on its number, so that every case comes up.
)
RELATIVE, ABSOLUTE = 1e-4, 1e-6
"""How far a right answer may be from the lab's: rounding passes, a formula that is merely close
does not.
"""


class RandomInputs:
    """Random inputs in float64, from a seed. `number` counts the draws of a check, so that rare
    cases can be put in on purpose.
    """

    def __init__(self, seed: int, number: int) -> None:
        self.number = number
        self.random = random.Random(f"{seed}/{number}")
        self._noise = torch.Generator().manual_seed(self.random.getrandbits(62))

    def normal(self, *shape: int, mean: float = 0.0, std: float = 1.0) -> torch.Tensor:
        """Normal noise."""
        return mean + std * torch.randn(*shape, generator=self._noise, dtype=torch.float64)

    def between(self, low: float, high: float) -> float:
        """A number from `low` to `high`."""
        return self.random.uniform(low, high)

    def probabilities(self, k: int) -> torch.Tensor:
        """(k,) positive probabilities that sum to 1."""
        return self.normal(k).softmax(0)

    def flags(self, n: int) -> torch.Tensor:
        """(n,) bool with both values in it."""
        return torch.tensor(
            self.random.sample(
                [True, False] + [self.random.random() < 0.5 for _ in range(n - 2)], n
            )
        )

    def mask(self, rows: int, width: int) -> torch.Tensor:
        """(rows, width) bool: in each row a prompt, a completion of at least two tokens, padding;
        all lengths differ.
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
    """A mistake that a check knows: what it is called, a function that makes it, and what to tell
    whoever made it.
    """

    name: str
    function: Callable[..., Any]
    message: str


@dataclass(frozen=True)
class Exercise:
    """A function that a learner writes: its arguments in order, what it gives, the lab's own,
    random inputs and the known mistakes.

    `probe(function, *inputs)` calls a function and returns what is compared, for exercises where
    that is more than its value.
    """

    name: str
    notebook: int
    takes: tuple[str, ...]
    gives: str
    reference: Callable[..., Any]
    inputs: Callable[[RandomInputs], tuple[Any, ...]]
    wrongs: Sequence[KnownMistake]
    probe: Callable[..., Any] = field(default=lambda function, *inputs: function(*inputs))


@dataclass(frozen=True)
class Verdict:
    """What a check found: whether the function is right, the name of the mistake if it is a known
    one, and what to tell the learner.
    """

    passed: bool
    mistake: str
    message: str


def grade(exercise: Exercise, function: Callable[..., Any], seed: int) -> Verdict:
    """Compare `function` with the lab's on `DRAWS` random inputs drawn from `seed`."""
    cases = [exercise.inputs(RandomInputs(seed, number)) for number in range(NUM_CASES)]
    expected = [exercise.probe(exercise.reference, *_copies(case)) for case in cases]
    found = []
    for case in cases:
        try:
            found.append(exercise.probe(function, *_copies(case)))
        except NotImplementedError:
            return Verdict(False, "not written", f"{exercise.name} is not written yet.")
        except Exception as error:
            return Verdict(False, type(error).__name__, _raised(exercise, function, error, case))
    if all(value is None or value is ... for value in found):
        return Verdict(
            False,
            "not written",
            f"{exercise.name} returns nothing yet. It should give {exercise.gives}.",
        )
    if all(results_equal(a, b) for a, b in zip(found, expected)):
        return Verdict(
            True,
            "",
            f"{exercise.name} agrees with the lab on {NUM_CASES} random inputs (to {RELATIVE:g}).",
        )
    for wrong in exercise.wrongs:
        if all(
            results_equal(value, exercise.probe(wrong.function, *_copies(case)))
            for value, case in zip(found, cases)
        ):
            return Verdict(False, wrong.name, wrong.message)
    return _unknown(exercise, cases, found, expected)


def numbers_of_texts(
    function: Callable[..., Any], texts: Sequence[str], *rest: Any
) -> torch.Tensor | None:
    """A probe: one number for each text; None when the function is not written yet."""
    return stack_results([function(text, *rest) for text in texts])


def stack_results(values: Sequence[Any]) -> torch.Tensor | None:
    """What several calls gave, as one tensor; None when all gave nothing. Raises `TypeError` for
    one that gave nothing or something else.
    """
    if all(value is None for value in values):
        return None
    for value in values:
        if as_tensor(value) is None:
            raise TypeError(f"one call gives {_kind(value)}")
    return torch.stack([as_tensor(value) for value in values])


def results_equal(found: Any, expected: Any) -> bool:
    """Whether two results are equal: text exactly, numbers and tensors to the tolerance and with
    the same shape, NaN with NaN.
    """
    if isinstance(expected, str) or isinstance(found, str):
        return found == expected
    one, other = as_tensor(found), as_tensor(expected)
    if one is None or other is None or one.shape != other.shape:
        return False
    return torch.allclose(one, other, rtol=RELATIVE, atol=ABSOLUTE, equal_nan=True)


def as_tensor(value: Any) -> torch.Tensor | None:
    """A tensor, number, or tuple of them as one float64 tensor; None for anything else, a list of
    numbers too.
    """
    if isinstance(value, torch.Tensor):
        return value.detach().double()
    if isinstance(value, bool | int | float):
        return torch.tensor(float(value), dtype=torch.float64)
    if isinstance(value, tuple) and value:
        parts = [as_tensor(part) for part in value]
        if all(part is not None for part in parts) and len({part.shape for part in parts}) == 1:
            return torch.stack(parts)
    return None


def _copies(case: tuple[Any, ...]) -> list[Any]:
    """The inputs, so that a function that writes into them harms nobody."""
    return [value.clone() if isinstance(value, torch.Tensor) else value for value in case]


def _unknown(
    exercise: Exercise, cases: list[tuple[Any, ...]], found: list[Any], expected: list[Any]
) -> Verdict:
    """The message for an answer that is none of the known mistakes: the kind, the shape, NaN, or
    the first entry that differs.
    """
    number = next(i for i, (a, b) in enumerate(zip(found, expected)) if not results_equal(a, b))
    got, want = found[number], expected[number]
    called = f"It was called with {inputs_text(exercise, cases[number])}."
    if isinstance(want, str) or isinstance(got, str):
        return Verdict(
            False, "other", f"{exercise.name} gives {got!r}, but {want!r} is right. {called}"
        )
    one, other = as_tensor(got), as_tensor(want)
    if one is None:
        return Verdict(
            False,
            "kind",
            f"{exercise.name} gives {_kind(got)}, but should give {exercise.gives}. {called}",
        )
    if one.shape != other.shape:
        return Verdict(
            False,
            "shape",
            f"{exercise.name} gives the shape {tuple(one.shape)}, but should give {exercise.gives},"
            f" here {tuple(other.shape)}. {called}",
        )
    if (one.isnan() & ~other.isnan()).any():
        return Verdict(
            False,
            "NaN",
            f"{exercise.name} gives NaN: look for 0/0, the log of 0 or a difference of infinities."
            f" {called}",
        )
    off = (
        (~torch.isclose(one, other, rtol=RELATIVE, atol=ABSOLUTE, equal_nan=True))
        .nonzero()[0]
        .tolist()
    )
    where = f"at {off} " if off else ""
    return Verdict(
        False,
        "other",
        f"{exercise.name} gives {one[tuple(off)].item():.5g} {where}where"
        f" {other[tuple(off)].item():.5g} is right, and it is none of the mistakes that this check"
        f" knows. {called}",
    )


def _kind(value: Any) -> str:
    if value is None:
        return "None (is there a return on every path?)"
    if isinstance(value, list):
        return "a list (torch.tensor(…) makes a tensor of it)"
    if isinstance(value, tuple):
        return "a tuple of things that do not fit together"
    return f"a {type(value).__name__}"


def inputs_text(exercise: Exercise, case: tuple[Any, ...]) -> str:
    """The inputs of a call in short."""
    return ", ".join(f"{name} = {_short(value)}" for name, value in zip(exercise.takes, case))


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
    """What an exception of the learner's function says, with its line and the input."""
    given = f"{exercise.name}({', '.join(exercise.takes)})"
    try:
        inspect.signature(function).bind(*case)
    except TypeError:
        return (
            f"The check calls {given} with {len(case)} arguments in this order, but your function"
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
