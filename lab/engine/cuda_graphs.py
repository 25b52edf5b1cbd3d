"""On a GPU small steps wait for their launches: here a decoder's passes are recorded once and
replayed as CUDA graphs.

A learner may skip this module: a replay computes what `Decoder.trunk` computes, on the same
weights.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from weakref import WeakKeyDictionary

import torch
from torch.autograd.function import once_differentiable
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from lab.data.packing import LengthBucket, Packed
from lab.engine.llama import Decoder, causal, has_packed_attention
from lab.engine.llama_cpu import states, written_for

KEPT = 24  # Shapes that are recorded for a decoder; further ones run without.
_OFF = False


@contextmanager
def eager() -> Iterator[None]:
    """Within it nothing is replayed, so that an allocator or a profiler sees every tensor."""
    global _OFF
    before, _OFF = _OFF, True
    try:
        yield
    finally:
        _OFF = before


def replays(device: torch.device) -> bool:
    """Whether work on that device is recorded and replayed now."""
    return device.type == "cuda" and not _OFF and not is_in_torch_dispatch_mode()


def hidden_states(
    decoder: Decoder, adapter: str | None, packed: Packed, wanted: torch.Tensor | None = None
) -> torch.Tensor:
    """Hidden states (N, H) of a packed batch under `adapter`, or under the reference for None, or
    of its tokens `wanted` (W,) alone.

    On a CPU by `lab.engine.llama_cpu` where that is written for the model; on a GPU replayed where
    the shape has come before.
    """
    if written_for(decoder):
        return states(decoder, adapter, packed, wanted)
    found = _whole(decoder, adapter, packed)
    return found if wanted is None else found[wanted]


def _whole(decoder: Decoder, adapter: str | None, packed: Packed) -> torch.Tensor:
    device = packed.ids.device
    if replays(device) and has_packed_attention(
        decoder.final_norm.dtype, decoder.width, device
    ):  # Padded attention depends on each batch's lengths.
        if decoder not in _RECORDED:
            _RECORDED[decoder] = Recorded()
        return _RECORDED[decoder].states(decoder, adapter, packed)
    return computed(decoder, adapter, packed)


def computed(
    decoder: Decoder, adapter: str | None, packed: Packed, weights: list[torch.Tensor] | None = None
) -> torch.Tensor:
    """The same, computed operation by operation; `weights` as for `Decoder.load`."""
    decoder.load(adapter, weights)
    return decoder.trunk(packed.ids, packed.positions, causal(packed))


def rounded(count: int, least: int) -> int:
    """`count` rounded up to one of eight sizes between powers of two, so that few shapes occur: at
    most an eighth more. Anchor: 4,400 → 4,608.
    """
    step = rounding(count, least)
    return -(-count // step) * step


def rounding(count: int, least: int) -> int:
    """The step between the sizes that `rounded` gives."""
    return max(least, 2 ** max(0, count.bit_length() - 4))


def lengthened(packed: Packed, tokens: int, rows: int = 0) -> Packed:
    """The batch with idle tokens at its end, in a row of their own, `tokens` in all; and after it
    empty rows, so that the batch's own count as `rows`.
    """
    count, idle, empty = len(packed.ids), tokens - len(packed.ids), max(0, rows - packed.rows)
    place = torch.arange(idle, device=packed.ids.device)
    return replace(
        packed,
        ids=torch.cat([packed.ids, torch.zeros_like(place)]),
        positions=torch.cat([packed.positions, place]),
        edges=torch.cat([packed.edges, packed.edges.new_full((1 + empty,), tokens)]),
        rows=packed.rows + 1 + empty,
        width=max(packed.width, idle),
        stretches=packed.stretches + [LengthBucket(1, slice(count, tokens), idle)] * bool(idle),
    )


@dataclass
class Pass:
    """One recorded shape: its inputs and outputs stay where they are in memory. `way_back` is None
    where no gradient is wanted.
    """

    line: Packed
    states: torch.Tensor
    forward: torch.cuda.CUDAGraph
    way_back: torch.cuda.CUDAGraph | None
    grad: torch.Tensor | None
    flat: torch.Tensor | None

    def fill(self, packed: Packed) -> None:
        """Copy a batch of this shape into the inputs."""
        count = len(packed.ids)
        self.line.ids[:count].copy_(packed.ids)
        self.line.positions[:count].copy_(packed.positions)
        self.line.ids[count:].zero_()
        torch.arange(len(self.line.ids) - count, out=self.line.positions[count:])
        self.line.edges[: len(packed.edges)].copy_(packed.edges)
        self.line.edges[len(packed.edges) :].fill_(len(self.line.ids))


class Replay(torch.autograd.Function):
    """A recorded pass as a function of the adapter's weights."""

    @staticmethod
    def forward(ctx, recorded, *weights):
        recorded.forward.replay()
        ctx.recorded, ctx.shapes = recorded, [w.shape for w in weights]
        return recorded.states.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        ctx.recorded.grad.copy_(grad)
        ctx.recorded.way_back.replay()
        parts = ctx.recorded.flat.clone().split([shape.numel() for shape in ctx.shapes])
        return None, *(part.view(shape) for part, shape in zip(parts, ctx.shapes))


