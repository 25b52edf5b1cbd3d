"""On a CPU: the forward and backward pass through a decoder as one function, written by hand,
because for a small model every operation counts.

It computes what `Decoder.forward` computes, and the tests compare both with the model's own forward
pass. It is faster because the adapter is merged into the products
(`lab.engine.cpu_merged_weights`); a rotation is one complex product; short rows attend by batched
products (`lab.engine.cpu_attention`), which share well among threads; the first product is computed
once per vocabulary entry if the vocabulary is smaller than the batch; and the last block computes
only the tokens that the caller wants. A learner may skip this module.

Shapes as in `lab.engine.llama`.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch.autograd.function import once_differentiable

from lab.data.packing import Packed
from lab.engine.cpu_attention import CpuAttention, attention_layout
from lab.engine.cpu_merged_weights import MergedLinear, merged_blocks
from lab.engine.cpu_products import plus_product, product, product_into
from lab.engine.fused_ops import inverse_rms
from lab.engine.llama import Decoder
from lab.engine.torch_private import in_dispatch_mode

MAX_MATRIX_ELEMENTS = 2**27
"""Most elements in the matrices of all blocks. The matrices of a larger model are not copied, to save
memory.
"""


def supports(decoder: Decoder) -> bool:
    """Return whether `cpu_hidden_states` computes what `decoder` does.

    That needs a small model on a CPU without biases, norms of queries and keys, or gradient
    checkpointing. A profiler that counts tensors or operations gets the decoder's own pass, because
    it has to see every operation.
    """
    projections = list(decoder.projections())
    return (
        not any(block.qk_norms for block in decoder.layers)
        and all(p.bias is None for p in projections)
        and sum(p.weight.numel() for p in projections) <= MAX_MATRIX_ELEMENTS
        and decoder.final_norm.device.type == "cpu"
        and not decoder.uses_gradient_checkpointing
        and not in_dispatch_mode()
    )


def apply_rotary_complex_(heads: torch.Tensor, freqs_cis: torch.Tensor, count: int) -> None:
    """Rotate the first `count` heads of each token (N, S·d) in place, by the complex numbers
    `freqs_cis` (N, 1, d/2).

    The rows of the projection must be ordered by `interleave_rope_rows`. Computes what
    `apply_rotary` computes.
    """
    head_dim = 2 * freqs_cis.shape[-1]
    pairs = heads[:, : count * head_dim].unflatten(1, (count, head_dim // 2, 2))
    torch.view_as_complex(pairs).mul_(freqs_cis)


class _SavedNorm(NamedTuple):
    """What the backward of an RMS norm needs: the normalised input n = x·r, and r (N, 1)."""

    normalized: torch.Tensor
    inverse_rms: torch.Tensor

    def backward(self, weight: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
        """Return the gradient for x: r·(g − n·mean(n·g)) with g = grad·weight."""
        n, g = self.normalized, grad * weight
        mean = torch.linalg.vecdot(n, g)[:, None]
        return g.addcmul_(n, mean, value=-1 / n.shape[1]).mul_(self.inverse_rms)


def _rms_norm(
    x: torch.Tensor, weight: torch.Tensor, epsilon: float
) -> tuple[torch.Tensor, _SavedNorm]:
    """Return x·weight / √(mean x² + epsilon) for each row, with what its backward needs."""
    r = inverse_rms(x, epsilon)
    n = x * r
    return n * weight, _SavedNorm(n, r)


class _SavedBlock(NamedTuple):
    """Activations of one block that its backward pass reads.

    `attention_input` and `gate_input` are the outputs of the two norms, and `input_norm` and
    `second_norm` what their backward needs. `slots` are the heads in the layout of attention and
    `attention` is what `CpuAttention.forward` saved; `attended` is the attention output; `silu` is
    gate · sigmoid, and `gated` is silu · up.
    """

    attention_input: torch.Tensor
    input_norm: _SavedNorm
    slots: torch.Tensor
    attention: list[Any]
    attended: torch.Tensor
    gate_input: torch.Tensor
    second_norm: _SavedNorm
    up: torch.Tensor
    sigmoid: torch.Tensor
    silu: torch.Tensor
    gated: torch.Tensor


@dataclass
class _Pass:
    """One forward pass: the weights, the batch, and what its blocks save for backward.

    `wanted` (W,) are the tokens whose hidden states the caller wants. `vocabulary` is V if the
    first product is computed per vocabulary entry, else 0.
    """

    decoder: Decoder
    blocks: list[list[MergedLinear]]
    attention: CpuAttention
    ids: torch.Tensor
    wanted: torch.Tensor
    vocabulary: int
    freqs_cis: torch.Tensor
    saved: list[_SavedBlock]

    def block_forward(self, number: int, x: torch.Tensor, trains: bool) -> torch.Tensor:
        """Return the output of block `number` for x (N, D): (N, D), or (W, D) from the last block."""
        decoder, (qkv, out, gate_up, down) = self.decoder, self.blocks[number]
        last, norms = number == len(self.blocks) - 1, decoder.layers[number].norms
        per_entry = self.vocabulary and number == 0
        attention_input, input_norm = _rms_norm(
            decoder.embedding.weight if per_entry else x, norms[0], decoder.epsilon
        )
        heads = product(attention_input, qkv.weight)
        if per_entry:
            heads = heads.index_select(0, self.ids)
        apply_rotary_complex_(heads, self.freqs_cis, decoder.n_heads + decoder.n_kv_heads)
        layout = self.attention.layout
        slots = heads.view(-1, decoder.head_dim).index_select(0, layout.head_of_slot)
        attended, saved_attention = self.attention.forward(slots)
        attended = attended.index_select(0, layout.output_slots[last]).view(
            -1, decoder.n_heads * decoder.head_dim
        )
        x = plus_product(x.index_select(0, self.wanted) if last else x, attended, out.weight)
        gate_input, second_norm = _rms_norm(x, norms[1], decoder.epsilon)
        gate, up = (product(gate_input, half) for half in gate_up.weight.chunk(2))
        sigmoid = gate.sigmoid()
        silu = gate.mul_(sigmoid)
        gated = silu * up
        if trains:
            self.saved.append(
                _SavedBlock(
                    attention_input,
                    input_norm,
                    slots,
                    saved_attention,
                    attended,
                    gate_input,
                    second_norm,
                    up,
                    sigmoid,
                    silu,
                    gated,
                )
            )
        return plus_product(x, gated, down.weight)

    def block_backward(
        self, number: int, grad: torch.Tensor, inverse_freqs_cis: torch.Tensor
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return the gradient for the input of block `number`, and those of its A and B in turn.

        `grad` is the gradient for the block's output, and `inverse_freqs_cis` rotates by the
        negative angles. The input of the first block needs no gradient; the tensor returned for it
        has no meaning.
        """
        decoder, (qkv, out, gate_up, down) = self.decoder, self.blocks[number]
        last, norms, saved = (
            number == len(self.blocks) - 1,
            decoder.layers[number].norms,
            self.saved[number],
        )
        down_grads = down.lora_gradients(saved.gated, [grad])
        grad_gated = product(grad, down.weight.T)
        grad_up = grad_gated * saved.silu
        grad_gate = grad_gated.mul_(saved.up).mul_(
            torch.addcmul(saved.silu, saved.sigmoid, 1 - saved.silu)
        )
        gate_weight, up_weight = gate_up.weight.chunk(2)
        grad = grad + saved.second_norm.backward(
            norms[1], plus_product(product(grad_up, up_weight.T), grad_gate, gate_weight.T)
        )
        out_grads = out.lora_gradients(saved.attended, [grad])
        gate_up_grads = gate_up.lora_gradients(saved.gate_input, [grad_gate, grad_up])
        grad_heads = self._attention_backward(saved, grad, out.weight, last)
        apply_rotary_complex_(grad_heads, inverse_freqs_cis, decoder.n_heads + decoder.n_kv_heads)
        if self.vocabulary and number == 0:
            grad_heads = grad_heads.new_zeros(self.vocabulary, grad_heads.shape[1]).index_add_(
                0, self.ids, grad_heads
            )
        qkv_grads = qkv.lora_gradients(
            saved.attention_input, grad_heads.split([len(b) for b in qkv.lora_bs], 1)
        )
        if number:
            if last:
                grad = grad.new_zeros(len(self.ids), grad.shape[1]).index_copy_(
                    0, self.wanted, grad
                )
            grad = grad + saved.input_norm.backward(norms[0], product(grad_heads, qkv.weight.T))
        return grad, qkv_grads + out_grads + gate_up_grads + down_grads

    def _attention_backward(
        self, saved: _SavedBlock, grad: torch.Tensor, out_weight: torch.Tensor, last: bool
    ) -> torch.Tensor:
        """Return the gradient (N, S·d) for the rotated q and k and for v, given `grad` for the
        output product.
        """
        decoder, layout = self.decoder, self.attention.layout.backward
        assert layout is not None
        # One more row, all 0, is the gradient of padding.
        grad_attended = grad.new_zeros(len(grad) + 1, saved.attended.shape[1])
        product_into(grad_attended[:-1], grad, out_weight.T)
        grad_slots = self.attention.backward(
            saved.slots,
            saved.attention,
            grad_attended.view(-1, decoder.head_dim).index_select(0, layout.output_owner[last]),
        )
        heads = grad_slots.index_select(0, layout.own_slots).view(len(self.ids), -1)
        shared = layout.shared_tokens
        if len(shared):
            heads.index_add_(
                0, shared, grad_slots.index_select(0, layout.shared_slots).view(len(shared), -1)
            )
        return heads


