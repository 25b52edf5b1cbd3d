"""Numbers and conditions that the inputs of a call offer, to explain a factor or which rows are wrong."""

from collections.abc import Sequence
from typing import Any

import torch

Call = tuple[Any, ...]


def input_numbers(arguments: Sequence[str], calls: Sequence[Call]) -> dict[str, list[torch.Tensor]]:
    """Return, by a name for the reader, numbers of the inputs in float64, one tensor for each call:
    the arguments themselves, the lengths of tensors, and the tokens of masks.
    """
    found: dict[str, list[torch.Tensor]] = {}
    for place, name in enumerate(arguments[: len(calls[0])]):
        values = [call[place] for call in calls]
        if type(values[0]) in (int, float):
            found[name] = [torch.tensor(float(v), dtype=torch.float64) for v in values]
        if type(values[0]) is int:
            found[f"{name} − 1"] = [torch.tensor(v - 1.0, dtype=torch.float64) for v in values]
            found[f"{name} / ({name} − 1)"] = [
                torch.tensor(v / (v - 1.0 or 1.0), dtype=torch.float64) for v in values
            ]
        if isinstance(values[0], torch.Tensor):
            found |= _tensor_numbers(name, values)
    return {
        name: numbers for name, numbers in found.items() if all(n.isfinite().all() for n in numbers)
    }


def _tensor_numbers(name: str, values: Sequence[torch.Tensor]) -> dict[str, list[torch.Tensor]]:
    numbers: dict[str, list[torch.Tensor]] = {}
    first = values[0]
    if first.ndim == 2 and first.dtype == torch.bool:
        numbers[f"the number of tokens in {name}, row by row"] = [v.sum(1).double() for v in values]
        numbers[f"the number of all tokens in {name}"] = [v.sum().double() for v in values]
    elif first.ndim <= 1:
        numbers[name] = [v.double() for v in values]
    for dim, words in ((0, "the number of rows of"), (1, "the width of")):
        if first.ndim > dim:
            numbers[f"{words} {name}"] = [
                torch.tensor(float(v.shape[dim]), dtype=torch.float64) for v in values
            ]
    return numbers


def conditions(
    arguments: Sequence[str], rows: Sequence[tuple[torch.Tensor, Call]]
) -> dict[str, list[torch.Tensor]]:
    """Return, by words for the reader, which entries of the right answer a condition on the inputs
    holds for: one bool tensor of the answer's shape for each call. `rows` are right answers and calls.
    """
    found: dict[str, list[torch.Tensor]] = {}
    for place, name in enumerate(arguments[: len(rows[0][1])]):
        if not isinstance(rows[0][1][place], torch.Tensor):
            continue
        spread = [_spread(call[place], right) for right, call in rows]
        if any(x is None for x in spread):
            continue
        tensors = [x for x in spread if x is not None]
        if tensors[0].dtype == torch.bool:
            found[f"where {name} is true"] = tensors
            found[f"where {name} is false"] = [~x for x in tensors]
            if tensors[0].ndim == 2:
                last = [x & (x.flip(1).cumsum(1).flip(1) == 1) for x in tensors]
                found[f"on the last token in {name}"] = last
                found[f"on the first token in {name}"] = [x & (x.cumsum(1) == 1) for x in tensors]
        else:
            found[f"where {name} is positive"] = [x > 0 for x in tensors]
            found[f"where {name} is negative"] = [x < 0 for x in tensors]
    return found | _places([right for right, _ in rows])


def _places(answers: Sequence[torch.Tensor]) -> dict[str, list[torch.Tensor]]:
    """Conditions on the right answer and on the place in it."""
    found = {
        "where 0 is right": [x == 0 for x in answers],
        "where the right number is negative": [x < 0 for x in answers],
        "where the right number is positive": [x > 0 for x in answers],
    }
    for words, index in (("first", 0), ("last", -1)):
        made = [torch.zeros_like(x, dtype=torch.bool) for x in answers]
        for x in made:
            x[..., index] = True
        found[f"in the {words} place of a row"] = made
    return found


def _spread(value: torch.Tensor, like: torch.Tensor) -> torch.Tensor | None:
    """`value` in the shape of the answer: the same, or one for each row."""
    if value.shape == like.shape and value.ndim:
        return value
    if like.ndim == 2 and value.shape == like.shape[:1]:
        return value[:, None].expand(like.shape)
    return None
