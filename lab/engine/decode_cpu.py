"""Decoding a small model on a CPU, whose time goes into operator calls and not into arithmetic; with
the matrices of `lab.engine.llama_cpu`.

A step therefore makes few calls: results go into buffers whose views exist already, the weights of
the norms are folded into the matrices, a rotary embedding is one complex product, the first layer's
queries, keys and values are computed once for a small vocabulary, and prompts of one length need no
mask.
"""

from dataclasses import dataclass

import torch
from torch.nn.functional import silu

from lab.data.packing import Packed
from lab.engine.allocator import NO_RECORD, Allocator
from lab.engine.cpu_attention import CpuAttention, attention_layout
from lab.engine.cpu_merged_weights import merged_blocks
from lab.engine.decode import AttentionFn, StaticCacheDecoder
from lab.engine.decode_weights import StepProduct
from lab.engine.llama import Decoder
from lab.engine.llama_cpu import apply_rotary_complex_


@dataclass
class StepBuffers:
    """The memory of a step of R rows, and views of it, for Q query heads, K key heads of size d
    each, and F numbers inside the gate.

    `qkv` (R, (Q + 2·K)·d) holds queries, keys and values. Views of it: `rotary` (R, Q + K, d/2),
    queries and keys as complex numbers; `q` (R, Q, d), the queries; `kv` (2, R, K, d), keys and
    values. `queries` (R·K, Q/K, d) is the input of attention, `attended` of the same shape its
    output, and `attended_flat` (R, Q·d) the output token by token. `gate_up` (R, 2·F) is the input
    of the gate. `caches` holds for each layer its cache (2, R, K, L, d), keys (R·K, d, L), and
    values (R·K, L, d).
    """

    qkv: torch.Tensor
    rotary: torch.Tensor
    q: torch.Tensor
    kv: torch.Tensor
    queries: torch.Tensor
    attended: torch.Tensor
    attended_flat: torch.Tensor
    gate_up: torch.Tensor
    caches: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]


