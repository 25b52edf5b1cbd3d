"""Full fine-tuning: all weights of a model train, and its reference is a frozen copy of the weights from
which the training started.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch
from torch import nn

_InitialWeights = list[tuple[nn.Parameter, torch.Tensor]]
_INITIAL_WEIGHTS: WeakKeyDictionary[nn.Module, _InitialWeights] = WeakKeyDictionary()


@torch.no_grad()
def keep_initial_weights(model: nn.Module, initial: nn.Module | None = None) -> None:
    """Keep a copy of the weights of `model`, or those of `initial`, a model of the same architecture, as
    the weights of its reference.
    """
    if initial is None:
        pairs = [(weight, weight.detach().clone()) for weight in model.parameters()]
    else:
        weights = dict(initial.named_parameters())
        pairs = [
            (weight, weights[name].detach().to(weight.device, weight.dtype))
            for name, weight in model.named_parameters()
        ]
    _INITIAL_WEIGHTS[model] = pairs


def has_initial_weights(model: nn.Module) -> bool:
    """Return whether the reference of `model` is a copy of its initial weights."""
    return model in _INITIAL_WEIGHTS


@contextmanager
def initial_weights(model: nn.Module) -> Iterator[None]:
    """Give `model` its initial weights within the block; afterwards its own weights are the same tensors
    as before. The 16-bit copies of weights that autocast has made are dropped at both ends.
    """
    pairs = _INITIAL_WEIGHTS[model]
    own = [weight.data for weight, _ in pairs]
    try:
        for weight, initial in pairs:
            weight.data = initial
        torch.clear_autocast_cache()
        yield
    finally:
        for (weight, _), data in zip(pairs, own):
            weight.data = data
        torch.clear_autocast_cache()
