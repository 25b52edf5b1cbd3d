"""The values that a learner's function takes and gives: compared, and written as text."""

import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

RELATIVE, ABSOLUTE = 1e-4, 1e-6
"""Tolerance of a right answer: rounding passes, a formula that is only close does not."""


def as_tensor(value: Any) -> torch.Tensor | None:
    """Return numbers in any form as one float64 tensor: a tensor, a NumPy array, a number, or a list
    or tuple of them. None for any other value.
    """
    if isinstance(value, torch.Tensor):
        return value.detach().double().cpu()
    if isinstance(value, np.ndarray | np.generic):
        return torch.as_tensor(value.astype(float)) if value.dtype.kind in "biuf" else None
    if isinstance(value, numbers.Real):
        return torch.tensor(float(value), dtype=torch.float64)
    if isinstance(value, list | tuple) and value:
        tensors = [t for t in map(as_tensor, value) if t is not None]
        if len(tensors) == len(value) and len({t.shape for t in tensors}) == 1:
            return torch.stack(tensors)
    return None


def significant(shape: Sequence[int]) -> list[int]:
    """Return a shape without its dimensions of size 1: (B, 1) and (B,) hold the same numbers."""
    return [size for size in shape if size != 1]


def results_equal(result: Any, expected: Any) -> bool:
    """Return whether two results are equal. Text must be identical. Numbers must agree within the
    tolerance and have the same shape, apart from dimensions of size 1; NaN equals NaN.
    """
    if isinstance(expected, str) or isinstance(result, str):
        return bool(isinstance(result, str) and result == expected)
    one, other = as_tensor(result), as_tensor(expected)
    if one is None or other is None or significant(one.shape) != significant(other.shape):
        return False
    return bool(wrong_entries(one.reshape(other.shape), other).logical_not().all())


def wrong_entries(values: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Return which entries of `values` differ from those of `right` by more than the tolerance."""
    return ~torch.isclose(values, right, rtol=RELATIVE, atol=ABSOLUTE, equal_nan=True)


def lies_between(result: Any, one: Any, other: Any) -> bool:
    """Return whether every number of `result` lies between those of two results of its shape."""
    tensors = [as_tensor(value) for value in (result, one, other)]
    if any(t is None or significant(t.shape) != significant(tensors[1].shape) for t in tensors):  # type: ignore[union-attr]
        return False
    value, first, second = (t.flatten() for t in tensors if t is not None)
    slack = ABSOLUTE + RELATIVE * first.abs()
    low, high = torch.minimum(first, second) - slack, torch.maximum(first, second) + slack
    return bool(((value >= low) & (value <= high)).all())


def type_text(value: Any) -> str:
    """Return what kind of value a function gives, where it is none of numbers or text."""
    if value is None:
        return "None (is there a return on every path?)"
    if isinstance(value, tuple | list):
        kinds = ", ".join(type(part).__name__ for part in value)
        return f"a {type(value).__name__} of {len(value)} values that do not fit together ({kinds})"
    return f"a {type(value).__name__}"


def five_digits(value: float) -> str:
    """Return a number with five significant digits."""
    return f"{value:.5g}"


def value_text(value: Any) -> str:
    """Return a value in full: all numbers of a tensor, row by row, with five significant digits."""
    if isinstance(value, torch.Tensor):
        return _nested(value.tolist() if value.dtype != torch.bool else value.long().tolist())
    if isinstance(value, float):
        return five_digits(value)
    return repr(value)


def _nested(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_nested, value))}]"
    return five_digits(value) if isinstance(value, float) else str(value)
