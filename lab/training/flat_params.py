"""Trained weights as one vector: one tensor for the optimizer to move and one gradient to measure
and clip, however many matrices there are.
"""

from collections.abc import Iterable

import torch


class FlatParameter:
    """`parts`, trained weights of one dtype and device, as views of `whole`, which the optimizer
    moves.

    A gradient arrives at the parts; `gather` moves it to the whole. Elementwise optimizers such as
    AdamW do to the whole what they would do to the parts.
    """

    def __init__(self, parts: list[torch.nn.Parameter]) -> None:
        self.parts = parts
        self.whole = torch.nn.Parameter(torch.cat([part.detach().flatten() for part in parts]))
        for part, view in zip(parts, self.whole.detach().split([part.numel() for part in parts])):
            part.data = view.view(part.shape)

    def gather(self) -> None:
        """Make the parts' gradients that of the whole; a part without one counts as 0."""
        self.whole.grad = torch.cat(
            [
                (torch.zeros_like(part) if part.grad is None else part.grad).flatten()
                for part in self.parts
            ]
        )
        for part in self.parts:
            part.grad = None


def flat_params(weights: Iterable[torch.nn.Parameter]) -> list[FlatParameter]:
    """The weights as few vectors as their dtypes allow, in the order in which the dtypes appear."""
    by_dtype: dict[torch.dtype, list[torch.nn.Parameter]] = {}
    for weight in weights:
        by_dtype.setdefault(weight.dtype, []).append(weight)
    return [FlatParameter(parts) for parts in by_dtype.values()]
