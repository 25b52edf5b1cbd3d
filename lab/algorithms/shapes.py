"""The check of shapes that losses, advantages and reductions share."""

import torch

from lab.errors import LabError


def check_same_shape(dimensions: int, **tensors: torch.Tensor) -> None:
    """Raise `LabError` unless all `tensors` have one shape with that many dimensions: 1 is (B,), 2 is
    (B, T). The keyword names appear in the message.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if len(set(shapes.values())) > 1 or any(len(s) != dimensions for s in shapes.values()):
        raise LabError(
            f"{', '.join(f'{n} {s}' for n, s in shapes.items())}: all take the same shape,"
            f" {('(B,)', '(B, T)')[dimensions - 1]}."
        )
