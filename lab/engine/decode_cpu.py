"""On a CPU: sampling from a small model, whose tokens cost calls and not arithmetic, with the
products of `lab.engine.llama_cpu`.

So a step makes few calls: results go into memory whose views were made before, weights of norms are
in the products, a rotation is one complex product, of a small vocabulary the first layer's queries,
keys and values are worked out once, and where all prompts have one length nothing is masked.
"""

from dataclasses import dataclass

import torch

from lab.data.packing import Packed
from lab.engine.cpu_attention import CpuAttention, attention_layout
from lab.engine.cpu_merged_weights import merged_blocks
from lab.engine.decode import Look, Loop
from lab.engine.llama import Decoder
from lab.engine.llama_cpu import apply_rotary_complex_


@dataclass
class Views:
    """Memory of a step of R rows, and views of it; S = Q + 2·K heads of d numbers, F numbers inside
    the gate.

    `qkv` (R, S·d) are queries, keys and values; of these `rotary` (R, Q + K, d/2) are the first two
    as complex numbers, `q` (R, Q, d) the queries and `kv` (2, R, K, d) keys and values. `queries`
    (R·K, Q/K, d) and `attended` (R·K, Q/K, d) are what attention takes and gives, `flat` (R, Q·d)
    the latter token by token. `gate_up` (R, 2·F) is what goes into the gate. `caches` are, of each
    layer, the cache (2, R, K, L, d), its keys (R·K, d, L), and its values (R·K, L, d).
    """

    qkv: torch.Tensor
    rotary: torch.Tensor
    q: torch.Tensor
    kv: torch.Tensor
    queries: torch.Tensor
    attended: torch.Tensor
    flat: torch.Tensor
    gate_up: torch.Tensor
    caches: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]


class SmallLoop(Loop):
    """`Loop` for what `lab.engine.llama_cpu` is written for: `weights` read the prompts,
    `transposed` (I, O), with the norms before them in it, take the steps.
    """

    def __init__(self, decoder: Decoder, head: torch.Tensor, rows: int, length: int) -> None:
        super().__init__(decoder, head, rows, length)
        self.turns = torch.complex(self.cos, self.sin)
        self.eps = self.turns.real.new_tensor([self.epsilon])
        self.aligned, self.views = False, None

    def merge(self, decoder: Decoder, adapter: str | None) -> None:
        """The same, queries and keys in the order of `lab.engine.cpu_merged_weights.interleave_rope_rows`, and queries
        divided by √d.
        """
        blocks = [[p.weight for p in block] for block in merged_blocks(decoder, adapter)]
        self.weights = [(weight, None) for block in blocks for weight in block]
        self.transposed = [
            ((qkv * layer.norms[0]).T, out.T, (gate_up * layer.norms[1]).T, down.T)
            for layer, (qkv, out, gate_up, down) in zip(self.layers, blocks)
        ]
        self.last = (self.head * self.final_norm).T
        every = self.embedding.weight
        self.first_qkv = (
            self._normed(every) @ self.transposed[0][0] if len(every) <= self.rows else None
        )

    def read(self, packed: Packed, group: int) -> torch.Tensor:
        """The same."""
        logits = super().read(packed, group)
        self.bias[:, packed.width :] = 0
        self.aligned = not self.start[: packed.rows * group].any()
        return logits

    def _reading(self, packed: Packed, group: int, cells: torch.Tensor) -> Look:
        rows, width = packed.rows, packed.width
        laid = attention_layout(
            packed, torch.arange(len(packed.ids)), self.queries, self.keys, trains=False
        )
        attention, turn = (
            CpuAttention(laid, self.queries, self.keys),
            self.turns[packed.positions, None],
        )

        def look(mixed: torch.Tensor, cache: torch.Tensor) -> torch.Tensor:
            apply_rotary_complex_(mixed.flatten(1), turn, self.queries + self.keys)
            both = mixed.new_zeros(rows * width, 2 * self.keys, self.width).index_copy_(
                0, cells, mixed[:, self.queries :]
            )
            both = both.view(rows, 1, width, 2, self.keys, self.width).permute(3, 0, 1, 4, 2, 5)
            cache[:, : rows * group, :, :width].unflatten(1, (rows, group)).copy_(both)
            found, _ = attention.forward(
                mixed.view(-1, self.width).index_select(0, laid.head_of_slot)
            )
            return found.index_select(0, laid.output_slots[0]).view(len(mixed), -1)

        return look

    def _normed(self, x: torch.Tensor) -> torch.Tensor:
        """x (N, H) divided by the root of its rows' mean squares."""
        size = torch.linalg.vector_norm(x, dim=1, keepdim=True)
        return x * torch.addcmul(self.eps, size, size, value=1 / x.shape[1]).rsqrt_()

    def _views(self, rows: int) -> Views:
        """Those of so many rows, made anew when rows have left."""
        if self.views is None or len(self.views.qkv) != rows:
            group, two = (
                (rows * self.keys, self.queries // self.keys, self.width),
                self.queries + self.keys,
            )
            mixed = self.eps.new_empty(rows, (two + self.keys) * self.width)
            heads, queries, found = (
                mixed.view(rows, -1, self.width),
                self.eps.new_empty(group),
                self.eps.new_empty(group),
            )
            caches = [
                (cache[:, :rows], cache[0, :rows].flatten(0, 1).mT, cache[1, :rows].flatten(0, 1))
                for cache in self.cache
            ]
            self.views = Views(
                mixed,
                torch.view_as_complex(heads[:, :two].unflatten(2, (-1, 2))),
                heads[:, : self.queries],
                heads[:, self.queries :].unflatten(1, (2, self.keys)).transpose(0, 1),
                queries,
                found,
                found.view(rows, -1),
                self.eps.new_empty(rows, self.transposed[0][2].shape[1]),
                caches,
            )
        return self.views

    def step(self, rows: int, columns: int) -> None:
        """The same; it looks at what is filled."""
        views, column = self._views(rows), int(self.column)
        ids, queries = self.ids[:rows, column], views.queries.view_as(views.q)
        turn = (
            self.turns[column]
            if self.aligned
            else self.turns.index_select(0, column - self.start[:rows])[:, None]
        )
        bias = None if self.aligned else self.bias[:rows, None, : column + 1]
        gate, up = views.gate_up.chunk(2, 1)
        x = self.embedding.weight.index_select(0, ids)
        for number, ((qkv, out, gate_up, down), (cache, keys, values)) in enumerate(
            zip(self.transposed, views.caches)
        ):
            if number == 0 and self.first_qkv is not None:
                torch.index_select(self.first_qkv, 0, ids, out=views.qkv)
            else:
                torch.mm(self._normed(x), qkv, out=views.qkv)
            views.rotary.mul_(turn)
            queries.copy_(views.q)
            cache.select(3, column).copy_(views.kv)
            scores = torch.bmm(views.queries, keys.narrow(2, 0, column + 1))
            if bias is not None:
                scores.view(rows, self.queries, -1).add_(bias)
            torch.bmm(scores.softmax(-1), values.narrow(1, 0, column + 1), out=views.attended)
            x.addmm_(views.flat, out)
            torch.mm(self._normed(x), gate_up, out=views.gate_up)
            x.addmm_(torch.nn.functional.silu(gate).mul_(up), down)
        self.choose(self._normed(x) @ self.last)
