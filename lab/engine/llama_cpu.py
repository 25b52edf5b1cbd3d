"""On a CPU: a pass through a decoder and its way back as one function, written by hand, since for a
small model every operation counts.

A learner may skip this module: it computes what `Decoder.trunk` computes, and the tests compare
both with the model's own pass. It is faster because the adapter is merged into the products; a
rotation is one complex product; short rows attend by batched products, which share well among
threads; the first product is made for the vocabulary where that has fewer words than the batch has
tokens; and of the last block only what is asked for is computed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch.autograd.function import once_differentiable
from torch.nn.functional import scaled_dot_product_attention
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from lab.data.packing import LengthBucket, Packed, Padded
from lab.engine.llama import Decoder, Projection
from lab.engine.triton_kernels import inverse_rms

SHORT = 128  # Up to this length the scores of a row are held.
SMALL = (
    2**24
    # Numbers in the matrices of all blocks: those of a larger model are not copied, and its products
    # outweigh all else anyway.
)


def written_for(decoder: Decoder) -> bool:
    """Whether `states` computes what `decoder` does: of a small model on a CPU, without biases,
    norms of queries and keys or gradient checkpointing, and watched by nobody who counts tensors:
    for them the decoder does it.
    """
    matrices = list(decoder.projections())
    plain = (
        not any(layer.heads for layer in decoder.layers)
        and all(p.bias is None for p in matrices)
        and sum(p.weight.numel() for p in matrices) <= SMALL
    )
    return (
        plain
        and decoder.final_norm.device.type == "cpu"
        and not decoder.recomputes
        and not is_in_torch_dispatch_mode()
    )


@dataclass
class Product:
    """A projection with its adapter merged in, `weight` (O, I), and what the gradients of the
    adapter take: `down` (K·r, I) are the matrices A of its K layers, `ups` their B (O_k, r), and
    `scale` what B·A counts.

    Where `heads` is their width d, the rows of queries and keys, the first two layers, are in the
    order of `beside`, and queries are divided by √d.
    """

    weight: torch.Tensor
    down: torch.Tensor | None = None
    ups: list[torch.Tensor] = field(default_factory=list)
    scale: float = 1.0
    heads: int = 0

    def gradients(self, x: torch.Tensor, grads: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Of each A and B in turn, for the product's input x (N, I) and the gradients (N, O_k) of
        its results.
        """
        rank = len(self.down) // len(self.ups)
        inner, through = (x @ self.down.T).mul_(self.scale), x.new_empty(len(x), len(self.down))
        of_ups = []
        for grad, up, mine, part in zip(
            grads, self.ups, inner.split(rank, 1), through.split(rank, 1)
        ):
            torch.mm(grad, up, out=part)
            of_ups.append(grad.T @ mine)
        if self.heads:
            of_ups[:2] = (
                apart(of_ups[0].mul_(self.heads**-0.5), self.heads),
                apart(of_ups[1], self.heads),
            )
        return [
            g for both in zip((through.T @ x).mul_(self.scale).split(rank), of_ups) for g in both
        ]


