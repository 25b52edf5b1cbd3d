"""The fast path through a Llama-like model with LoRA: one function over packed tokens, equal to the
model's own forward pass.

A learner may skip this module: what it computes is what `model(input_ids=…)` computes, and the
tests compare the two. It is faster because no padding is computed, the matrices that read the same
input are one product, and nothing is done twice by layers of wrappers.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from weakref import WeakKeyDictionary

import torch
from peft import PeftModel
from peft.tuners.lora import Linear as LoraLinear
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import rms_norm, scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from lab.data.packing import LengthBucket, Packed
from lab.distributed.fsdp import is_sharded
from lab.engine.triton_kernels import gated, gated_back, norm_back, normed, turned
from lab.models.device import has_bfloat16

ARCHITECTURES = ("llama", "mistral", "qwen2", "qwen3")
"""Model types whose forward pass is the one written here."""

Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass
class Projection:
    """Linear layers that read the same input, as one matrix: `weight` (O, I), `bias` (O,) or None.

    `layers` are the model's own, whose weights are views of `weight`, so that nothing is stored
    twice; `sizes` are their output widths. `down` (K·r, I) and `up` (O, K·r), in blocks and with
    the scale in it, are the active adapter in the dtype of the computation; both are made by
    `Decoder.load`.
    """

    layers: list[nn.Module]
    weight: torch.Tensor = field(init=False)
    bias: torch.Tensor | None = field(init=False)
    sizes: list[int] = field(init=False)
    down: torch.Tensor | None = None
    up: torch.Tensor | None = None
    lora: list[nn.Parameter] = field(default_factory=list)
    scale: float = 1.0

    def __post_init__(self) -> None:
        plain = [base(layer) for layer in self.layers]
        self.sizes = [layer.weight.shape[0] for layer in plain]
        self.weight = (
            plain[0].weight.detach()
            if len(plain) == 1
            else torch.cat([layer.weight.detach() for layer in plain])
        )
        biases = [layer.bias for layer in plain if layer.bias is not None]
        self.bias = torch.cat([b.detach() for b in biases]) if biases else None
        if len(plain) > 1:
            for layer, rows in zip(plain, self.weight.split(self.sizes)):
                layer.weight.data = rows

    def __call__(self, x: torch.Tensor, before: "Before | None" = None) -> torch.Tensor:
        """x (N, I) → (N, O), LoRA included; with `before`, of what that makes of x."""
        if self.down is None:
            return nn.functional.linear(before.there(x) if before else x, self.weight, self.bias)
        return WithLora.apply(
            before, x, self.weight, self.bias, self.down, self.up, self.scale, *self.lora
        )


def base(layer: nn.Module) -> nn.Linear:
    """The linear layer under an adapter, or the layer itself."""
    return layer.base_layer if isinstance(layer, LoraLinear) else layer


def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a·b in float32, summed in float32 also where the factors are bfloat16."""
    return (
        torch.mm(a, b, out_dtype=torch.float32)
        if a.is_cuda and a.dtype != torch.float32
        else (a @ b).float()
    )


@dataclass(frozen=True)
class Before:
    """What is done to a product's input: `there(x)`, and the gradient for x, `back(x, grad)`, of
    one for the result.

    `again`: the result is not kept but made again on the way back, since that is cheap and it is
    large.
    """

    there: Callable[[torch.Tensor], torch.Tensor]
    back: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    again: bool


class WithLora(torch.autograd.Function):
    """y = x·Wᵀ + b + (x·Aᵀ)·(s·B)ᵀ for several layers with one input (arXiv 2106.09685, Eq. 3);
    gradients for x, A and B, none for the frozen W.

    Keeps x and x·Aᵀ for the way back, and no copy of either. With `before`, x is what that makes of
    the input, which is kept too.
    """

    @staticmethod
    def forward(ctx, before, given, weight, bias, down, up, scale, *lora):
        x = before.there(given) if before else given
        inner = x @ down.T
        ctx.save_for_backward(
            None if before and before.again else x,
            given if before else None,
            inner,
            weight,
            down,
            up,
        )
        ctx.before, ctx.scale, ctx.shapes = before, scale, [tensor.shape for tensor in lora]
        plain = torch.addmm(bias, x, weight.T) if bias is not None else x @ weight.T
        return torch.addmm(plain, inner, up.T, out=plain)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, given, inner, weight, down, up = ctx.saved_tensors
        x = ctx.before.there(given) if x is None else x
        through = grad @ up
        grad_x = None
        if ctx.needs_input_grad[1]:
            grad_x = grad @ weight
            torch.addmm(grad_x, through, down, out=grad_x)
            grad_x = ctx.before.back(given, grad_x) if ctx.before else grad_x
        grad_down, grad_up = product(through.T, x), product(grad.T, inner).mul_(ctx.scale)
        found, row, column = [], 0, 0
        for (rank, _), (out, _) in zip(ctx.shapes[::2], ctx.shapes[1::2]):
            found += [
                grad_down[column : column + rank],
                grad_up[row : row + out, column : column + rank],
            ]
            row, column = row + out, column + rank
        return None, grad_x, None, None, None, None, None, *found