@dataclass
class Recorded:
    """The recorded passes of one decoder, by shape. The first two passes are computed, since
    libraries set themselves up at their first use.

    Passes of one adapter share memory, since one is over before the next begins; those of another
    adapter, and those without gradient, have their own.
    """

    passes: dict[tuple, Pass] = field(default_factory=dict)
    pools: dict[tuple, tuple] = field(default_factory=dict)
    computed: Counter = field(default_factory=Counter)

    def states(self, decoder: Decoder, adapter: str | None, packed: Packed) -> torch.Tensor:
        """Hidden states (N, H), with gradient for the adapter's weights where enabled."""
        weights = [] if adapter is None else decoder.lora(adapter)
        trains = torch.is_grad_enabled() and any(w.requires_grad for w in weights)
        tokens, rows, width = (
            rounded(len(packed.ids), 64),
            rounded(packed.rows, 8),
            rounded(packed.width, 64),
        )
        shape = (adapter, trains, tokens, rows, width)
        if shape not in self.passes:
            self.computed[adapter, trains] += 1
            if self.computed[adapter, trains] < 3 or len(self.passes) >= KEPT:
                return computed(decoder, adapter, packed)
            line = replace(
                lengthened(packed, tokens, rows), width=max(width, rounding(tokens, 64))
            )  # No row, the idle one neither, will be longer.
            self.passes[shape] = self._record(decoder, adapter, line, weights if trains else [])
        recorded = self.passes[shape]
        recorded.fill(packed)
        if trains:
            return Replay.apply(recorded, *weights)[: len(packed.ids)]
        recorded.forward.replay()
        return recorded.states[: len(packed.ids)]

    def _record(
        self, decoder: Decoder, adapter: str | None, line: Packed, weights: list[torch.nn.Parameter]
    ) -> Pass:
        pool = self.pools.setdefault((adapter, bool(weights)), torch.cuda.graph_pool_handle())
        line = replace(
            line, ids=line.ids.clone(), positions=line.positions.clone(), edges=line.edges.clone()
        )
        leaves = [
            w.detach().requires_grad_(w.requires_grad) for w in weights
        ]  # Of no other graph, so that no other stream is waited for.
        forward = torch.cuda.CUDAGraph()
        with torch.cuda.graph(forward, pool=pool):
            states = computed(decoder, adapter, line, leaves)
        if not weights:
            return Pass(line, states, forward, None, None, None)
        grad, way_back = torch.zeros_like(states), torch.cuda.CUDAGraph()
        with torch.cuda.graph(way_back, pool=pool):
            flat = torch.cat([g.flatten() for g in torch.autograd.grad(states, leaves, grad)])
        return Pass(line, states.detach(), forward, way_back, grad, flat)


_RECORDED: WeakKeyDictionary[Decoder, Recorded] = WeakKeyDictionary()
