"""Small steps on a GPU wait for kernel launches: here a decoder's forward and backward passes are
captured once as CUDA graphs and replayed.

A replay computes what `Decoder.forward` computes, on the same weights. A learner may skip this
module.
"""

import gc
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from torch.autograd.function import once_differentiable

from lab.data.packing import LengthBucket, Packed
from lab.engine.llama import Decoder
from lab.engine.llama_cpu import cpu_hidden_states, supports
from lab.engine.torch_private import in_dispatch_mode
from lab.engine.varlen_attention import causal_attention, has_varlen_attention

MAX_CAPTURED_SHAPES = 24
"""Most shapes that are captured for one decoder; passes of further shapes run without graphs."""

_graphs_disabled = False


@contextmanager
def eager() -> Iterator[None]:
    """Replay no graphs inside this context, so that an allocator or a profiler sees every tensor."""
    global _graphs_disabled
    before, _graphs_disabled = _graphs_disabled, True
    try:
        yield
    finally:
        _graphs_disabled = before


def uses_cuda_graphs(device: torch.device) -> bool:
    """Return whether work on `device` is captured and replayed now."""
    return device.type == "cuda" and not _graphs_disabled and not in_dispatch_mode()


@contextmanager
def capturing(graph: torch.cuda.CUDAGraph, pool: Any) -> Iterator[None]:
    """Capture the work inside this context as `graph`, with memory from `pool`.

    The garbage collector waits meanwhile: it might free the graphs of a model that is no longer used,
    which CUDA does not permit during a capture, and the capture would fail.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        with torch.cuda.graph(graph, pool=pool):
            yield
    finally:
        if was_enabled:
            gc.enable()


def hidden_states(
    decoder: Decoder, adapter: str | None, packed: Packed, wanted: torch.Tensor | None = None
) -> torch.Tensor:
    """Return hidden states (N, D) of a packed batch under `adapter`; None means the reference.

    `wanted` (W,) are indices of tokens, and the result is then (W, D). A small model on a CPU takes
    `lab.engine.llama_cpu`; a GPU replays a graph if it has seen the shape before.
    """
    if supports(decoder):
        return cpu_hidden_states(decoder, adapter, packed, wanted)
    states = _all_hidden_states(decoder, adapter, packed)
    return states if wanted is None else states[wanted]


def _all_hidden_states(decoder: Decoder, adapter: str | None, packed: Packed) -> torch.Tensor:
    """Return the hidden states of all tokens, by a graph where that is possible."""
    device = packed.ids.device
    # Padded attention depends on the lengths of each batch, so it cannot be captured.
    if uses_cuda_graphs(device) and has_varlen_attention(
        decoder.final_norm.dtype, decoder.head_dim, device
    ):
        if decoder not in _GRAPH_CACHES:
            _GRAPH_CACHES[decoder] = GraphCache()
        return _GRAPH_CACHES[decoder].hidden_states(decoder, adapter, packed)
    return forward_eager(decoder, adapter, packed)


def forward_eager(
    decoder: Decoder,
    adapter: str | None,
    packed: Packed,
    weights: Sequence[torch.Tensor] | None = None,
) -> torch.Tensor:
    """Return hidden states (N, D), computed operation by operation; `weights` as for
    `Decoder.load_adapter`.
    """
    decoder.load_adapter(adapter, weights)
    return decoder.forward(packed.ids, packed.positions, causal_attention(packed))


def bucket_size(count: int, least: int) -> int:
    """Return `count` rounded up to a multiple of `bucket_step`, so that few shapes occur: at most
    an eighth more.

    Anchor: 4,400 → 4,608.
    """
    step = bucket_step(count, least)
    return -(-count // step) * step


def bucket_step(count: int, least: int) -> int:
    """Return the distance between neighbouring bucket sizes: eight sizes between powers of two, at
    least `least`.
    """
    return max(least, 2 ** max(0, count.bit_length() - 4))


def pad_to_bucket(packed: Packed, tokens: int, rows: int = 0) -> Packed:
    """Pad the packed batch to `tokens` tokens (one dummy row) and `rows` rows (empty ones) for a
    captured graph.
    """
    count, dummies = len(packed.ids), tokens - len(packed.ids)
    empty_rows = max(0, rows - packed.rows)
    positions = torch.arange(dummies, device=packed.ids.device)
    return replace(
        packed,
        ids=torch.cat([packed.ids, torch.zeros_like(positions)]),
        positions=torch.cat([packed.positions, positions]),
        cu_seqlens=torch.cat(
            [packed.cu_seqlens, packed.cu_seqlens.new_full((1 + empty_rows,), tokens)]
        ),
        rows=packed.rows + 1 + empty_rows,
        width=max(packed.width, dummies),
        length_buckets=packed.length_buckets
        + [LengthBucket(1, slice(count, tokens), dummies)] * bool(dummies),
    )


@dataclass
class CapturedBackward:
    """The backward graph of one shape, its input `grad_states` (N, D), and its output `flat_grads`:
    the gradients of the adapter's weights, flattened and concatenated.
    """

    graph: torch.cuda.CUDAGraph
    grad_states: torch.Tensor
    flat_grads: torch.Tensor


@dataclass
class CapturedGraph:
    """One captured shape; its input `packed_sequence` and output `states` stay at the same address.

    `backward` is None if no gradient is needed.
    """

    packed_sequence: Packed
    states: torch.Tensor
    forward: torch.cuda.CUDAGraph
    backward: CapturedBackward | None

    def copy_input(self, packed: Packed) -> None:
        """Copy a batch of this shape into the graph's input."""
        count, inputs = len(packed.ids), self.packed_sequence
        inputs.ids[:count].copy_(packed.ids)
        inputs.positions[:count].copy_(packed.positions)
        inputs.ids[count:].zero_()
        torch.arange(len(inputs.ids) - count, out=inputs.positions[count:])
        inputs.cu_seqlens[: len(packed.cu_seqlens)].copy_(packed.cu_seqlens)
        inputs.cu_seqlens[len(packed.cu_seqlens) :].fill_(len(inputs.ids))


