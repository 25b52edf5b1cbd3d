"""What samples the next token of all rows, in memory that stays where it is; a learner may skip it,
as `lab.engine.generate`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch.nn.functional import linear, scaled_dot_product_attention

from lab.data.packing import Packed
from lab.engine.cuda_graphs import uses_cuda_graphs
from lab.engine.fused_ops import (
    apply_rotary,
    decode_attention,
    gumbel_argmax_sample,
    rms_norm,
    swiglu,
)
from lab.engine.llama import Decoder
from lab.engine.triton_kernels import on_gpu
from lab.engine.varlen_attention import causal_attention

Look = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Attention: queries, keys and values (N, heads, d), and a layer's cache, which it fills → (N,
queries·d).
"""


@dataclass(frozen=True)
class Pace:
    """How often it is asked which rows have ended, every `check` tokens, and what shapes a step may
    have.

    `graphs`: a shape costs a graph, so the columns looked at grow in stretches and rows leave by
    halves; otherwise a step looks at what is filled.
    """

    check: int
    graphs: bool

    def columns(self, filled: int) -> int:
        """The columns of the cache that a step looks at where `filled` hold something: stretches of
        128, longer ones for long texts.
        """
        stretch = 1 << max(7, filled.bit_length() - 3)
        return -(-filled // stretch) * stretch if self.graphs else filled

    def rows(self, left: int, now: int) -> int:
        """The rows to go on with when `left` of `now` have not ended; fewer only if it is worth the
        copying.
        """
        enough = max(16, 1 << (left - 1).bit_length()) if self.graphs else left
        return enough if enough <= 0.75 * now else now


PACES = {"cpu": Pace(2, graphs=False), "cuda": Pace(16, graphs=True)}


def memory(kind: str, *shape: int, like: torch.Tensor) -> torch.Tensor:
    """Memory for "weights" or the "cache", which who measures wants to tell apart.

    Zeros, as a masked value is multiplied by 0, and 0 times whatever lay there before may be no
    number.
    """
    return like.new_zeros(shape)


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Attention of one token: q (R, K, g, d), the g queries that share a key in the place of
    tokens; k, v (R, K, L, d), bias (R, 1, 1, L) → (R, K·g·d).

    A CPU takes batched products: its fused kernel is made for many queries of one head, not for one
    query of many.
    """
    rows, heads, group, width = q.shape
    bias = bias.expand(rows, heads, group, -1)
    if q.is_cuda:
        return scaled_dot_product_attention(q, k, v, attn_mask=bias).flatten(1)
    scores = torch.baddbmm(
        bias.reshape(rows * heads, group, -1),
        q.reshape(rows * heads, group, width),
        k.flatten(0, 1).mT,
        alpha=width**-0.5,
    )
    return torch.bmm(scores.softmax(-1), v.flatten(0, 1)).view(rows, -1)


class Loop:
    """Memory for sampling up to `rows` sequences of up to `length` tokens, prompts included, and
    the step that fills it.

    Prompts end in the same column, so all rows write the same column next: a row's token at column
    c is `ids[row, c]`, its keys and values `cache[layer, :, row, :, c]`; `start` is the column
    where its prompt begins, and `bias` is 0 where it may look and −∞ elsewhere. A row always looks
    at itself, so no softmax is without a number. `row` says which completion a row is; of `noise`
    (rows, V), by completion, the log times `temperature` (1,) is taken from the logits. `weights`
    are the products of all layers in their order, each with its bias, and the adapter merged in.
    `fused`: one kernel attends, and looks at what is filled, and one chooses, so a graph serves all
    lengths.
    """

    def __init__(self, decoder: Decoder, head: torch.Tensor, rows: int, length: int) -> None:
        self.rows, self.length, self.head = rows, length, head
        self.embedding, self.final_norm, self.epsilon = (
            decoder.embedding,
            decoder.final_norm,
            decoder.epsilon,
        )
        self.queries, self.keys, self.width = decoder.n_heads, decoder.n_kv_heads, decoder.head_dim
        weight = decoder.layers[0].qkv.weight
        self.pace, self.fused = PACES[weight.device.type], on_gpu(weight)
        self.cache = memory(
            "cache", len(decoder.layers), 2, rows, self.keys, length, self.width, like=weight
        )
        self.bias = weight.new_empty(rows, length)
        self.noise = torch.empty(rows, len(head), device=weight.device)
        self.ids, self.start, self.row = (
            torch.zeros(shape, dtype=torch.long, device=weight.device)
            for shape in ((rows, length), rows, rows)
        )
        self.column = torch.zeros(1, dtype=torch.long, device=weight.device)
        self.temperature = torch.ones(1, device=weight.device)
        turns = decoder.rotary(weight, torch.arange(length, device=weight.device)[None])
        self.cos, self.sin = (half[0, :, : self.width // 2].contiguous() for half in turns)
        self.layers = decoder.layers
        self.weights = [
            (
                memory("weights", *p.weight.shape, like=weight) if weight.is_cuda else p.weight,
                p.bias,
            )
            for p in decoder.projections()
        ]
        self.completions = rows
        self.graphs: dict[tuple[int, int, bool], torch.cuda.CUDAGraph | None] = {}
        self.pool = torch.cuda.graph_pool_handle() if weight.is_cuda else None

    def merge(self, decoder: Decoder, adapter: str | None) -> None:
        """W + s·B·A of an adapter, None for the reference, beside the base's weights, which stay as
        they are.
        """
        decoder.load_adapter(adapter)
        for i, (p, (merged, bias)) in enumerate(zip(decoder.projections(), self.weights)):
            if p.lora_a is not None:
                merged = (
                    memory("weights", *p.weight.shape, like=p.weight)
                    if merged is p.weight
                    else merged
                )
                self.weights[i] = (torch.addmm(p.weight, p.lora_b, p.lora_a, out=merged), bias)
            elif merged is not p.weight:
                merged.copy_(p.weight)

    def read(self, packed: Packed, group: int) -> torch.Tensor:
        """Read the prompts, each once, into the cache of its `group` rows; the logits of what comes
        next (prompts, V).
        """
        rows, width = packed.rows, packed.width
        last = packed.cu_seqlens[1:].long() - 1
        owner, lengths = packed.flat_positions[last] // width, packed.positions[last] + 1
        start = lengths.new_empty(rows).index_copy_(0, owner, width - lengths)
        states = self._through(
            packed.ids,
            self._reading(
                packed, group, packed.flat_positions + start[packed.flat_positions // width]
            ),
        )
        n, places = rows * group, torch.arange(width, device=start.device)
        self.completions = n
        self.start[:n] = start.repeat_interleave(group)
        self.bias.fill_(float("-inf"))[:n, :width].masked_fill_(places >= self.start[:n, None], 0)
        torch.arange(n, out=self.row[:n])
        self.column.fill_(width - 1)
        return linear(states[last], self.head).index_select(0, owner.argsort())

    def _reading(self, packed: Packed, group: int, cells: torch.Tensor) -> Look:
        """Attention of the prompts, which also lays their keys and values into the cache; `cells`
        (N,) are their places in (prompts, width).
        """
        rows, width = packed.rows, packed.width
        mix, cos, sin = (
            causal_attention(packed),
            self.cos[packed.positions, None],
            self.sin[packed.positions, None],
        )

        def look(mixed: torch.Tensor, cache: torch.Tensor) -> torch.Tensor:
            q, k = apply_rotary(mixed[:, : -self.keys], cos, sin).split(
                [self.queries, self.keys], 1
            )
            v = mixed[:, -self.keys :]
            both = k.new_zeros(2, rows * width, self.keys, self.width).index_copy_(
                1, cells, torch.stack([k, v])
            )
            both = both.view(2, rows, 1, width, self.keys, self.width).transpose(3, 4)
            cache[:, : rows * group, :, :width].unflatten(1, (rows, group)).copy_(both)
            return mix(q, k, v).flatten(1)

        return look

    def choose(self, logits: torch.Tensor) -> None:
        """Write the next token of the first rows, as many as there are `logits` (R, V), into the
        next column.
        """
        rows = len(logits)
        if self.fused:
            token = gumbel_argmax_sample(logits, self.noise, self.row, self.temperature)
        else:
            noise = (
                self.noise[:rows]
                if rows == self.completions
                else self.noise.index_select(0, self.row[:rows])
            )
            token = (logits - noise.log_().mul_(self.temperature)).argmax(-1, keepdim=True)
        self.column.add_(1)
        self.ids[:rows].index_copy_(1, self.column, token)

    def step(self, rows: int, columns: int) -> None:
        """Read the token in the present column of the first `rows` rows, looking at the first
        `columns` columns, and write the next one.
        """
        place = self.column - self.start[:rows]
        cos, sin = self.cos.index_select(0, place), self.sin.index_select(0, place)
        if self.fused:

            def look(mixed: torch.Tensor, cache: torch.Tensor) -> torch.Tensor:
                return decode_attention(mixed, cos, sin, cache, self.start, self.column)

        else:
            bias = self.bias[:rows].index_fill_(1, self.column, 0)[:, None, None, :columns]
            look = partial(self._look, cos=cos[:, None], sin=sin[:, None], bias=bias)
        self.choose(
            linear(
                self._through(self.ids[:rows].index_select(1, self.column).squeeze(1), look),
                self.head,
            )
        )

    def _through(self, ids: torch.Tensor, look: Look) -> torch.Tensor:
        """Hidden states (N, H) of the tokens `ids` (N,)."""
        x = self.embedding(ids)
        for i, (layer, cache) in enumerate(zip(self.layers, self.cache)):
            qkv, out, gate_up, down = self.weights[4 * i : 4 * i + 4]
            mixed = linear(rms_norm(x, layer.norms[0], self.epsilon), *qkv).view(
                len(x), -1, self.width
            )
            if layer.qk_norms:
                for part, norm in zip(
                    mixed.split([self.queries, self.keys, self.keys], 1), layer.qk_norms
                ):
                    part.copy_(rms_norm(part, norm, self.epsilon))
            _add(x, look(mixed, cache), *out)
            _add(x, swiglu(linear(rms_norm(x, layer.norms[1], self.epsilon), *gate_up)), *down)
        return rms_norm(x, self.final_norm, self.epsilon)

    def _look(
        self,
        mixed: torch.Tensor,
        cache: torch.Tensor,
        *,
        cos: torch.Tensor,
        sin: torch.Tensor,
        bias: torch.Tensor,
    ) -> torch.Tensor:
        """What `lab.engine.fused_ops.decode_attention` does, by torch's own operations."""
        rows, columns = len(mixed), bias.shape[-1]
        q, k = apply_rotary(mixed[:, : -self.keys], cos, sin).split([self.queries, self.keys], 1)
        keys, values = (
            there[:rows].index_copy_(2, self.column, now[:, :, None])[:, :, :columns]
            for there, now in zip(cache, (k, mixed[:, -self.keys :]))
        )
        return attend(q.unflatten(1, (self.keys, -1)), keys, values, bias)

    def advance(self, rows: int, columns: int) -> None:
        """`step`, on CUDA as a graph: the first step of a shape runs as it is, so that libraries
        load their kernels, the second is recorded.
        """
        key = (rows, self.length, True) if self.fused else (rows, columns, rows == self.completions)
        if not uses_cuda_graphs(self.ids.device) or key not in self.graphs:
            self.graphs.setdefault(key)
            return self.step(rows, columns)
        if self.graphs[key] is None:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self.pool):
                self.step(rows, columns)
            self.graphs[key] = graph
        self.graphs[key].replay()

    def keep(self, ended: torch.Tensor, rows: int, filled: int) -> None:
        """Go on with `rows` rows: those that have not `ended` (R,) and lie behind them take the
        places of some that have.
        """
        moving = (~ended[rows:]).nonzero().squeeze(1) + rows
        free = ended[:rows].nonzero().squeeze(1)[: len(moving)]
        for tensor in (self.ids, self.start, self.row, self.bias):
            tensor[free] = tensor[moving]
        self._keep(free, moving, filled)

    def _keep(self, free: torch.Tensor, moving: torch.Tensor, filled: int) -> None:
        """Copy what is filled of the caches of the rows `moving` over that of the rows `free`."""
        for cache in self.cache:
            cache[:, free, :, :filled] = cache[:, moving, :, :filled]


def _add(x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
    """x += y·Wᵀ + b, without a copy of either."""
    x.addmm_(y, weight.T)
    if bias is not None:
        x.add_(bias)