class LlamaFunction(torch.autograd.Function):
    """Hidden states (W, D) after the last norm of the wanted tokens; gradients only for the
    adapter's A and B.
    """

    @staticmethod
    def forward(
        ctx: Any, this: _Pass, positions: torch.Tensor, trains: bool, *lora: torch.Tensor
    ) -> torch.Tensor:
        """Return the hidden states (N, H) of the tokens after the last norm."""
        decoder = this.decoder
        x = decoder.embedding(this.ids)
        this.freqs_cis = torch.complex(*decoder.rotary_angles(x, positions))
        for number in range(len(this.blocks)):
            x = this.block_forward(number, x, trains)
        states, ctx.final_norm = _rms_norm(x, decoder.final_norm, decoder.epsilon)
        ctx.this = this
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients of the LoRA matrices, layer by layer."""
        this: _Pass = ctx.this
        grad = ctx.final_norm.backward(this.decoder.final_norm, grad)
        lora_grads: list[torch.Tensor] = []
        inverse_freqs_cis = this.freqs_cis.conj_physical()
        for number in reversed(range(len(this.blocks))):
            grad, block_grads = this.block_backward(number, grad, inverse_freqs_cis)
            lora_grads = block_grads + lora_grads
        return None, None, None, *lora_grads


def cpu_hidden_states(
    decoder: Decoder, adapter: str | None, packed: Packed, wanted: torch.Tensor | None = None
) -> torch.Tensor:
    """Return hidden states (W, D) after the last norm under `adapter`; None means the reference.

    `wanted` (W,) are indices of tokens, which may repeat; None means all tokens.
    """
    lora = [] if adapter is None else decoder.lora_parameters(adapter)
    trains = torch.is_grad_enabled() and any(weight.requires_grad for weight in lora)
    unique, position_in_unique = torch.arange(len(packed.ids)), None
    if wanted is not None:
        unique, position_in_unique = wanted.unique(return_inverse=True)
    layout = attention_layout(packed, unique, decoder.n_heads, decoder.n_kv_heads, trains)
    vocabulary = len(decoder.embedding.weight)
    this = _Pass(
        decoder=decoder,
        blocks=merged_blocks(decoder, adapter),
        attention=CpuAttention(layout, decoder.n_heads, decoder.n_kv_heads),
        ids=packed.ids,
        wanted=unique,
        vocabulary=vocabulary if vocabulary < len(packed.ids) else 0,
        freqs_cis=torch.empty(0),
        saved=[],
    )
    states = cast(torch.Tensor, LlamaFunction.apply(this, packed.positions, trains, *lora))
    return states if position_in_unique is None else states.index_select(0, position_in_unique)
