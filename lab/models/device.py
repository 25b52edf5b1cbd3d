"""The dtype and the kernels of a device, decided by its compute capability in one place."""

from functools import cache

import torch

AMPERE = (8, 0)
"""The compute capability from which on a GPU has bfloat16 in its tensor cores, flash attention, and
all that the Triton kernels use.
"""


@cache
def capability(index: int) -> tuple[int, int]:
    """The compute capability of a CUDA device: (7, 0) is a V100, (7, 5) a T4, (8, 0) an A100, (9,
    0) an H100.
    """
    return torch.cuda.get_device_capability(index)


def has_bfloat16(device: torch.device) -> bool:
    """Whether `device` is a GPU of `AMPERE` or newer. An older one takes float32 and torch's own
    kernels.

    Not float16: activations of models that were trained in bfloat16 exceed its range, and its
    gradients need a scaler.
    """
    return (
        device.type == "cuda"
        and capability(torch.cuda.current_device() if device.index is None else device.index)
        >= AMPERE
    )


def compute_dtype(device: torch.device) -> torch.dtype:
    """The dtype of weights and matrix products: bfloat16 on a modern GPU, float32 on older ones and
    on the CPU. LoRA is in float32 everywhere.
    """
    return torch.bfloat16 if has_bfloat16(device) else torch.float32
