"""Switches LoRA adapters of a model: off for the reference, to another adapter, or merged into the
base weights. A model without adapters trains all its weights: its reference has the initial ones.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from peft import PeftModel

from lab.distributed.fsdp import is_sharded
from lab.models.full_weights import has_initial_weights, initial_weights
from lab.models.lora import frozen_weights, is_mergeable, shares_weights

REFERENCE_ADAPTER = "ref"
"""The name, TRL's, of the frozen copy of the adapter from which a training started."""


@contextmanager
def _same_trainable_weights(model: PeftModel) -> Iterator[None]:
    """Makes the weights trainable again that were trainable before: whenever peft switches, it
    leaves only those of the active adapter trainable.
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    try:
        yield
    finally:
        for p in trainable:
            p.requires_grad_(True)


@contextmanager
def _adapters_off(model: PeftModel) -> Iterator[None]:
    with _same_trainable_weights(model), model.disable_adapter():
        yield


def reference_adapter(model: torch.nn.Module) -> str | None:
    """Returns the name of the adapter that makes `model` the reference; None where the reference is
    the base alone.
    """
    has_one = isinstance(model, PeftModel) and REFERENCE_ADAPTER in model.peft_config
    return REFERENCE_ADAPTER if has_one else None


@contextmanager
def adapter_disabled(model: PeftModel) -> Iterator[None]:
    """Makes `model` the reference within the block: the same base with the adapter off, or with the
    adapter from which the training started; after full fine-tuning, the model with its initial weights.
    """
    if has_initial_weights(model):
        with initial_weights(model):
            yield
        return
    name = reference_adapter(model)
    with _adapters_off(model) if name is None else active_adapter(model, name):
        yield


@contextmanager
def active_adapter(model: PeftModel, adapter: str) -> Iterator[None]:
    """Activates `adapter` in place of the policy's adapter within the block; its weights take
    gradients. A model without adapters stays as it is.
    """
    if not isinstance(model, PeftModel):
        yield
        return
    before = model.active_adapter
    with _same_trainable_weights(model):
        if adapter != before:
            model.set_adapter(adapter)
        try:
            yield
        finally:
            if adapter != before:
                model.set_adapter(before)


@contextmanager
def adapter_merged(model: PeftModel) -> Iterator[None]:
    """Adds the adapter to the base weights within the block, so that a forward pass costs what the
    base costs.

    Afterwards the base weights are the same tensors as before, equal to the bit. No gradient flows
    through the merged weights. Within `adapter_disabled` nothing is added, so the reference is
    sampled. Nothing is merged into 4-bit weights, sharded weights, and weights that layers share,
    and nothing of DoRA: there the adapter stays apart.
    """
    frozen = frozen_weights(model)
    if (
        not isinstance(model, PeftModel)
        or shares_weights(model)
        or is_sharded(model)
        or not is_mergeable(model)
        or not all(weight.is_floating_point() for _, weight in frozen)
    ):
        yield
        return
    originals = [weight.data for _, weight in frozen]
    try:
        with torch.no_grad():
            for (layer, weight), original in zip(frozen, originals):
                for name in () if layer.disable_adapters else layer.active_adapters:
                    if name in layer.lora_A:
                        # Every layer of peft that has LoRA weights has this method; the base class
                        # that they share does not declare it.
                        delta = layer.get_delta_weight(name)  # type: ignore[attr-defined]
                        weight.data = (weight.data.float() + delta.float()).to(original.dtype)
        with _adapters_off(model):
            yield
    finally:
        for (_, weight), original in zip(frozen, originals):
            weight.data = original
