"""Lay out the weights of linear layers that read the same input side by side, for the fast path."""

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import nn

FAST_PATH_ARCHITECTURES = ("llama", "mistral", "qwen2", "qwen3")
"""Model types whose forward pass `lab.engine.llama` computes."""

SAME_INPUT = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Names of the layers of a Llama-like block that read the same input."""


def base_linear(layer: nn.Module) -> nn.Linear:
    """Return the linear layer under a LoRA adapter, or the layer itself."""
    linear = _under_adapter(layer)
    assert isinstance(linear, nn.Linear)
    return linear


def _under_adapter(layer: nn.Module) -> nn.Module:
    return layer.base_layer if isinstance(layer, LoraLinear) else layer


@torch.no_grad()
def fuse_projection_weights(model: nn.Module) -> None:
    """Store the weights of q, k and v of each attention layer as views of one tensor, likewise gate
    and up.

    The fast path (`lab.engine.llama.decoder_of`) needs this: it multiplies by that one tensor. The
    weights keep their values, shapes and parameters, take no more memory, and the model's own
    forward pass stays as it is. The lab's loaders call this once for each model, after it has moved
    to its device. Quantized weights and the models of other architectures stay as they are.
    """
    if getattr(getattr(model, "config", None), "model_type", None) not in FAST_PATH_ARCHITECTURES:
        return
    for module in model.modules():
        for names in SAME_INPUT:
            layers: list[nn.Module] = [
                getattr(module, name) for name in names if hasattr(module, name)
            ]
            if len(layers) == len(names) and all(
                type(_under_adapter(layer)) is nn.Linear for layer in layers
            ):
                _store_side_by_side([base_linear(layer).weight for layer in layers])


def _store_side_by_side(weights: list[torch.Tensor]) -> None:
    """Make `weights` (O_k, I) views of one tensor (ΣO_k, I)."""
    fused = torch.cat([weight.detach() for weight in weights])
    for weight, rows in zip(weights, fused.split([len(weight) for weight in weights])):
        weight.data = rows
