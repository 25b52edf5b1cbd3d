"""Products with the large matrices of a model, on a CPU by the faster of two libraries.

Shapes: N tokens, I input and O output width.
"""

import torch
from torch.nn import functional

from lab.engine.torch_private import has_onednn_product, in_dispatch_mode, onednn_product

MIN_MATRIX_ELEMENTS = 2**18
"""Least elements of a matrix whose products oneDNN computes. Products with smaller ones are bound by
calls, not by arithmetic.
"""


def by_onednn(weight: torch.Tensor) -> bool:
    """Return whether oneDNN computes products with `weight` and with its adapter. A profiler that
    counts operations gets torch's own, because it does not know the others.
    """
    return (
        weight.numel() >= MIN_MATRIX_ELEMENTS
        and weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and has_onednn_product()
        and not in_dispatch_mode()
    )


def product(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return x (N, I) · weightᵀ for a weight (O, I) with any strides, without a gradient."""
    return onednn_product(x, weight) if by_onednn(weight) else x @ weight.T


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Return x (N, I) · weightᵀ + bias (N, O) on any device; a gradient is computed where x needs one."""
    needs_grad = torch.is_grad_enabled() and x.requires_grad
    if needs_grad or not by_onednn(weight):
        return functional.linear(x, weight, bias)
    y = onednn_product(x, weight)
    return y if bias is None else y.add_(bias)


def product_into(out: torch.Tensor, x: torch.Tensor, weight: torch.Tensor) -> None:
    """Write x (N, I) · weightᵀ into `out` (N, O), without a gradient."""
    if by_onednn(weight):
        out.copy_(onednn_product(x, weight))
    else:
        torch.mm(x, weight.T, out=out)


def add_product_(start: torch.Tensor, x: torch.Tensor, weight: torch.Tensor) -> None:
    """Add x (N, I) · weightᵀ to `start` (N, O), without a gradient."""
    if by_onednn(weight):
        start.add_(onednn_product(x, weight))
    else:
        start.addmm_(x, weight.T)


def plus_product(start: torch.Tensor, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return start (N, O) + x (N, I) · weightᵀ, without a gradient."""
    if by_onednn(weight):
        return onednn_product(x, weight).add_(start)
    return torch.addmm(start, x, weight.T)