class Rotate(torch.autograd.Function):
    """Rotary position embedding (arXiv 2104.09864): x (N, heads, d), cos and sin (N, 1, d/2); the
    way back is the rotation by −θ.
    """

    @staticmethod
    def forward(ctx, x, cos, sin):
        ctx.save_for_backward(cos, sin)
        return turned(x, cos, sin)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        return turned(grad, *ctx.saved_tensors, sign=-1), None, None


@dataclass
class Layer:
    """One block: its four products and its norms; `norms` are those before attention and before the
    gate, `heads` those of queries and keys (Qwen3).
    """

    qkv: Projection
    out: Projection
    gate_up: Projection
    down: Projection
    norms: tuple[torch.Tensor, torch.Tensor]
    heads: tuple[torch.Tensor, torch.Tensor] | None


class Decoder:
    """A causal language model's trunk, read from a transformers model and its LoRA adapters; it
    holds no weights of its own.

    `load(adapter)` chooses what the next passes use: an adapter's name, or None for the reference.
    `trunk` is the pass itself. A `lean` one keeps for the way back only what is dear to make again,
    as on a GPU; on a CPU small models have memory to spare.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        trunk = model.base_model
        config = trunk.config
        self.queries, self.keys = config.num_attention_heads, config.num_key_value_heads
        self.width = (
            getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        )
        self.epsilon, self.embedding, self.rotary, self.final_norm = (
            config.rms_norm_eps,
            trunk.embed_tokens,
            trunk.rotary_emb,
            trunk.norm.weight,
        )
        self.layers = [self._layer(block) for block in trunk.layers]
        self.lean = self.final_norm.is_cuda
        self._blocks = list(trunk.layers)
        self._lora: dict[str, list[nn.Parameter]] = {}

    @staticmethod
    def _layer(block: nn.Module) -> Layer:
        a, m = block.self_attn, block.mlp
        heads = (a.q_norm.weight, a.k_norm.weight) if hasattr(a, "q_norm") else None
        return Layer(
            Projection([a.q_proj, a.k_proj, a.v_proj]),
            Projection([a.o_proj]),
            Projection([m.gate_proj, m.up_proj]),
            Projection([m.down_proj]),
            (block.input_layernorm.weight, block.post_attention_layernorm.weight),
            heads,
        )

    def kept(self) -> int:
        """Bytes that a pass with gradient keeps of a token for its way back: inputs of blocks and
        of their second norms, turned queries and keys, values, what attention mixed, gate and up,
        and LoRA's inner products; where it is not lean, also the normed and gated inputs, and all
        of the first product.
        """

        def per_layer(layer: Layer) -> int:
            heads, width = layer.qkv.weight.shape
            inner = sum(
                len(p.down)
                for p in (layer.qkv, layer.out, layer.gate_up, layer.down)
                if p.down is not None
            )
            spared = (
                0
                if self.lean
                else 2 * width
                + (self.queries + self.keys) * self.width
                + layer.down.weight.shape[1]
            )
            return (
                2 * width
                + heads
                + layer.out.weight.shape[1]
                + layer.gate_up.weight.shape[0]
                + inner
                + spared
            )

        return self.final_norm.element_size() * sum(map(per_layer, self.layers))

    def cached(self) -> int:
        """Bytes of a token's keys and values, all layers together."""
        return 2 * len(self.layers) * self.keys * self.width * self.final_norm.element_size()

    @property
    def recomputes(self) -> bool:
        """Whether its blocks keep only their input for the way back."""
        return any(getattr(block, "gradient_checkpointing", False) for block in self._blocks)

    def projections(self) -> Iterator[Projection]:
        """All products, in the order of the computation."""
        for layer in self.layers:
            yield from (layer.qkv, layer.out, layer.gate_up, layer.down)

    def lora(self, adapter: str) -> list[nn.Parameter]:
        """The weights of an adapter, A and B in turn, in the order of `projections`."""
        if adapter not in self._lora:
            self._lora[adapter] = [
                w
                for p in self.projections()
                for layer in p.layers
                for w in (layer.lora_A[adapter].weight, layer.lora_B[adapter].weight)
            ]
        return self._lora[adapter]

    @torch.no_grad()
    def load(self, adapter: str | None, weights: list[torch.Tensor] | None = None) -> None:
        """Copy the adapter's present weights into the products, in their dtype; None computes the
        reference.

        `weights` may stand in for `lora(adapter)`: the same memory as other leaves of autograd.
        """
        left = iter(() if adapter is None else weights or self.lora(adapter))
        to, source, scales = [], [], []
        for p in self.projections():
            p.lora = list(islice(left, 2 * len(p.layers)))
            if adapter is None:
                p.down = p.up = None
                continue
            p.scale = p.layers[0].scaling[adapter]
            ranks = [a.shape[0] for a in p.lora[::2]]
            p.down = p.weight.new_empty(sum(ranks), p.weight.shape[1])
            p.up = p.weight.new_zeros(p.weight.shape[0], sum(ranks))
            row = column = 0
            for rank, size, a, b in zip(ranks, p.sizes, p.lora[::2], p.lora[1::2]):
                to += [
                    p.down[column : column + rank],
                    p.up[row : row + size, column : column + rank],
                ]
                source += [a, b]
                scales += [1.0, p.scale]
                row, column = row + size, column + rank
        if to:
            torch._foreach_copy_(to, torch._foreach_mul(source, scales))

    def trunk(self, ids: torch.Tensor, positions: torch.Tensor, attend: Attend) -> torch.Tensor:
        """Hidden states (N, H) after the last norm, of `ids` (N,) at `positions` (N,).

        `attend(q, k, v)` mixes the tokens: (N, heads, d) thrice, keys and values with heads of
        their own number → (N, heads, d).
        """
        x = self.embedding(ids)
        cos, sin = (half[0, :, None, : self.width // 2] for half in self.rotary(x, positions[None]))
        for layer, block in zip(self.layers, self._blocks):
            if torch.is_grad_enabled() and getattr(block, "gradient_checkpointing", False):
                x = checkpoint(
                    self.through,
                    layer,
                    x,
                    cos,
                    sin,
                    attend,
                    use_reentrant=False,
                    preserve_rng_state=False,
                )
            else:
                x = self.through(layer, x, cos, sin, attend)
        return rms_norm(x, x.shape[-1:], self.final_norm, self.epsilon)

    def _normed(self, weight: torch.Tensor) -> Before:
        """A norm before a product."""
        return Before(
            lambda x: normed(x, weight, self.epsilon),
            lambda x, grad: norm_back(x, weight, self.epsilon, grad),
            again=self.lean,
        )

    def through(
        self, layer: Layer, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, attend: Attend
    ) -> torch.Tensor:
        """x (N, H) through one block."""
        qkv = layer.qkv(x, self._normed(layer.norms[0])).view(len(x), -1, self.width)
        qk, v = qkv.split([self.queries + self.keys, self.keys], 1)
        if layer.heads:
            q, k = qk.split([self.queries, self.keys], 1)
            qk = torch.cat(
                [
                    rms_norm(q, (self.width,), layer.heads[0], self.epsilon),
                    rms_norm(k, (self.width,), layer.heads[1], self.epsilon),
                ],
                1,
            )
        q, k = Rotate.apply(qk, cos, sin).split([self.queries, self.keys], 1)
        if self.lean:
            v = v.contiguous()  # A copy, so that all of the first product need not be kept.
        x = x + layer.out(attend(q, k, v).flatten(1))
        return x + layer.down(
            layer.gate_up(x, self._normed(layer.norms[1])),
            Before(gated, gated_back, again=self.lean),
        )


def has_packed_attention(dtype: torch.dtype, head_dim: int, device: torch.device) -> bool:
    """Whether attention reads rows of any length without padding: heads of `head_dim` in bfloat16,
    on a GPU on which flash attention runs.
    """
    return (
        dtype == torch.bfloat16
        and head_dim % 8 == 0
        and head_dim <= 256
        and (has_bfloat16(device) or device.type != "cuda")
    )


def causal(packed: Packed) -> Attend:
    """Causal attention within each row of a packed batch: by the packed kernel where there is one,
    otherwise on padded rows.
    """
    longest = packed.width

    def packed_kernel(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return torch.ops.aten._flash_attention_forward(
            q, k, v, packed.edges, packed.edges, longest, longest, 0.0, True, False
        )[0]

    def padded(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        if packed.padded:
            q, k, v = (Laid.apply(x, packed.padded) for x in (q, k, v))
            return Picked.apply(
                torch.cat(
                    [_attend_rows(s, *(x[s.tokens] for x in (q, k, v))) for s in packed.stretches]
                ),
                packed.padded,
            )
        return torch.cat(
            [_attend_padded(stretch, packed.positions, q, k, v) for stretch in packed.stretches]
        )

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return (packed_kernel if has_packed_attention(q.dtype, q.shape[-1], q.device) else padded)(
            q, k, v
        )

    return attend


def _attend_padded(
    stretch: LengthBucket, positions: torch.Tensor, *heads: torch.Tensor
) -> torch.Tensor:
    place = positions[stretch.tokens]
    cells = place + ((place == 0).cumsum(0) - 1) * stretch.width
    q, k, v = (
        x.new_zeros(stretch.rows * stretch.width, *x.shape[1:]).index_copy(
            0, cells, x[stretch.tokens]
        )
        for x in heads
    )
    return _attend_rows(stretch, q, k, v)[cells]


def _attend_rows(stretch: LengthBucket, *heads: torch.Tensor) -> torch.Tensor:
    """Causal attention of padded rows: the cells (rows·width, heads, d) of queries, keys and values
    → the same of the queries.
    """
    q, k, v = (x.unflatten(0, (stretch.rows, stretch.width)).transpose(1, 2) for x in heads)
    return (
        scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=q.shape[1] != k.shape[1])
        .transpose(1, 2)
        .flatten(0, 1)
    )


class Laid(torch.autograd.Function):
    """The line (N, …) laid out in cells (C, …); a token's gradient is the sum of its cells', and
    padding has none, since no token looks at it.
    """

    @staticmethod
    def forward(ctx, x, padded):
        ctx.padded = padded
        return x.index_select(0, padded.sources)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        again, cells = ctx.padded.again
        line = grad.index_select(0, ctx.padded.picks)
        return line.index_add_(0, again, grad.index_select(0, cells)) if len(again) else line, None


class Picked(torch.autograd.Function):
    """Of cells (C, …) those of the line's own queries (N, …)."""

    @staticmethod
    def forward(ctx, cells, padded):
        ctx.padded = padded
        return cells.index_select(0, padded.picks)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        return (
            grad.new_zeros(len(ctx.padded.sources), *grad.shape[1:]).index_copy_(
                0, ctx.padded.picks, grad
            ),
            None,
        )


_DECODERS: WeakKeyDictionary[nn.Module, Decoder | None] = WeakKeyDictionary()


def decoder_of(model: PeftModel | PreTrainedModel) -> Decoder | None:
    """The fast path of a model, made at the first call; None where its architecture or its layers
    are not those written here.
    """
    plain = model.get_base_model() if isinstance(model, PeftModel) else model
    if plain not in _DECODERS:
        _DECODERS[plain] = Decoder(plain) if fits(plain) else None
    return _DECODERS[plain]


def fits(model: PreTrainedModel) -> bool:
    """Whether `Decoder` computes what `model` does; it needs whole weights."""
    config = model.base_model.config
    if (
        is_sharded(model)
        or config.model_type not in ARCHITECTURES
        or config.hidden_act != "silu"
        or getattr(config, "use_sliding_window", False)
    ):
        return False
    if config.model_type == "mistral" and config.sliding_window:
        return False
    linear = [
        m
        for block in model.base_model.layers
        for m in (*block.self_attn.children(), *block.mlp.children())
        if hasattr(m, "in_features")
    ]
    adapted = sum(isinstance(m, LoraLinear) for m in linear)
    return adapted in (0, len(linear)) and all(
        type(base(m)) is nn.Linear and not base(m).weight.requires_grad for m in linear
    )
