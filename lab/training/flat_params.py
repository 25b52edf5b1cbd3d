"""Trained weights as one vector: one tensor for the optimizer to move and one gradient to measure
and clip, however many matrices there are. FSDP calls such a tensor a flat parameter
(arXiv 2304.11277).
"""

from collections.abc import Iterable

import torch


class FlatParameter:
    """Trained weights of one dtype and device as `views` of the vector `flat`, which the optimizer
    moves.

    A gradient arrives at the views; `gather_gradients` moves it to the vector. Elementwise optimizers
    such as AdamW do to the vector what they would do to the views.
    """

    def __init__(self, weights: list[torch.nn.Parameter]) -> None:
        self.views = weights
        self.flat = torch.nn.Parameter(torch.cat([weight.detach().flatten() for weight in weights]))
        sizes = [weight.numel() for weight in weights]
        for weight, vector in zip(weights, self.flat.detach().split(sizes)):
            weight.data = vector.view(weight.shape)

    def gather_gradients(self) -> None:
        """Move the gradients of the views into that of the vector; a view without one counts as 0."""
        self.flat.grad = torch.cat(
            [
                (torch.zeros_like(view) if view.grad is None else view.grad).flatten()
                for view in self.views
            ]
        )
        for view in self.views:
            view.grad = None

    def scatter_gradients(self) -> None:
        """Give every view its part of the vector's gradient, for an optimizer that moves matrices."""
        assert self.flat.grad is not None  # `gather_gradients` comes first.
        sizes = [view.numel() for view in self.views]
        for view, gradient in zip(self.views, self.flat.grad.split(sizes)):
            view.grad = gradient.view(view.shape)


def flat_params(weights: Iterable[torch.nn.Parameter]) -> list[FlatParameter]:
    """Return the weights as one vector for each dtype, in the order in which the dtypes appear."""
    by_dtype: dict[torch.dtype, list[torch.nn.Parameter]] = {}
    for weight in weights:
        by_dtype.setdefault(weight.dtype, []).append(weight)
    return [FlatParameter(group) for group in by_dtype.values()]
