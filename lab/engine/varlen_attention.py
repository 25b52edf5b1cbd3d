"""Causal attention within the rows of a packed sequence: by flash attention for rows of any length
on a GPU, otherwise on padded rows.

Shapes: N tokens of the packed sequence, C cells of the padded layout, H heads of width d (fewer for
keys and values).
"""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch.autograd.function import once_differentiable
from torch.nn.functional import scaled_dot_product_attention

from lab.data.packing import LengthBucket, Packed, PaddedLayout
from lab.engine.torch_private import causal_varlen_attention
from lab.models.device import has_bfloat16

AttentionFn = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""Queries (N, n_heads, d), keys and values (N, n_kv_heads, d) → attention output (N, n_heads, d)."""


def has_varlen_attention(dtype: torch.dtype, head_dim: int, device: torch.device) -> bool:
    """Return whether attention takes rows of any length without padding.

    That needs bfloat16 heads whose width flash attention supports, and a GPU on which it runs.
    """
    return (
        dtype == torch.bfloat16
        and head_dim % 8 == 0
        and head_dim <= 256
        and (has_bfloat16(device) or device.type != "cuda")
    )


def causal_attention(packed: Packed) -> AttentionFn:
    """Return a function that computes causal attention within each row of `packed`."""

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        if has_varlen_attention(q.dtype, q.shape[-1], q.device):
            return causal_varlen_attention(q, k, v, packed.cu_seqlens, packed.width)
        if packed.padded:
            return _attend_shared_prefixes(packed.length_buckets, packed.padded, q, k, v)
        return torch.cat(
            [
                _attend_bucket(bucket, packed.positions[bucket.tokens], q, k, v)
                for bucket in packed.length_buckets
            ]
        )

    return attend


def _attend_shared_prefixes(
    buckets: list[LengthBucket], layout: PaddedLayout, *qkv: torch.Tensor
) -> torch.Tensor:
    """Return attention (N, n_heads, d) of a packed sequence whose rows share prefixes."""
    q, k, v = (cast(torch.Tensor, PackedToPadded.apply(x, layout)) for x in qkv)
    cells = torch.cat(
        [_attend_padded_rows(b, q[b.tokens], k[b.tokens], v[b.tokens]) for b in buckets]
    )
    return cast(torch.Tensor, PaddedToPacked.apply(cells, layout))


def _attend_bucket(
    bucket: LengthBucket, positions: torch.Tensor, *qkv: torch.Tensor
) -> torch.Tensor:
    """Pad the rows of one bucket, whose tokens lie at `positions` in their rows, and return their
    attention.
    """
    cells = positions + ((positions == 0).cumsum(0) - 1) * bucket.width
    q, k, v = (
        x.new_zeros(bucket.rows * bucket.width, *x.shape[1:]).index_copy(0, cells, x[bucket.tokens])
        for x in qkv
    )
    return _attend_padded_rows(bucket, q, k, v)[cells]


def _attend_padded_rows(bucket: LengthBucket, *qkv: torch.Tensor) -> torch.Tensor:
    """Return causal attention of padded rows: q, k, v (rows·width, heads, d) → (rows·width,
    n_heads, d).
    """
    q, k, v = (x.unflatten(0, (bucket.rows, bucket.width)).transpose(1, 2) for x in qkv)
    return (
        scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=q.shape[1] != k.shape[1])
        .transpose(1, 2)
        .flatten(0, 1)
    )


class PackedToPadded(torch.autograd.Function):
    """Copy the packed tokens (N, …) into padded cells (C, …).

    The gradient of a token is the sum over its cells. Padding has no gradient, because no token
    attends to it.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, layout: PaddedLayout) -> torch.Tensor:
        """Return the cells (C, …) of the tokens x (N, …)."""
        ctx.layout = layout
        return x.index_select(0, layout.token_of_cell)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Return the gradient of the tokens (N, …)."""
        tokens, cells = ctx.layout.shared_tokens
        grad_x = grad.index_select(0, ctx.layout.cell_of_token)
        if len(tokens):
            grad_x.index_add_(0, tokens, grad.index_select(0, cells))
        return grad_x, None


class PaddedToPacked(torch.autograd.Function):
    """Gather the padded outputs (C, …) back to packed order (N, …)."""

    @staticmethod
    def forward(ctx: Any, cells: torch.Tensor, layout: PaddedLayout) -> torch.Tensor:
        """Return the tokens (N, …) of the cells (C, …)."""
        ctx.layout = layout
        return cells.index_select(0, layout.cell_of_token)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Return the gradient of the cells (C, …), which is 0 in padding."""
        layout = ctx.layout
        grad_cells = grad.new_zeros(len(layout.token_of_cell), *grad.shape[1:])
        return grad_cells.index_copy_(0, layout.cell_of_token, grad), None
