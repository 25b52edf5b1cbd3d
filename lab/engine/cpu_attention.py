"""On a CPU: causal attention of a packed batch, with its backward pass, by batched products.

Shapes: N tokens, C cells of padded rows, H = n_heads query heads and K = n_kv_heads heads of keys
and of values, S = H + 2·K heads of a token, d head width, W tokens whose attention output the
caller wants. A slot is an index into the (C·S, d) matrix of all heads of all cells.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention

from lab.data.packing import LengthBucket, Packed, PaddedLayout
from lab.engine.torch_private import softmax_backward

MAX_SCORED_LENGTH = 128
"""Rows up to this length, in tokens, have their attention probabilities in memory; longer ones use
torch's kernel.
"""


@dataclass
class BackwardLayout:
    """Slots that the backward pass of attention reads; see `AttentionLayout`.

    `own_slots` (N·S,): slots of each token's own heads. `shared_tokens`: tokens that occupy more
    than one cell, one entry for each further cell, and `shared_slots` the slots of their heads
    there. `output_owner`: for every output slot (C·H,) the output row it belongs to, in the order
    of `output_slots`; padding points to a dummy row at the end. It has one entry for all tokens and
    one for the wanted tokens.
    """

    own_slots: torch.Tensor
    shared_tokens: torch.Tensor
    shared_slots: torch.Tensor
    output_owner: tuple[torch.Tensor, torch.Tensor]


@dataclass
class AttentionLayout:
    """Where heads lie in memory for attention: one length bucket after the other.

    A bucket has all queries, then all keys, then all values, each as (rows, heads, width).

    `buckets`: rows and width of each bucket. `head_of_slot` (C·S,): index into the (N·S) heads of
    the packed sequence. Attention output has its own layout, (C·H) slots. `output_slots`: the slots
    of the tokens kept for the next layer, once for all tokens (N·H,) and once for the wanted tokens
    (W·H,), which are all that the last block has to compute. `backward` is None unless the pass
    trains.
    """

    buckets: list[tuple[int, int]]
    head_of_slot: torch.Tensor
    output_slots: tuple[torch.Tensor, torch.Tensor]
    backward: BackwardLayout | None = None


def attention_layout(
    packed: Packed, wanted: torch.Tensor, n_heads: int, n_kv_heads: int, trains: bool
) -> AttentionLayout:
    """Return the layout of a packed batch whose caller wants the tokens `wanted` (W,), each once.

    `trains`: include what the backward pass needs.
    """
    padded, heads = packed.padded or _padded_layout(packed), n_heads + 2 * n_kv_heads
    slots, output_slots = head_slots(packed.length_buckets, n_heads, n_kv_heads)
    token_of_cell, cell_of_token = padded.token_of_cell.numpy(), padded.cell_of_token.numpy()
    head_of_slot = np.empty(slots.size, slots.dtype)
    head_of_slot[slots] = token_of_cell[:, None] * heads + np.arange(heads)
    wanted_slots = (
        output_slots[cell_of_token].ravel(),
        output_slots[cell_of_token[wanted.numpy()]].ravel(),
    )
    layout = AttentionLayout(
        [(bucket.rows, bucket.width) for bucket in packed.length_buckets],
        torch.from_numpy(head_of_slot),
        (torch.from_numpy(wanted_slots[0]), torch.from_numpy(wanted_slots[1])),
    )
    if trains:
        shared_tokens, shared_cells = padded.shared_tokens
        layout.backward = BackwardLayout(
            torch.from_numpy(slots[cell_of_token].ravel()),
            shared_tokens,
            torch.from_numpy(slots[shared_cells.numpy()].ravel()),
            (
                _owners(output_slots.size, wanted_slots[0]),
                _owners(output_slots.size, wanted_slots[1]),
            ),
        )
    return layout


def _owners(n_slots: int, chosen: np.ndarray) -> torch.Tensor:
    """Return for each of `n_slots` its index in `chosen`, or len(chosen) if it is not there."""
    owner = np.full(n_slots, len(chosen))
    owner[chosen] = np.arange(len(chosen))
    return torch.from_numpy(owner)


def head_slots(
    buckets: list[LengthBucket], n_heads: int, n_kv_heads: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the slots of all heads (C, S) of every cell, and the output slots (C, H) of its
    queries.
    """
    bucket_rows, bucket_width = np.array([(b.rows, b.width) for b in buckets]).T
    cells = bucket_rows * bucket_width
    rows, width, start = (
        values.repeat(cells)[:, None]
        for values in (bucket_rows, bucket_width, cells.cumsum() - cells)
    )
    row, column = np.divmod(np.arange(len(rows))[:, None] - start, width)
    query = row * n_heads * width + column + np.arange(n_heads) * width
    key = row * n_kv_heads * width + column + np.arange(n_kv_heads) * width + rows * n_heads * width
    slots = np.concatenate([query, key, key + rows * n_kv_heads * width], 1) + start * (
        n_heads + 2 * n_kv_heads
    )
    return slots, query + start * n_heads


