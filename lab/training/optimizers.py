"""Makes the optimizer that a config names, and refuses one that this machine lacks."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from itertools import chain
from typing import Any

import torch

from lab.config.run_config import RunConfig
from lab.errors import LabError
from lab.training.flat_params import FlatParameter

MATRIX_OPTIMIZERS = ("muon",)
"""The optimizers that need every weight as a matrix; the others move one long vector."""


def require_optimizer(config: RunConfig, device: torch.device) -> None:
    """Raise `LabError` for an optimizer that needs another device, another package or another torch."""
    if config.optimizer == "adamw_8bit":
        if device.type != "cuda":
            raise LabError(
                f"optimizer is adamw_8bit, which needs a CUDA device, but this run is on the"
                f" {device.type}. Use --optimizer adamw."
            )
        if not find_spec("bitsandbytes"):
            raise LabError(
                "optimizer is adamw_8bit, which needs the Python package bitsandbytes. Install it:"
                " pip install bitsandbytes; or use --optimizer adamw."
            )
    if config.optimizer == "muon" and not hasattr(torch.optim, "Muon"):
        raise LabError(
            f"optimizer is muon, which torch has from 2.9 on; this is torch {torch.__version__}."
            " Update torch, or use --optimizer adamw."
        )


def new_optimizer(
    config: RunConfig,
    device: torch.device,
    weights: Mapping[str, Mapping[str, torch.nn.Parameter]],
    flat_params: Mapping[str, Sequence[FlatParameter]],
) -> torch.optim.Optimizer:
    """Return the optimizer of `config` with one group for each learning rate.

    `weights` are `TrainState.trainable_parameters`, `flat_params` the same as vectors.
    """
    rate, decay = config.learning_rate, config.weight_decay
    if config.optimizer == "muon":
        _require_matrices(weights)
        matrices = [
            {"params": list(chain.from_iterable(vector.views for vector in group))}
            for group in flat_params.values()
        ]
        return torch.optim.Muon(matrices, lr=rate, weight_decay=decay)
    vectors = [{"params": [v.flat for v in group]} for group in flat_params.values()]
    if config.optimizer == "adamw_8bit":
        bitsandbytes: Any = import_module("bitsandbytes")
        optimizer: torch.optim.Optimizer = bitsandbytes.optim.AdamW8bit(
            vectors, lr=rate, weight_decay=decay
        )
        return optimizer
    return torch.optim.AdamW(vectors, lr=rate, weight_decay=decay, fused=device.type == "cuda")


def _require_matrices(weights: Mapping[str, Mapping[str, torch.nn.Parameter]]) -> None:
    for group in weights.values():
        for name, weight in group.items():
            if weight.ndim != 2:
                raise LabError(
                    f"optimizer is muon, which moves matrices only, but {name} has the shape"
                    f" {tuple(weight.shape)}. Use --optimizer adamw."
                )
