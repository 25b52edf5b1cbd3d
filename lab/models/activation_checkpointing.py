"""Recomputes activations in backward instead of keeping them (arXiv 1604.06174)."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer


def enable_activation_checkpointing(model: torch.nn.Module, *, random: bool = False) -> None:
    """Makes every block save only its input for backward, which then recomputes the rest; the
    gradients are the same. `random` says that blocks draw random numbers, such as a dropout's,
    which have to be the same again.

    transformers' own switch acts in training mode alone, which would also turn dropout on; the
    lab's models are always in evaluation mode.
    """
    for block in [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]:
        block.gradient_checkpointing = True  # `lab.engine.llama` reads this.
        block.forward = partial(_recomputed, random, block.forward)


def _recomputed(random: bool, forward: Callable, *inputs: Any, **options: Any) -> Any:
    if torch.is_grad_enabled():
        return checkpoint(
            forward, *inputs, use_reentrant=False, preserve_rng_state=random, **options
        )
    return forward(*inputs, **options)
