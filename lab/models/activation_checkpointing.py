"""TODO: one line."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer


def enable_activation_checkpointing(model: torch.nn.Module) -> None:
    """From now on every block keeps only its input for the way back, where the rest is computed
    again (arXiv 1604.06174); gradients are the same.

    transformers' own switch acts in training mode alone, in which a model would also drop out; the
    lab's models are always in evaluation mode.
    """
    for block in [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]:
        block.gradient_checkpointing = True  # `lab.engine.llama` reads this.
        block.forward = partial(_recomputed, block.forward)


def _recomputed(forward: Callable, *inputs: Any, **options: Any) -> Any:
    if torch.is_grad_enabled():
        return checkpoint(
            forward, *inputs, use_reentrant=False, preserve_rng_state=False, **options
        )
    return forward(*inputs, **options)
