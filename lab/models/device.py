"""Chooses the device of a run, and decides by its compute capability which dtype and kernels it
uses.
"""

from contextlib import AbstractContextManager, nullcontext
from functools import cache

import torch

from lab.config.input_checks import require_device
from lab.distributed.collectives import local_rank
from lab.errors import LabError

AMPERE = (8, 0)
"""The compute capability from which on a GPU has bfloat16 in its tensor cores, flash attention, and
all that the Triton kernels use.
"""


@cache
def capability(index: int) -> tuple[int, int]:
    """Returns the compute capability of a CUDA device: (7, 0) is a V100, (7, 5) a T4, (8, 0) an A100, (9,
    0) an H100.
    """
    return torch.cuda.get_device_capability(index)


def has_bfloat16(device: torch.device) -> bool:
    """Returns whether `device` is a GPU of `AMPERE` or newer. An older GPU uses float32 and torch's
    own kernels.

    float16 is no choice: activations of models that were trained in bfloat16 exceed its range, and
    its gradients need a scaler.
    """
    return (
        device.type == "cuda"
        and capability(torch.cuda.current_device() if device.index is None else device.index)
        >= AMPERE
    )


def compute_dtype(device: torch.device) -> torch.dtype:
    """Returns the dtype of weights and matrix products: bfloat16 on a modern GPU, float32 on older ones and
    on the CPU. LoRA is in float32 everywhere.
    """
    return torch.bfloat16 if has_bfloat16(device) else torch.float32


def resolve_device(text: str) -> torch.device:
    """Returns the device with a name: cpu, cuda, cuda:N, or auto, which is CUDA if there is a CUDA
    device and otherwise the CPU.

    Of several processes each takes its own GPU. Raises `LabError` for any other name, and for a
    device that torch does not see.
    """
    require_device(text)
    if text == "auto":
        text = "cuda" if torch.cuda.is_available() else "cpu"
    if text == "cuda" and local_rank() is not None:
        text = f"cuda:{local_rank()}"
    device = torch.device(text)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise LabError(
            f"device is '{text}', but torch sees {torch.cuda.device_count()} CUDA devices here. Use"
            " --device cpu or auto."
        )
    if device.index is not None:
        torch.cuda.set_device(device)  # Code that names no GPU now uses this one.
    return device


def autocast(device: torch.device) -> AbstractContextManager:
    """Returns a context of mixed precision on a modern GPU: bfloat16 matrix products, while the LoRA
    weights stay in float32. On other devices the context does nothing.
    """
    return torch.autocast("cuda", compute_dtype(device)) if has_bfloat16(device) else nullcontext()