def beside(rows: torch.Tensor, width: int) -> torch.Tensor:
    """The rows (heads·width, …) of a projection so that rows i and i + width/2 of a head, which a
    rotation turns together, are neighbours.
    """
    return rows.view(-1, 2, width // 2, rows.shape[1]).transpose(1, 2).reshape(rows.shape)


def apart(rows: torch.Tensor, width: int) -> torch.Tensor:
    """`beside` undone."""
    return rows.view(-1, width // 2, 2, rows.shape[1]).transpose(1, 2).reshape(rows.shape)


def product(
    p: Projection,
    lora: list[torch.Tensor],
    scale: float,
    ordered: torch.Tensor | None = None,
    heads: int = 0,
) -> Product:
    """A projection as `Product`, of its own weight or one in the order of `beside`; `lora` are the
    A and B of its layers in turn, none for the reference.
    """
    weight, downs, ups = p.weight if ordered is None else ordered, lora[::2], lora[1::2]
    if not lora:
        return Product(weight)
    if heads:
        ups[:2] = beside(ups[0], heads) * heads**-0.5, beside(ups[1], heads)
    merged = torch.empty_like(weight)
    for part, rows, up, down in zip(merged.split(p.sizes), weight.split(p.sizes), ups, downs):
        torch.addmm(rows, up, down, alpha=scale, out=part)
    return Product(merged, torch.cat(downs) if len(downs) > 1 else downs[0], ups, scale, heads)


_ORDERED: WeakKeyDictionary[Decoder, list[torch.Tensor]] = WeakKeyDictionary()


def ordered(decoder: Decoder) -> list[torch.Tensor]:
    """The frozen weights of queries, keys and values of each block, queries and keys in the order
    of `beside` and queries divided by √d.
    """
    if decoder not in _ORDERED:
        size = decoder.width
        parts = [layer.qkv.weight.split(layer.qkv.sizes) for layer in decoder.layers]
        _ORDERED[decoder] = [
            torch.cat([beside(q, size) * size**-0.5, beside(k, size), v]) for q, k, v in parts
        ]
    return _ORDERED[decoder]


@torch.no_grad()
def products(decoder: Decoder, adapter: str | None) -> list[list[Product]]:
    """The four products of each block under `adapter`, None for the reference."""
    left = iter(() if adapter is None else decoder.lora(adapter))
    made = []
    for layer, weight in zip(decoder.layers, ordered(decoder)):
        special = {"ordered": weight, "heads": decoder.width}
        made.append(
            [
                product(
                    p,
                    list(islice(left, 2 * len(p.layers))),
                    p.layers[0].scaling[adapter] if adapter else 1.0,
                    **(special if p is layer.qkv else {}),
                )
                for p in (layer.qkv, layer.out, layer.gate_up, layer.down)
            ]
        )
    return made


@dataclass
class Layout:
    """Where heads (a token's queries, keys and values, S = Q + 2·K of them) lie for attention:
    stretch after stretch, in each all queries, then all keys, then all values, and each of them as
    (rows, heads, width).

    `stretches` are their rows and widths. `gather` says which of the line's heads (N·S) lies in
    each place; on the way back `own` (N·S,) are the places of a token's own heads, `again` tokens
    that lie in further rows, and `there` their heads' places in those. What the queries have mixed
    lies in places of its own: `picks` (W·Q,) are those of the tokens that go on, and `spread` says
    of each place whose it is, that of an imaginary last token if nobody's. There are two of both:
    for all tokens, and for those that the last block is asked for.
    """

    stretches: list[tuple[int, int]]
    gather: torch.Tensor
    picks: tuple[torch.Tensor, torch.Tensor]
    own: torch.Tensor | None = None
    again: torch.Tensor | None = None
    there: torch.Tensor | None = None
    spread: tuple[torch.Tensor, torch.Tensor] | None = None


def layout(packed: Packed, wanted: torch.Tensor, queries: int, keys: int, trains: bool) -> Layout:
    """The layout of a packed batch, of which the tokens `wanted` (W,), each once, are asked for;
    without what the way back needs unless it `trains`.
    """
    laid, heads = packed.padded or padded(packed), queries + 2 * keys
    slots, mixed = places(packed.stretches, queries, keys)
    sources, cells, wanted = laid.sources.numpy(), laid.picks.numpy(), wanted.numpy()
    gather = np.empty(slots.size, slots.dtype)
    gather[slots] = sources[:, None] * heads + np.arange(heads)
    picks = mixed[cells].ravel(), mixed[cells[wanted]].ravel()
    found = Layout(
        [(s.rows, s.width) for s in packed.stretches],
        torch.from_numpy(gather),
        tuple(map(torch.from_numpy, picks)),
    )
    if trains:
        spread = [np.full(mixed.size, len(taken)) for taken in picks]
        for whose, taken in zip(spread, picks):
            whose[taken] = np.arange(len(taken))
        found.again, there = laid.again
        found.own, found.there = (
            torch.from_numpy(slots[these].ravel()) for these in (cells, there.numpy())
        )
        found.spread = tuple(map(torch.from_numpy, spread))
    return found


def places(stretches: list[LengthBucket], queries: int, keys: int) -> tuple[np.ndarray, np.ndarray]:
    """The places of all heads (C, S) of every cell, and (C, Q) those of what its queries mixed."""
    rows, width = np.array([(s.rows, s.width) for s in stretches]).T
    cells = rows * width
    rows, width, start = (
        each.repeat(cells)[:, None] for each in (rows, width, cells.cumsum() - cells)
    )
    row, place = np.divmod(np.arange(len(rows))[:, None] - start, width)
    of_query = row * queries * width + place + np.arange(queries) * width
    of_key = row * keys * width + place + np.arange(keys) * width + rows * queries * width
    slots = np.concatenate([of_query, of_key, of_key + rows * keys * width], 1) + start * (
        queries + 2 * keys
    )
    return slots, of_query + start * queries


def padded(packed: Packed) -> Padded:
    """The cells of a packed batch whose rows share nothing, stretch after stretch."""
    picks, start = [], 0
    for s in packed.stretches:
        place = packed.positions[s.tokens]
        picks.append(place + ((place == 0).cumsum(0) - 1) * s.width + start)
        start += s.rows * s.width
    cells = torch.cat(picks)
    nothing = cells.new_empty(0)
    return Padded(
        cells.new_zeros(start).index_copy_(0, cells, torch.arange(len(cells))),
        cells,
        (nothing, nothing),
    )


@lru_cache(64)
def _mask(width: int, group: int) -> torch.Tensor:
    """0 where a query may look, −∞ elsewhere, (group·width, width): `group` queries share the keys."""
    return torch.full((width, width), float("-inf")).triu(1).repeat(group, 1)


@dataclass
class Attention:
    """Causal attention in the places of `layout`, of queries that are already divided by √d."""

    layout: Layout
    queries: int
    keys: int

    def stretches(self, cells: torch.Tensor) -> Iterator[list[torch.Tensor]]:
        """Queries (rows·K, Q/K·width, d), keys and values (rows·K, width, d) of each stretch, as
        views of `cells` (C·S, d).
        """
        start = 0
        for rows, width in self.layout.stretches:
            parts = []
            for heads in (self.queries, self.keys, self.keys):
                parts.append(
                    cells[start : start + rows * heads * width].view(
                        rows * self.keys, -1, cells.shape[1]
                    )
                )
                start += rows * heads * width
            yield parts

    def mixed(self, cells: torch.Tensor, size: int) -> Iterator[torch.Tensor]:
        """The part of each stretch of what the queries mixed, (rows·K, Q/K·width, d), as views of
        `cells` (C·Q, d).
        """
        start = 0
        for rows, width in self.layout.stretches:
            end = start + rows * self.queries * width
            yield cells[start:end].view(rows * self.keys, -1, size)
            start = end

    def there(self, cells: torch.Tensor) -> tuple[torch.Tensor, list]:
        """What the queries of `cells` mix, and what the way back needs."""
        size = cells.shape[1]
        out = cells.new_empty(
            sum(rows * width for rows, width in self.layout.stretches) * self.queries, size
        )
        kept = []
        for (q, k, v), to in zip(self.stretches(cells), self.mixed(out, size)):
            width = k.shape[1]
            if width <= SHORT:
                shares = torch.baddbmm(_mask(width, self.queries // self.keys), q, k.mT).softmax(-1)
                torch.bmm(shares, v, out=to)
            else:
                with torch.enable_grad():
                    leaves = [x.detach().requires_grad_(True) for x in (q, k, v)]
                    shares = leaves, _long(*leaves)
                to.copy_(shares[1].detach())
            kept.append(shares)
        return out, kept

    def back(self, cells: torch.Tensor, kept: list, grad: torch.Tensor) -> torch.Tensor:
        """The gradient for `cells`, for that of what their queries mixed."""
        out = torch.empty_like(cells)
        for (q, k, v), to, shares, g in zip(
            self.stretches(cells), self.stretches(out), kept, self.mixed(grad, cells.shape[1])
        ):
            if k.shape[1] > SHORT:
                for place, found in zip(to, torch.autograd.grad(shares[1], shares[0], g)):
                    place.copy_(found)
                continue
            torch.bmm(shares.mT, g, out=to[2])
            scores = torch._softmax_backward_data(torch.bmm(g, v.mT), shares, -1, shares.dtype)
            torch.bmm(scores, k, out=to[0])
            torch.bmm(scores.mT, q, out=to[1])
        return out


def _long(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Attention of rows whose scores are too many to hold, by torch's own kernel."""
    q = q.unflatten(1, (-1, k.shape[1]))
    k, v = (x[:, None].expand(-1, q.shape[1], -1, -1) for x in (k, v))
    return scaled_dot_product_attention(q, k, v, is_causal=True, scale=1.0).flatten(1, 2)


def _normed(
    x: torch.Tensor, weight: torch.Tensor, epsilon: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """n·weight, n = x·r and r = 1/√(mean x² + epsilon), for each row."""
    r = inverse_rms(x, epsilon)
    n = x * r
    return n * weight, n, r


def _normed_back(
    weight: torch.Tensor, n: torch.Tensor, r: torch.Tensor, grad: torch.Tensor
) -> torch.Tensor:
    """The gradient for x of n·weight, n = x·r, for `grad` of the result: r·(g − n·mean(n·g)) with g
    = grad·weight.
    """
    g = grad * weight
    return g.addcmul_(n, torch.linalg.vecdot(n, g)[:, None], value=-1 / n.shape[1]).mul_(r)


def spin(heads: torch.Tensor, turn: torch.Tensor, count: int) -> None:
    """Turn the first `count` heads of each token (N, S·d), in place, by the complex numbers `turn`
    (N, 1, d/2).
    """
    size = 2 * turn.shape[-1]
    torch.view_as_complex(heads[:, : count * size].unflatten(1, (count, size // 2, 2))).mul_(turn)


class Trunk(torch.autograd.Function):
    """Hidden states (W, H) after the last norm of the tokens `wanted`; gradients for the adapter's
    A and B alone.
    """

    @staticmethod
    def forward(ctx, decoder, blocks, attention, packed, wanted, trains, *lora):
        epsilon, count, kept = decoder.epsilon, decoder.queries + decoder.keys, []
        x = decoder.embedding(packed.ids)
        cos, sin = (
            half[0, :, None, : decoder.width // 2]
            for half in decoder.rotary(x, packed.positions[None])
        )
        turn = torch.complex(cos, sin)
        every = decoder.embedding.weight
        vocabulary = (
            len(every) if len(every) < len(packed.ids) else 0
        )  # Then the first product is made for that, not for the tokens.
        for number, (qkv, out, gate_up, down) in enumerate(blocks):
            last, norms = number == len(blocks) - 1, decoder.layers[number].norms
            shared = vocabulary and number == 0
            a, n, r = _normed(every if shared else x, norms[0], epsilon)
            heads = a @ qkv.weight.T
            if shared:
                heads = heads.index_select(0, packed.ids)
            spin(heads, turn, count)
            cells = heads.view(-1, decoder.width).index_select(0, attention.layout.gather)
            mixed, shares = attention.there(cells)
            mixed = mixed.index_select(0, attention.layout.picks[last]).view(
                -1, decoder.queries * decoder.width
            )
            x = torch.addmm(x.index_select(0, wanted) if last else x, mixed, out.weight.T)
            b, n2, r2 = _normed(x, norms[1], epsilon)
            gate, up = (b @ half.T for half in gate_up.weight.chunk(2))
            sigmoid = gate.sigmoid()
            smooth = gate.mul_(sigmoid)
            inner = smooth * up
            x = torch.addmm(x, inner, down.weight.T)
            if trains:
                kept.append((a, n, r, cells, shares, mixed, b, n2, r2, up, sigmoid, smooth, inner))
        result, n, r = _normed(x, decoder.final_norm, epsilon)
        ctx.kept, ctx.end = kept, (n, r)
        ctx.given = (
            decoder,
            blocks,
            attention,
            wanted,
            turn.conj_physical() if trains else None,
            packed.ids,
            vocabulary,
        )
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        decoder, blocks, attention, wanted, turn, ids, vocabulary = ctx.given
        laid, found, tokens = attention.layout, [], len(ids)
        dx = _normed_back(decoder.final_norm, *ctx.end, grad)
        for number in reversed(range(len(blocks))):
            last, norms, (qkv, out, gate_up, down) = (
                number == len(blocks) - 1,
                decoder.layers[number].norms,
                blocks[number],
            )
            a, n, r, cells, shares, mixed, b, n2, r2, up, sigmoid, smooth, inner = ctx.kept[number]
            of_down, through = down.gradients(inner, [dx]), dx @ down.weight
            to_up = through * smooth
            to_gate = through.mul_(up).mul_(torch.addcmul(smooth, sigmoid, 1 - smooth))
            gate_weight, up_weight = gate_up.weight.chunk(2)
            dx = dx + _normed_back(
                norms[1], n2, r2, torch.addmm(to_up @ up_weight, to_gate, gate_weight)
            )
            mine = dx.new_zeros(len(dx) + 1, mixed.shape[1])
            torch.mm(dx, out.weight, out=mine[:-1])
            of_out, of_gate_up = out.gradients(mixed, [dx]), gate_up.gradients(b, [to_gate, to_up])
            to_cells = attention.back(
                cells, shares, mine.view(-1, decoder.width).index_select(0, laid.spread[last])
            )
            heads = to_cells.index_select(0, laid.own).view(tokens, -1)
            if len(laid.again):
                heads.index_add_(
                    0, laid.again, to_cells.index_select(0, laid.there).view(len(laid.again), -1)
                )
            spin(heads, turn, decoder.queries + decoder.keys)
            if vocabulary and number == 0:
                heads = heads.new_zeros(vocabulary, heads.shape[1]).index_add_(0, ids, heads)
            found = (
                qkv.gradients(a, heads.split([len(up) for up in qkv.ups], 1))
                + of_out
                + of_gate_up
                + of_down
                + found
            )
            if number:
                dx = dx.new_zeros(tokens, dx.shape[1]).index_copy_(0, wanted, dx) if last else dx
                dx = dx + _normed_back(norms[0], n, r, heads @ qkv.weight)
        return None, None, None, None, None, None, *found


def states(
    decoder: Decoder, adapter: str | None, packed: Packed, wanted: torch.Tensor | None = None
) -> torch.Tensor:
    """Hidden states (W, H) after the last norm under `adapter`, None for the reference, of the
    tokens `wanted` (W,), which may name one twice, or of all.
    """
    lora = [] if adapter is None else decoder.lora(adapter)
    trains = torch.is_grad_enabled() and any(w.requires_grad for w in lora)
    once, where = torch.arange(len(packed.ids)), None
    if wanted is not None:
        once, where = wanted.unique(return_inverse=True)
    blocks = products(decoder, adapter)
    attention = Attention(
        layout(packed, once, decoder.queries, decoder.keys, trains), decoder.queries, decoder.keys
    )
    found = Trunk.apply(decoder, blocks, attention, packed, once, trains, *lora)
    return found if where is None else found.index_select(0, where)
