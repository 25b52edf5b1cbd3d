"""The matrices of a decode step, with the adapter merged into them or kept apart."""

from dataclasses import dataclass

import torch
from torch.nn.functional import linear

from lab.engine.allocator import Allocator
from lab.engine.lora_linear import FusedLoraLinear


@dataclass
class StepProduct:
    """x·Wᵀ + b of layers that read the same x, and x·Aᵀ·Bᵀ where the adapter is kept apart.

    `weight` W is (O, I), `bias` b (O,), `lora_a` A (r, I), and `lora_b` B (O, r), scaled. Sampling owns
    the tensors `owned`; the others are the model's.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None = None
    lora_a: torch.Tensor | None = None
    lora_b: torch.Tensor | None = None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return the product (N, O) of x (N, I)."""
        y = linear(x, self.weight, self.bias)
        return y if self.lora_a is None else y.addmm_(x @ self.lora_a.T, self._lora_b.T)

    def add_to(self, y: torch.Tensor, x: torch.Tensor) -> None:
        """Add the product of x (N, I) to y (N, O) in place, without a copy of either."""
        y.addmm_(x, self.weight.T)
        if self.lora_a is not None:
            y.addmm_(x @ self.lora_a.T, self._lora_b.T)
        if self.bias is not None:
            y.add_(self.bias)

    def merge(self, projection: FusedLoraLinear, allocator: Allocator) -> None:
        """Write W + B·A of the loaded adapter into `weight`, or W if there is none."""
        if projection.lora_a is not None and projection.lora_b is not None:
            if self.weight is projection.weight:
                self.weight = allocator.allocate(
                    "weights", *projection.weight.shape, like=projection.weight
                )
            torch.addmm(projection.weight, projection.lora_b, projection.lora_a, out=self.weight)
        elif self.weight is not projection.weight:
            self.weight.copy_(projection.weight)

    def keep_apart(self, projection: FusedLoraLinear, allocator: Allocator) -> bool:
        """Copy A and B of the loaded adapter, or a B of zeros if there is none. Return whether they still
        lie where they lay before.
        """
        a, b = projection.lora_a, projection.lora_b
        if a is None or b is None:
            if self.lora_b is not None:
                self.lora_b.zero_()
            return True
        in_place = self.lora_a is not None and self.lora_a.shape == a.shape
        if not in_place:
            self.lora_a, self.lora_b = (
                allocator.allocate("weights", *matrix.shape, like=matrix) for matrix in (a, b)
            )
        assert self.lora_a is not None
        self.lora_a.copy_(a)
        self._lora_b.copy_(b)
        return in_place

    def owned(self, projection: FusedLoraLinear) -> list[torch.Tensor]:
        """Return the tensors that sampling keeps beside the model's own weights."""
        mine = [] if self.weight is projection.weight else [self.weight]
        return mine + [matrix for matrix in (self.lora_a, self.lora_b) if matrix is not None]

    @property
    def _lora_b(self) -> torch.Tensor:
        assert self.lora_b is not None
        return self.lora_b
