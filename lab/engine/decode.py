"""The fast decoder: a static key-value cache, and the step that samples the next token of all rows.
A learner may skip it, as `lab.engine.generate`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.nn.functional import linear, scaled_dot_product_attention

from lab.data.packing import Packed
from lab.engine.allocator import NO_RECORD, Allocator
from lab.engine.cuda_graphs import capturing, uses_cuda_graphs
from lab.engine.decode_policy import DECODE_POLICIES
from lab.engine.decode_weights import StepProduct
from lab.engine.fused_ops import (
    apply_rotary,
    decode_attention,
    gumbel_argmax_sample,
    rms_norm,
    swiglu,
)
from lab.engine.llama import Decoder
from lab.engine.triton_kernels import on_gpu
from lab.engine.truncation import Truncation
from lab.engine.varlen_attention import causal_attention

AttentionFn = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Attention of one layer: `attention(qkv, cache)` takes queries, keys and values (N, heads, d), and
the layer's cache, into which it writes the keys and values. It returns (N, query heads·d).
"""


def single_token_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, attn_bias: torch.Tensor
) -> torch.Tensor:
    """Return the attention output (R, K·g·d) of one token per row.

    q (R, K, g, d) holds the g queries that share a key head; k and v are (R, K, L, d), and
    attn_bias (R, 1, 1, L) is added to the scores. On a CPU this takes batched products, because the
    fused kernel there is made for many queries of one head and not for one query of many heads.
    """
    rows, n_kv_heads, group, head_dim = q.shape
    attn_bias = attn_bias.expand(rows, n_kv_heads, group, -1)
    if q.is_cuda:
        return scaled_dot_product_attention(q, k, v, attn_mask=attn_bias).flatten(1)
    scores = torch.baddbmm(
        attn_bias.reshape(rows * n_kv_heads, group, -1),
        q.reshape(rows * n_kv_heads, group, head_dim),
        k.flatten(0, 1).mT,
        alpha=head_dim**-0.5,
    )
    return torch.bmm(scores.softmax(-1), v.flatten(0, 1)).view(rows, -1)