def _padded_layout(packed: Packed) -> PaddedLayout:
    """Return the padded layout of a packed batch whose rows share no prefix."""
    bucket_cells, start = [], 0
    for bucket in packed.length_buckets:
        positions = packed.positions[bucket.tokens]
        bucket_cells.append(positions + ((positions == 0).cumsum(0) - 1) * bucket.width + start)
        start += bucket.rows * bucket.width
    cells = torch.cat(bucket_cells)
    none = cells.new_empty(0)
    return PaddedLayout(
        cells.new_zeros(start).index_copy_(0, cells, torch.arange(len(cells))), cells, (none, none)
    )


@lru_cache(64)
def _causal_mask(width: int, group: int) -> torch.Tensor:
    """Return (group·width, width), 0 where a query may attend and −∞ elsewhere; `group` queries
    share a key.
    """
    return torch.full((width, width), float("-inf")).triu(1).repeat(group, 1)


@dataclass
class CpuAttention:
    """Causal attention in an `AttentionLayout`, of queries that are already divided by √d."""

    layout: AttentionLayout
    n_heads: int
    n_kv_heads: int

    def _bucket_qkv(self, slots: torch.Tensor) -> Iterator[list[torch.Tensor]]:
        """Yield q (rows·K, H/K·width, d), k and v (rows·K, width, d) of each bucket, views of
        `slots` (C·S, d).
        """
        start = 0
        for rows, width in self.layout.buckets:
            qkv = []
            for heads in (self.n_heads, self.n_kv_heads, self.n_kv_heads):
                end = start + rows * heads * width
                qkv.append(slots[start:end].view(rows * self.n_kv_heads, -1, slots.shape[1]))
                start = end
            yield qkv

    def _bucket_outputs(self, slots: torch.Tensor, head_dim: int) -> Iterator[torch.Tensor]:
        """Yield the outputs (rows·K, H/K·width, d) of each bucket, views of `slots` (C·H, d)."""
        start = 0
        for rows, width in self.layout.buckets:
            end = start + rows * self.n_heads * width
            yield slots[start:end].view(rows * self.n_kv_heads, -1, head_dim)
            start = end

    def forward(self, slots: torch.Tensor) -> tuple[torch.Tensor, list[Any]]:
        """Return the attention output (C·H, d) for the heads `slots` (C·S, d), and per bucket what
        backward needs.

        That is the attention probabilities, or for long rows (inputs, output) with their autograd
        graph.
        """
        head_dim = slots.shape[1]
        cells = sum(rows * width for rows, width in self.layout.buckets)
        out = slots.new_empty(cells * self.n_heads, head_dim)
        saved: list[Any] = []
        for (q, k, v), bucket_out in zip(
            self._bucket_qkv(slots), self._bucket_outputs(out, head_dim)
        ):
            width = k.shape[1]
            if width <= MAX_SCORED_LENGTH:
                mask = _causal_mask(width, self.n_heads // self.n_kv_heads)
                attn_probs = torch.baddbmm(mask, q, k.mT).softmax(-1)
                torch.bmm(attn_probs, v, out=bucket_out)
                saved.append(attn_probs)
            else:
                with torch.enable_grad():
                    leaves = [x.detach().requires_grad_(True) for x in (q, k, v)]
                    attended = _attend_long_rows(*leaves)
                bucket_out.copy_(attended.detach())
                saved.append((leaves, attended))
        return out, saved

    def backward(self, slots: torch.Tensor, saved: list[Any], grad: torch.Tensor) -> torch.Tensor:
        """Return the gradient for `slots`, given the gradient `grad` (C·H, d) for the attention
        output.
        """
        out = torch.empty_like(slots)
        for (q, k, v), (grad_q, grad_k, grad_v), bucket_saved, g in zip(
            self._bucket_qkv(slots),
            self._bucket_qkv(out),
            saved,
            self._bucket_outputs(grad, slots.shape[1]),
        ):
            if k.shape[1] > MAX_SCORED_LENGTH:
                leaves, attended = bucket_saved
                for target, gradient in zip(
                    (grad_q, grad_k, grad_v), torch.autograd.grad(attended, leaves, g)
                ):
                    target.copy_(gradient)
                continue
            attn_probs = bucket_saved
            torch.bmm(attn_probs.mT, g, out=grad_v)
            grad_scores = softmax_backward(torch.bmm(g, v.mT), attn_probs)
            torch.bmm(grad_scores, k, out=grad_q)
            torch.bmm(grad_scores.mT, q, out=grad_k)
        return out


def _attend_long_rows(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Return attention of rows that are too long to keep their probabilities, by torch's own
    kernel.
    """
    q = q.unflatten(1, (-1, k.shape[1]))
    k, v = (x[:, None].expand(-1, q.shape[1], -1, -1) for x in (k, v))
    return scaled_dot_product_attention(q, k, v, is_causal=True, scale=1.0).flatten(1, 2)
