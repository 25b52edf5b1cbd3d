"""Where sampling gets its memory: a profiler passes a subclass to learn what each tensor is for."""

from typing import Literal

import torch

MemoryKind = Literal["weights", "gradients", "optimizer", "cache", "activations"]
"""What a tensor is for. `cache` is the key-value cache of sampling; `activations` are all tensors
that are neither a weight nor made from one.
"""


class Allocator:
    """Allocates the tensors that outlive a decoding step, and hears of those that a library
    allocates. This one keeps no record.
    """

    def allocate(self, kind: MemoryKind, *shape: int, like: torch.Tensor) -> torch.Tensor:
        """Return zeros of `shape` for `kind`, with the dtype and the device of `like`.

        They have to be zeros: attention multiplies masked cache entries by 0, and 0 times an
        uninitialised NaN would be NaN.
        """
        return like.new_zeros(shape)

    def register(self, kind: MemoryKind, *tensors: torch.Tensor) -> None:
        """Take note that `tensors`, allocated elsewhere, are for `kind`."""


NO_RECORD = Allocator()
"""The default: plain zeros, and no record."""