class CpuStaticCacheDecoder(StaticCacheDecoder):
    """A `StaticCacheDecoder` for the models that `lab.engine.llama_cpu` supports: `products` read the
    prompts, and `step_weights` (I, O), with the norms before them folded in, take the steps.
    """

    def __init__(
        self,
        decoder: Decoder,
        lm_head: torch.Tensor,
        max_rows: int,
        max_length: int,
        allocator: Allocator = NO_RECORD,
    ) -> None:
        super().__init__(decoder, lm_head, max_rows, max_length, allocator)
        self.rope_freqs_cis = torch.complex(self.cos, self.sin)
        self.eps = self.rope_freqs_cis.real.new_tensor([self.rms_eps])
        self.equal_lengths = False
        self.buffers: StepBuffers | None = None

    def load_adapter(
        self, decoder: Decoder, adapter: str | None, allocator: Allocator = NO_RECORD
    ) -> None:
        """Merge `adapter` as the base class does, with the rows of queries and keys interleaved for
        the complex rotary product, and queries divided by √d.
        """
        blocks = [[p.weight for p in block] for block in merged_blocks(decoder, adapter)]
        self.products = [StepProduct(weight) for block in blocks for weight in block]
        self.step_weights = [
            ((qkv * layer.norms[0]).T, out.T, (gate_up * layer.norms[1]).T, down.T)
            for layer, (qkv, out, gate_up, down) in zip(self.layers, blocks)
        ]
        self.step_lm_head = (self.lm_head * self.final_norm).T
        embeddings = self.embedding.weight
        self.first_layer_qkv = (
            self._rms_norm(embeddings) @ self.step_weights[0][0]
            if len(embeddings) <= self.max_rows
            else None
        )

    def prefill(self, packed: Packed, group_size: int) -> torch.Tensor:
        """Read the prompts as the base class does, and note whether they have one length."""
        logits = super().prefill(packed, group_size)
        self.attn_bias[:, packed.width :] = 0
        self.equal_lengths = not self.pad_offset[: packed.rows * group_size].any()
        return logits

    def _prefill_attention(
        self, packed: Packed, group_size: int, padded_positions: torch.Tensor
    ) -> AttentionFn:
        n_prompts, width = packed.rows, packed.width
        all_tokens = torch.arange(len(packed.ids))
        heads = attention_layout(packed, all_tokens, self.n_heads, self.n_kv_heads, trains=False)
        prompt_attention = CpuAttention(heads, self.n_heads, self.n_kv_heads)
        freqs_cis = self.rope_freqs_cis[packed.positions, None]

        def attention(qkv: torch.Tensor, cache: torch.Tensor) -> torch.Tensor:
            apply_rotary_complex_(qkv.flatten(1), freqs_cis, self.n_heads + self.n_kv_heads)
            kv = qkv.new_zeros(n_prompts * width, 2 * self.n_kv_heads, self.head_dim).index_copy_(
                0, padded_positions, qkv[:, self.n_heads :]
            )
            kv = kv.view(n_prompts, 1, width, 2, self.n_kv_heads, self.head_dim)
            rows = cache[:, : n_prompts * group_size, :, :width]
            rows.unflatten(1, (n_prompts, group_size)).copy_(kv.permute(3, 0, 1, 4, 2, 5))
            attended, _ = prompt_attention.forward(
                qkv.view(-1, self.head_dim).index_select(0, heads.head_of_slot)
            )
            return attended.index_select(0, heads.output_slots[0]).view(len(qkv), -1)

        return attention

    def _rms_norm(self, x: torch.Tensor) -> torch.Tensor:
        """Return x (N, H) divided by the root mean square of its rows."""
        norm = torch.linalg.vector_norm(x, dim=1, keepdim=True)
        return x * torch.addcmul(self.eps, norm, norm, value=1 / x.shape[1]).rsqrt_()

    def _step_buffers(self, rows: int) -> StepBuffers:
        """Return buffers for `rows` rows, reallocated when rows have left."""
        if self.buffers is not None and len(self.buffers.qkv) == rows:
            return self.buffers
        rotary_heads = self.n_heads + self.n_kv_heads
        qkv = self.eps.new_empty(rows, (rotary_heads + self.n_kv_heads) * self.head_dim)
        heads = qkv.view(rows, -1, self.head_dim)
        grouped = (rows * self.n_kv_heads, self.n_heads // self.n_kv_heads, self.head_dim)
        queries, attended = self.eps.new_empty(grouped), self.eps.new_empty(grouped)
        self.buffers = StepBuffers(
            qkv=qkv,
            rotary=torch.view_as_complex(heads[:, :rotary_heads].unflatten(2, (-1, 2))),
            q=heads[:, : self.n_heads],
            kv=heads[:, self.n_heads :].unflatten(1, (2, self.n_kv_heads)).transpose(0, 1),
            queries=queries,
            attended=attended,
            attended_flat=attended.view(rows, -1),
            gate_up=self.eps.new_empty(rows, self.step_weights[0][2].shape[1]),
            caches=[
                (cache[:, :rows], cache[0, :rows].flatten(0, 1).mT, cache[1, :rows].flatten(0, 1))
                for cache in self.cache
            ],
        )
        return self.buffers

    def decode_step(self, rows: int, columns: int) -> None:
        """Decode as the base class does, but attend to the filled columns, whatever `columns` says."""
        buffers, column = self._step_buffers(rows), int(self.cache_position)
        token_ids, queries = self.token_ids[:rows, column], buffers.queries.view_as(buffers.q)
        freqs_cis = (
            self.rope_freqs_cis[column]
            if self.equal_lengths
            else self.rope_freqs_cis.index_select(0, column - self.pad_offset[:rows])[:, None]
        )
        attn_bias = None if self.equal_lengths else self.attn_bias[:rows, None, : column + 1]
        gate, up = buffers.gate_up.chunk(2, 1)
        x = self.embedding.weight.index_select(0, token_ids)
        for number, ((qkv, out, gate_up, down), (cache, keys, values)) in enumerate(
            zip(self.step_weights, buffers.caches)
        ):
            if number == 0 and self.first_layer_qkv is not None:
                torch.index_select(self.first_layer_qkv, 0, token_ids, out=buffers.qkv)
            else:
                torch.mm(self._rms_norm(x), qkv, out=buffers.qkv)
            buffers.rotary.mul_(freqs_cis)
            queries.copy_(buffers.q)
            cache.select(3, column).copy_(buffers.kv)
            scores = torch.bmm(buffers.queries, keys.narrow(2, 0, column + 1))
            if attn_bias is not None:
                scores.view(rows, self.n_heads, -1).add_(attn_bias)
            torch.bmm(scores.softmax(-1), values.narrow(1, 0, column + 1), out=buffers.attended)
            x.addmm_(buffers.attended_flat, out)
            torch.mm(self._rms_norm(x), gate_up, out=buffers.gate_up)
            x.addmm_(silu(gate).mul_(up), down)
        self.sample_next(self._rms_norm(x) @ self.step_lm_head)