class StaticCacheDecoder:
    """The memory for sampling up to `max_rows` sequences of up to `max_length` tokens, prompts
    included, and the decode step that fills it.

    Prompts end in the same column, so all rows write their next token to the same column: the token
    of a row at column c is `token_ids[row, c]`, its keys and values are `cache[layer, :, row, :,
    c]`. `cache_position` (1,) is the column written last, `pad_offset[row]` the column where the
    row's prompt begins, and `attn_bias` is 0 where the row may attend and −∞ elsewhere. A row always
    attends to itself, so that no softmax is NaN. `completion_index[row]` says which completion the
    row writes. `noise` (rows, V) is ordered by completion; sampling subtracts its logarithm times
    `temperature` (1,) from the logits, of which `truncation` leaves some out. `products` are those of all
    layers in the order of the computation, with the adapter merged in; where gradient checkpointing
    saves memory, the adapter is kept apart, so that no matrix is in memory twice. If `fused`, one
    kernel attends to the filled columns and one samples, so that one CUDA graph serves all lengths.
    """

    def __init__(
        self,
        decoder: Decoder,
        lm_head: torch.Tensor,
        max_rows: int,
        max_length: int,
        allocator: Allocator = NO_RECORD,
    ) -> None:
        self.max_rows, self.max_length, self.lm_head = max_rows, max_length, lm_head
        self.embedding, self.final_norm = decoder.embedding, decoder.final_norm
        self.rms_eps = decoder.epsilon
        self.n_heads, self.n_kv_heads, self.head_dim = (
            decoder.n_heads,
            decoder.n_kv_heads,
            decoder.head_dim,
        )
        self.layers = decoder.layers
        weight = self.layers[0].qkv.weight
        self.policy, self.fused = DECODE_POLICIES[weight.device.type], on_gpu(weight)
        cache_shape = (len(self.layers), 2, max_rows, self.n_kv_heads, max_length, self.head_dim)
        self.cache = allocator.allocate("cache", *cache_shape, like=weight)
        self.attn_bias = weight.new_empty(max_rows, max_length)
        self.noise = torch.empty(max_rows, len(lm_head), device=weight.device)
        self.token_ids = torch.zeros(max_rows, max_length, dtype=torch.long, device=weight.device)
        self.pad_offset, self.completion_index = (
            torch.zeros(max_rows, dtype=torch.long, device=weight.device) for _ in range(2)
        )
        self.cache_position = torch.zeros(1, dtype=torch.long, device=weight.device)
        self.temperature = torch.ones(1, device=weight.device)
        self.truncation: Truncation | None = None
        cos, sin = decoder.rotary(weight, torch.arange(max_length, device=weight.device)[None])
        self.cos, self.sin = (
            angles[0, :, : self.head_dim // 2].contiguous() for angles in (cos, sin)
        )
        self.merges = not decoder.uses_gradient_checkpointing
        self.products = [
            StepProduct(
                allocator.allocate("weights", *p.weight.shape, like=weight)
                if weight.is_cuda and self.merges
                else p.weight,
                p.bias,
            )
            for p in decoder.projections()
        ]
        self.n_completions = max_rows
        self.cuda_graphs: dict[tuple[Any, ...], torch.cuda.CUDAGraph | None] = {}
        self.graph_pool = torch.cuda.graph_pool_handle() if weight.is_cuda else None

    def load_adapter(
        self, decoder: Decoder, adapter: str | None, allocator: Allocator = NO_RECORD
    ) -> None:
        """Take the present weights of `adapter`, or those of the reference if it is None. The weights of
        the base stay as they are.
        """
        decoder.load_adapter(adapter)
        for projection, product in zip(decoder.projections(), self.products):
            if self.merges:
                product.merge(projection, allocator)
            elif not product.keep_apart(projection, allocator):
                self.cuda_graphs.clear()  # They read the adapter at its earlier address.

    def prefill(self, packed: Packed, group_size: int) -> torch.Tensor:
        """Read each packed prompt once into the cache of its `group_size` rows; return the logits
        (prompts, V) of the first completion token.
        """
        n_prompts, width = packed.rows, packed.width
        last_token = packed.cu_seqlens[1:].long() - 1
        prompt_index = packed.flat_positions[last_token] // width
        lengths = packed.positions[last_token] + 1
        pad_offset = lengths.new_empty(n_prompts).index_copy_(0, prompt_index, width - lengths)
        padded_positions = packed.flat_positions + pad_offset[packed.flat_positions // width]
        states = self._forward(
            packed.ids, self._prefill_attention(packed, group_size, padded_positions)
        )
        rows, columns = n_prompts * group_size, torch.arange(width, device=pad_offset.device)
        self.n_completions = rows
        self.pad_offset[:rows] = pad_offset.repeat_interleave(group_size)
        self.attn_bias.fill_(float("-inf"))
        self.attn_bias[:rows, :width].masked_fill_(columns >= self.pad_offset[:rows, None], 0)
        torch.arange(rows, out=self.completion_index[:rows])
        self.cache_position.fill_(width - 1)
        return linear(states[last_token], self.lm_head).index_select(0, prompt_index.argsort())

    def _prefill_attention(
        self, packed: Packed, group_size: int, padded_positions: torch.Tensor
    ) -> AttentionFn:
        """Return causal attention within each prompt, which also writes keys and values into the
        cache; `padded_positions` (N,) are the tokens' positions in the flattened, left-padded batch
        (prompts, width).
        """
        n_prompts, width = packed.rows, packed.width
        attend_causally = causal_attention(packed)
        cos, sin = self.cos[packed.positions, None], self.sin[packed.positions, None]

        def attention(qkv: torch.Tensor, cache: torch.Tensor) -> torch.Tensor:
            qk = apply_rotary(qkv[:, : -self.n_kv_heads], cos, sin)
            q, k = qk.split([self.n_heads, self.n_kv_heads], 1)
            v = qkv[:, -self.n_kv_heads :]
            kv = k.new_zeros(2, n_prompts * width, self.n_kv_heads, self.head_dim).index_copy_(
                1, padded_positions, torch.stack([k, v])
            )
            kv = kv.view(2, n_prompts, 1, width, self.n_kv_heads, self.head_dim).transpose(3, 4)
            rows = cache[:, : n_prompts * group_size, :, :width]
            rows.unflatten(1, (n_prompts, group_size)).copy_(kv)
            return attend_causally(q, k, v).flatten(1)

        return attention

    def sample_next(self, logits: torch.Tensor) -> None:
        """Sample a token for each of the first rows from `logits` (R, V), and write it into the
        next column.
        """
        rows = len(logits)
        if self.truncation:
            logits = self.truncation.restrict(logits, self.temperature)
        if self.fused:
            token = gumbel_argmax_sample(
                logits, self.noise, self.completion_index, self.temperature
            )
        else:
            noise = (
                self.noise[:rows]
                if rows == self.n_completions
                else self.noise.index_select(0, self.completion_index[:rows])
            )
            token = (logits - noise.log_().mul_(self.temperature)).argmax(-1, keepdim=True)
        self.cache_position.add_(1)
        self.token_ids[:rows].index_copy_(1, self.cache_position, token)

    def decode_step(self, rows: int, columns: int) -> None:
        """Read the token that the first `rows` rows wrote last, attend to the first `columns`
        columns, and write the next token.
        """
        position = self.cache_position - self.pad_offset[:rows]
        cos, sin = self.cos.index_select(0, position), self.sin.index_select(0, position)
        attention: AttentionFn
        if self.fused:

            def attention(qkv: torch.Tensor, cache: torch.Tensor) -> torch.Tensor:
                return decode_attention(qkv, cos, sin, cache, self.pad_offset, self.cache_position)

        else:
            attn_bias = self.attn_bias[:rows].index_fill_(1, self.cache_position, 0)
            attention = partial(
                self._step_attention,
                cos=cos[:, None],
                sin=sin[:, None],
                attn_bias=attn_bias[:, None, None, :columns],
            )
        last_ids = self.token_ids[:rows].index_select(1, self.cache_position).squeeze(1)
        self.sample_next(linear(self._forward(last_ids, attention), self.lm_head))

    def _forward(self, token_ids: torch.Tensor, attention: AttentionFn) -> torch.Tensor:
        """Return the hidden states (N, H) of `token_ids` (N,) after the last norm."""
        x = self.embedding(token_ids)
        for i, (layer, cache) in enumerate(zip(self.layers, self.cache)):
            qkv_proj, out, gate_up, down = self.products[4 * i : 4 * i + 4]
            qkv = qkv_proj(rms_norm(x, layer.norms[0], self.rms_eps))
            qkv = qkv.view(len(x), -1, self.head_dim)
            if layer.qk_norms:
                heads = qkv.split([self.n_heads, self.n_kv_heads, self.n_kv_heads], 1)
                for states, norm in zip(heads, layer.qk_norms):
                    states.copy_(rms_norm(states, norm, self.rms_eps))
            out.add_to(x, attention(qkv, cache))
            down.add_to(x, swiglu(gate_up(rms_norm(x, layer.norms[1], self.rms_eps))))
        return rms_norm(x, self.final_norm, self.rms_eps)

    def _step_attention(
        self,
        qkv: torch.Tensor,
        cache: torch.Tensor,
        *,
        cos: torch.Tensor,
        sin: torch.Tensor,
        attn_bias: torch.Tensor,
    ) -> torch.Tensor:
        """Compute with torch's own operations what the fused decode kernel computes."""
        rows, columns = len(qkv), attn_bias.shape[-1]
        qk = apply_rotary(qkv[:, : -self.n_kv_heads], cos, sin)
        q, k = qk.split([self.n_heads, self.n_kv_heads], 1)
        keys, values = (
            cached[:rows].index_copy_(2, self.cache_position, new[:, :, None])[:, :, :columns]
            for cached, new in zip(cache, (k, qkv[:, -self.n_kv_heads :]))
        )
        q = q.unflatten(1, (self.n_kv_heads, -1))
        return single_token_attention(q, keys, values, attn_bias)

    def decode_step_graphed(self, rows: int, columns: int) -> None:
        """Run `decode_step`, on CUDA as a replayed graph. The first step of a shape runs eagerly,
        so that libraries load their kernels; the second is captured.
        """
        key = (
            (rows, self.max_length, True, self.truncation)
            if self.fused
            else (rows, columns, rows == self.n_completions, self.truncation)
        )
        if not uses_cuda_graphs(self.token_ids.device) or key not in self.cuda_graphs:
            self.cuda_graphs.setdefault(key)
            return self.decode_step(rows, columns)
        graph = self.cuda_graphs[key]
        if graph is None:
            graph = torch.cuda.CUDAGraph()
            with capturing(graph, self.graph_pool):
                self.decode_step(rows, columns)
            self.cuda_graphs[key] = graph
        graph.replay()

    def compact_rows(self, ended: torch.Tensor, rows: int, filled: int) -> None:
        """Go on with the first `rows` rows: rows behind them that have not `ended` (R,) move to the
        positions of rows that have. The first `filled` cache columns move along.
        """
        source = (~ended[rows:]).nonzero().squeeze(1) + rows
        target = ended[:rows].nonzero().squeeze(1)[: len(source)]
        for tensor in (self.token_ids, self.pad_offset, self.completion_index, self.attn_bias):
            tensor[target] = tensor[source]
        for cache in self.cache:
            cache[:, target, :, :filled] = cache[:, source, :, :filled]
