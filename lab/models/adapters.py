"""TODO: one line."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from peft import PeftModel

from lab.distributed.fsdp import is_sharded
from lab.models.lora import frozen_weights, shares_weights


@contextmanager
def _trainable_kept(model: PeftModel) -> Iterator[None]:
    """Afterwards the same weights are trainable as before: peft lets only those of the active
    adapter be, whenever it switches.
    """
    kept = [p for p in model.parameters() if p.requires_grad]
    try:
        yield
    finally:
        for p in kept:
            p.requires_grad_(True)


@contextmanager
def adapter_disabled(model: PeftModel) -> Iterator[None]:
    """Within it, `model` is the reference: the same weights with the adapter off."""
    with _trainable_kept(model), model.disable_adapter():
        yield


@contextmanager
def active_adapter(model: PeftModel, adapter: str) -> Iterator[None]:
    """Within it, `adapter` acts on the base in place of the policy's, and its weights take
    gradients.
    """
    before = model.active_adapter
    with _trainable_kept(model):
        if adapter != before:
            model.set_adapter(adapter)
        try:
            yield
        finally:
            if adapter != before:
                model.set_adapter(before)


@contextmanager
def adapter_merged(model: PeftModel) -> Iterator[None]:
    """Within it, the adapter is added into the base weights, so that a forward pass costs what the
    base costs.

    The base weights are put back as the same tensors, so they are restored to the bit. No gradient
    flows through it. Within `reference` it is the reference that is sampled. Weights in 4 bits,
    sharded ones, and those that layers share stay apart from the adapter.
    """
    frozen = frozen_weights(model)
    if (
        shares_weights(model)
        or is_sharded(model)
        or not all(weight.is_floating_point() for _, weight in frozen)
    ):  # Nothing can be added to a part, or to 4 bits.
        yield
        return
    kept = [weight.data for _, weight in frozen]
    try:
        with torch.no_grad():
            for (layer, weight), before in zip(frozen, kept):
                for name in () if layer.disable_adapters else layer.active_adapters:
                    if name in layer.lora_A:
                        weight.data = (
                            weight.data.float() + layer.get_delta_weight(name).float()
                        ).to(before.dtype)
        with adapter_disabled(model):
            yield
    finally:
        for (_, weight), before in zip(frozen, kept):
            weight.data = before
