"""Which transformers models have the fast path of `lab.engine.llama`, and where their weights are."""

from dataclasses import dataclass
from typing import Any, cast

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import nn
from transformers import PreTrainedModel

from lab.distributed.fsdp import is_sharded
from lab.engine.lora_linear import FusedLoraLinear, are_side_by_side
from lab.models.full_weights import has_initial_weights
from lab.models.fused_weights import FAST_PATH_ARCHITECTURES, SAME_INPUT, base_linear


@dataclass
class Block:
    """The weights of one transformer block.

    `norms` are the RMS norms before attention and before the gated layer, `qk_norms` those of
    queries and keys (Qwen3).
    """

    qkv: FusedLoraLinear
    out: FusedLoraLinear
    gate_up: FusedLoraLinear
    down: FusedLoraLinear
    norms: tuple[torch.Tensor, torch.Tensor]
    qk_norms: tuple[torch.Tensor, torch.Tensor] | None

    @property
    def projections(self) -> tuple[FusedLoraLinear, ...]:
        """The four products, in the order of the computation."""
        return self.qkv, self.out, self.gate_up, self.down


def read_block(module: nn.Module) -> Block:
    """Return the weights of one block of a transformers model."""
    block = cast(Any, module)
    attention, mlp = block.self_attn, block.mlp
    return Block(
        qkv=FusedLoraLinear([getattr(attention, name) for name in SAME_INPUT[0]]),
        out=FusedLoraLinear([attention.o_proj]),
        gate_up=FusedLoraLinear([getattr(mlp, name) for name in SAME_INPUT[1]]),
        down=FusedLoraLinear([mlp.down_proj]),
        norms=(block.input_layernorm.weight, block.post_attention_layernorm.weight),
        qk_norms=(
            (attention.q_norm.weight, attention.k_norm.weight)
            if hasattr(attention, "q_norm")
            else None
        ),
    )


def has_fast_path(model: PreTrainedModel) -> bool:
    """Return whether `Decoder` can compute what `model` computes.

    That needs one of `FAST_PATH_ARCHITECTURES` without sliding windows; whole, frozen weights;
    plain adapters on all linear layers or on none; the weights side by side, as
    `lab.models.fused_weights.fuse_projection_weights` stores them; and a reference of the same weights,
    which a fully trained model has not.
    """
    config = cast(Any, model.base_model).config
    if (
        config.model_type not in FAST_PATH_ARCHITECTURES
        or config.hidden_act != "silu"
        or getattr(config, "use_sliding_window", False)
        or (config.model_type == "mistral" and config.sliding_window)
        or is_sharded(model)
        or has_initial_weights(model)
    ):
        return False
    blocks = list(cast(Any, model.base_model).layers)
    linears = [
        m
        for block in blocks
        for m in (*block.self_attn.children(), *block.mlp.children())
        if hasattr(m, "in_features")
    ]
    adapted = sum(isinstance(m, LoraLinear) for m in linears)
    if adapted not in (0, len(linears)) or not all(map(_is_frozen_linear, linears)):
        return False
    if adapted and not all(_has_plain_lora(m, linears[0]) for m in linears):
        return False
    return all(
        are_side_by_side([base_linear(getattr(owner, name)).weight for name in names])
        for block in blocks
        for owner, names in zip((block.self_attn, block.mlp), SAME_INPUT)
    )


def _is_frozen_linear(layer: nn.Module) -> bool:
    """Return whether the layer, under its adapter, is a plain linear layer that does not train."""
    linear = layer.base_layer if isinstance(layer, LoraLinear) else layer
    return type(linear) is nn.Linear and not linear.weight.requires_grad


def _has_plain_lora(layer: Any, first: Any) -> bool:
    """Return whether the layer's adapters are s·B·A alone, with the factors s of the layer `first`:
    without dropout, bias or a variant such as DoRA.
    """
    return bool(
        not layer.lora_variant
        and layer.scaling == first.scaling
        and all(type(dropout) is nn.Identity for dropout in layer.lora_dropout.values())
        and all(b.bias is None for b in layer.lora_B.values())
    )
