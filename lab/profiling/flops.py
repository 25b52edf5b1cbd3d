"""FLOP formulas for attention over packed rows, for which torch's own formula does not work."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch

from lab.engine.torch_private import varlen_attention_ops

Formula = TypeVar("Formula", bound=Callable[..., int])


def _with_tensors(formula: Formula) -> Formula:
    """Mark a formula so that FlopCounterMode passes it the tensors and not their shapes."""
    setattr(formula, "_get_raw", True)  # noqa: B010, functions have no such attribute for mypy.
    return formula


@_with_tensors
def packed_attention_flops(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seqlens: torch.Tensor,
    *rest: Any,
    **options: Any,
) -> int:
    """Return the operations of the attention kernel for packed rows (N, heads, d): the scores and
    the weighted sum of values, every token with all tokens of its row, as torch counts.

    `cu_seqlens` (B + 1,) is where each row begins, and the end. torch's own formula refuses keys
    that several queries share. Anchor: rows of 3 and 2 tokens, one head, d = 4 give
    2·2·4·(9 + 4) = 208.
    """
    _, heads, head_dim = query.shape
    return int(4 * heads * head_dim * (cu_seqlens.diff().double() ** 2).sum())


@_with_tensors
def packed_attention_backward_flops(
    grad: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    out: torch.Tensor,
    logsumexp: torch.Tensor,
    cu_seqlens: torch.Tensor,
    *rest: Any,
    **options: Any,
) -> int:
    """Return the operations of the backward kernel: five products where forward has two."""
    return packed_attention_flops(query, key, value, cu_seqlens) * 5 // 2


_FORWARD_OP, _BACKWARD_OP = varlen_attention_ops()
FLOP_FORMULAS = {_FORWARD_OP: packed_attention_flops, _BACKWARD_OP: packed_attention_backward_flops}
"""Formulas by operator, for FlopCounterMode."""