class ReplayFunction(torch.autograd.Function):
    """The replay of a captured graph as a function of the adapter's weights."""

    @staticmethod
    def forward(ctx: Any, captured: CapturedGraph, *weights: torch.Tensor) -> torch.Tensor:
        """Replay the forward graph; return the hidden states (N, H)."""
        captured.forward.replay()
        ctx.backward_graph, ctx.shapes = captured.backward, [weight.shape for weight in weights]
        return captured.states.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Replay the backward graph; return the gradients of the adapter's weights."""
        captured: CapturedBackward = ctx.backward_graph
        captured.grad_states.copy_(grad)
        captured.graph.replay()
        gradients = captured.flat_grads.clone().split([shape.numel() for shape in ctx.shapes])
        return None, *(gradient.view(shape) for gradient, shape in zip(gradients, ctx.shapes))


@dataclass
class GraphCache:
    """The captured graphs of one decoder, by shape. The first two passes run eagerly, because
    libraries initialise themselves at their first use.

    Passes of one adapter share memory, because one is over before the next begins. Other adapters
    and passes without gradient have memory of their own.
    """

    graphs: dict[tuple[str | None, bool, int, int, int], CapturedGraph] = field(
        default_factory=dict
    )
    pools: dict[tuple[str | None, bool], Any] = field(default_factory=dict)
    passes_before_capture: Counter[tuple[str | None, bool]] = field(default_factory=Counter)

    def hidden_states(self, decoder: Decoder, adapter: str | None, packed: Packed) -> torch.Tensor:
        """Return hidden states (N, D), with gradient for the adapter's weights where enabled."""
        weights = [] if adapter is None else decoder.lora_parameters(adapter)
        trains = torch.is_grad_enabled() and any(weight.requires_grad for weight in weights)
        tokens, rows, width = (
            bucket_size(len(packed.ids), 64),
            bucket_size(packed.rows, 8),
            bucket_size(packed.width, 64),
        )
        shape = (adapter, trains, tokens, rows, width)
        if shape not in self.graphs:
            self.passes_before_capture[adapter, trains] += 1
            if (
                self.passes_before_capture[adapter, trains] < 3
                or len(self.graphs) >= MAX_CAPTURED_SHAPES
            ):
                return forward_eager(decoder, adapter, packed)
            # No row will be longer, not even the dummy row.
            longest = max(width, bucket_step(tokens, 64))
            inputs = replace(pad_to_bucket(packed, tokens, rows), width=longest)
            self.graphs[shape] = self._capture(decoder, adapter, inputs, weights if trains else [])
        captured = self.graphs[shape]
        captured.copy_input(packed)
        if trains:
            states = cast(torch.Tensor, ReplayFunction.apply(captured, *weights))
            return states[: len(packed.ids)]
        captured.forward.replay()
        return captured.states[: len(packed.ids)]

    def _capture(
        self, decoder: Decoder, adapter: str | None, packed: Packed, weights: Sequence[torch.Tensor]
    ) -> CapturedGraph:
        """Capture the forward pass of a shape, and with `weights` its backward pass too."""
        pool = self.pools.setdefault((adapter, bool(weights)), torch.cuda.graph_pool_handle())
        inputs = replace(
            packed,
            ids=packed.ids.clone(),
            positions=packed.positions.clone(),
            cu_seqlens=packed.cu_seqlens.clone(),
        )
        # Leaves of no other autograd graph, so that no other stream has to be waited for.
        leaves = [weight.detach().requires_grad_(weight.requires_grad) for weight in weights]
        forward = torch.cuda.CUDAGraph()
        with capturing(forward, pool):
            states = forward_eager(decoder, adapter, inputs, leaves)
        if not weights:
            return CapturedGraph(inputs, states, forward, None)
        grad_states, backward_graph = torch.zeros_like(states), torch.cuda.CUDAGraph()
        with capturing(backward_graph, pool):
            gradients = torch.autograd.grad(states, leaves, grad_states)
            flat_grads = torch.cat([gradient.flatten() for gradient in gradients])
        return CapturedGraph(
            inputs,
            states.detach(),
            forward,
            CapturedBackward(backward_graph, grad_states, flat_grads),
        )


_GRAPH_CACHES: WeakKeyDictionary[Decoder, GraphCache] = WeakKeyDictionary()
