"""An exercise of the course: its inputs, the lab's answer, and the mistakes that its check knows."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch


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
    `calls(*inputs)` gives the arguments of every call that is made with one input, by default the
    input itself. `probe(function, *arguments)` makes a call and returns the value to compare. `limit`
    is the lab's formula without the small number that guards a division: every answer between the
    two is right. A `detached` answer must have no gradient. `uses` are the modules of the lab that a
    learner's function may import when it is graded.
    """

    name: str
    notebook: int
    arguments: tuple[str, ...]
    returns: str
    reference: Callable[..., Any]
    inputs: Callable[[RandomInputs], tuple[Any, ...]]
    mistakes: Sequence[KnownMistake]
    probe: Callable[..., Any] = field(default=lambda function, *arguments: function(*arguments))
    calls: Callable[..., list[tuple[Any, ...]]] = field(default=lambda *inputs: [inputs])
    limit: Callable[..., Any] | None = None
    detached: bool = False
    uses: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """The result of a check: whether the function is right, the name of the mistake if it is known,
    and the message for the learner.
    """

    passed: bool
    mistake: str
    message: str


def one_call_for_each_text(texts: Sequence[str], *rest: Any) -> list[tuple[Any, ...]]:
    """Return the calls of a function that takes one text, from an input of several."""
    return [(text, *rest) for text in texts]
