"""The fast path through a Llama-like model with LoRA: one function over a packed sequence, equal to
the model's own forward pass.

It computes what `model(input_ids=…)` computes, and the tests compare the two. It is faster because
it computes no padding, multiplies matrices that read the same input as one, and skips layers of
wrappers. A learner may skip this module.

Shapes in `lab.engine`:

| letter | meaning |
| --- | --- |
| B, T | rows and columns of a right-padded batch |
| N | tokens of the packed sequence (`lab.data.packing.Packed`) |
| M | completion tokens, which have a log-probability |
| C | cells of padded rows, for attention without flash attention |
| D | hidden width |
| F | width inside the gated layer |
| V | vocabulary |
| n_heads, n_kv_heads, head_dim (d) | heads of queries, heads of keys and values, width of a head |
| r | LoRA rank |
| W | tokens whose hidden states the caller wants |
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from peft import PeftModel
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from lab.engine.fused_ops import apply_rotary, rms_norm, rms_norm_backward, swiglu, swiglu_backward
from lab.engine.llama_weights import Block, has_fast_path, read_block
from lab.engine.lora_linear import FusedLoraLinear, FusedPrologue
from lab.engine.torch_private import scaled_copies_
from lab.engine.varlen_attention import AttentionFn


class RotaryFunction(torch.autograd.Function):
    """`apply_rotary` with a gradient, which is the rotation by −θ."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        """Return x (N, heads, d), rotated by the angles of its positions."""
        ctx.save_for_backward(cos, sin)
        return apply_rotary(x, cos, sin)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        """Return the gradient of x, rotated back."""
        cos, sin = ctx.saved_tensors
        return apply_rotary(grad, cos, sin, sign=-1), None, None


class Decoder:
    """The backbone of a causal language model, read from a transformers model and its LoRA
    adapters.

    It holds no weights of its own. `load_adapter` chooses what the next forward passes use: an
    adapter, or None for the reference. With `recompute_activations`, as on a GPU, a forward pass
    saves for backward only what is expensive to compute again; on a CPU, small models have memory
    to spare.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        backbone = cast(Any, model.base_model)
        config = backbone.config
        self.n_heads: int = config.num_attention_heads
        self.n_kv_heads: int = config.num_key_value_heads
        self.head_dim: int = (
            getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        )
        self.epsilon: float = config.rms_norm_eps
        self.embedding: nn.Embedding = backbone.embed_tokens
        self.rotary: nn.Module = backbone.rotary_emb
        self.final_norm: torch.Tensor = backbone.norm.weight
        self.layers = [read_block(module) for module in backbone.layers]
        self.recompute_activations = self.final_norm.is_cuda
        self._modules: list[nn.Module] = list(backbone.layers)
        self._lora_parameters: dict[str, list[nn.Parameter]] = {}

    def saved_activation_bytes_per_token(self) -> int:
        """Return the bytes of activations that a forward pass saves per token for backward.

        Saved are: inputs of blocks and of their second norms; rotated queries and keys; values;
        attention outputs; gate and up; LoRA's inner products. Without `recompute_activations` also:
        normed and gated inputs, and the whole product of q, k and v.
        """

        def saved_numbers(block: Block) -> int:
            qkv_width, hidden = block.qkv.weight.shape
            lora_ranks = sum(len(p.lora_a) for p in block.projections if p.lora_a is not None)
            recomputed = (
                2 * hidden
                + (self.n_heads + self.n_kv_heads) * self.head_dim
                + block.down.weight.shape[1]
            )
            return (
                2 * hidden
                + qkv_width
                + block.out.weight.shape[1]
                + block.gate_up.weight.shape[0]
                + lora_ranks
                + (0 if self.recompute_activations else recomputed)
            )

        return self.final_norm.element_size() * sum(map(saved_numbers, self.layers))

    def kv_bytes_per_token(self) -> int:
        """Return the bytes of one token's keys and values in all layers."""
        numbers = 2 * len(self.layers) * self.n_kv_heads * self.head_dim
        return numbers * self.final_norm.element_size()

    @property
    def uses_gradient_checkpointing(self) -> bool:
        """Whether blocks save only their input for backward."""
        return any(getattr(module, "gradient_checkpointing", False) for module in self._modules)

    def projections(self) -> Iterator[FusedLoraLinear]:
        """Yield all products, in the order of the computation."""
        for block in self.layers:
            yield from block.projections

    def lora_parameters(self, adapter: str) -> list[nn.Parameter]:
        """Return the weights of an adapter, A and B in turn, in the order of `projections`."""
        if adapter not in self._lora_parameters:
            self._lora_parameters[adapter] = [
                weight for p in self.projections() for weight in p.parameters_of(adapter)
            ]
        return self._lora_parameters[adapter]

    @torch.no_grad()
    def load_adapter(
        self, adapter: str | None, weights: Sequence[torch.Tensor] | None = None
    ) -> None:
        """Copy the adapter's present weights into the products, in their dtype; None means the
        reference.

        `weights` replaces `lora_parameters(adapter)` by tensors that share its memory but are other
        leaves of autograd.
        """
        if adapter is None:
            for p in self.projections():
                p.lora_parameters, p.lora_a, p.lora_b = [], None, None
            return
        remaining = iter(weights or self.lora_parameters(adapter))
        targets: list[torch.Tensor] = []
        sources: list[torch.Tensor] = []
        scales: list[float] = []
        for p in self.projections():
            p.lora_parameters = list(islice(remaining, 2 * len(p.layers)))
            p.scaling = p.scaling_of(adapter)
            pairs = list(zip(p.lora_parameters[::2], p.lora_parameters[1::2]))
            ranks = sum(len(a) for a, _ in pairs)
            p.lora_a = p.weight.new_empty(ranks, p.weight.shape[1])
            p.lora_b = p.weight.new_zeros(p.weight.shape[0], ranks)
            row = column = 0
            for (a, b), width in zip(pairs, p.out_features):
                columns = slice(column, column + len(a))
                targets += [p.lora_a[columns], p.lora_b[row : row + width, columns]]
                sources += [a, b]
                scales += [1.0, p.scaling]
                row, column = row + width, column + len(a)
        scaled_copies_(targets, sources, scales)

    def rotary_angles(
        self, like: torch.Tensor, positions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return cos and sin (N, 1, d/2) of the rotary angles at `positions` (N,), in the dtype of
        `like`.
        """
        cos, sin = self.rotary(like, positions[None])
        half = self.head_dim // 2
        return cos[0, :, None, :half], sin[0, :, None, :half]

    def forward(
        self, ids: torch.Tensor, positions: torch.Tensor, attend: AttentionFn
    ) -> torch.Tensor:
        """Return hidden states (N, D) after the last norm, of `ids` (N,) at `positions` (N,)."""
        x = self.embedding(ids)
        cos, sin = self.rotary_angles(x, positions)
        for block, module in zip(self.layers, self._modules):
            if torch.is_grad_enabled() and getattr(module, "gradient_checkpointing", False):
                x = checkpoint(
                    self.block_forward,
                    block,
                    x,
                    cos,
                    sin,
                    attend,
                    use_reentrant=False,
                    preserve_rng_state=False,
                )
            else:
                x = self.block_forward(block, x, cos, sin, attend)
        return functional.rms_norm(x, x.shape[-1:], self.final_norm, self.epsilon)

    def _norm_prologue(self, weight: torch.Tensor) -> FusedPrologue:
        """Return an RMS norm that a product applies to its input."""
        return FusedPrologue(
            lambda x: rms_norm(x, weight, self.epsilon),
            lambda x, grad: rms_norm_backward(x, weight, self.epsilon, grad),
            recompute=self.recompute_activations,
        )

    def block_forward(
        self,
        block: Block,
        x: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        attend: AttentionFn,
    ) -> torch.Tensor:
        """Return the output (N, D) of one block for x (N, D)."""
        qkv = block.qkv(x, self._norm_prologue(block.norms[0])).view(len(x), -1, self.head_dim)
        qk, v = qkv.split([self.n_heads + self.n_kv_heads, self.n_kv_heads], 1)
        if block.qk_norms:
            q, k = qk.split([self.n_heads, self.n_kv_heads], 1)
            qk = torch.cat(
                [
                    functional.rms_norm(q, (self.head_dim,), block.qk_norms[0], self.epsilon),
                    functional.rms_norm(k, (self.head_dim,), block.qk_norms[1], self.epsilon),
                ],
                1,
            )
        rotated = cast(torch.Tensor, RotaryFunction.apply(qk, cos, sin))
        q, k = rotated.split([self.n_heads, self.n_kv_heads], 1)
        if self.recompute_activations:
            v = v.contiguous()  # A copy, so that backward does not keep the whole qkv.
        x = x + block.out(attend(q, k, v).flatten(1))
        return x + block.down(
            block.gate_up(x, self._norm_prologue(block.norms[1])),
            FusedPrologue(swiglu, swiglu_backward, recompute=self.recompute_activations),
        )


_DECODERS: WeakKeyDictionary[nn.Module, Decoder] = WeakKeyDictionary()


def decoder_of(model: PeftModel | PreTrainedModel) -> Decoder | None:
    """Return the fast path of a model, or None if `has_fast_path` is false for it.

    The model stays as it is. The decoder reads the model's weights where they lie, and later calls
    return the same one.
    """
    whole = cast(PreTrainedModel, model.get_base_model() if isinstance(model, PeftModel) else model)
    decoder = _DECODERS.get(whole)
    if decoder is None and has_fast_path(whole):
        decoder = _DECODERS[whole] = Decoder(whole)
    return decoder
