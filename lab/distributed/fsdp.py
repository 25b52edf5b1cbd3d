"""Shards a base model that does not fit on one device (FSDP, arXiv 2304.11277).

Each rank keeps its shard of the frozen weights, and a layer is whole only while it is used. The
trained weights stay whole in every rank: adapters are tiny, and so are their gradients and
optimizer states. The matrix of the vocabulary stays whole too, because computing log-probabilities,
where memory is highest, needs all of it. Every rank has to make the same number of passes through
the model, or the ranks wait for each other for ever.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import psutil
import torch
from peft import PeftModel
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from lab.config.methods import method_of
from lab.config.run_config import RunConfig
from lab.distributed import collectives
from lab.distributed.launcher import require_launched
from lab.errors import LabError

WHOLE_LAYERS_SHARE = 0.5
"""Most of the free memory that whole layers take while completions are sampled. Keys, values and logits
need the rest.
"""


def require_shardable(config: RunConfig) -> None:
    """Raise `LabError` for a run that cannot be sharded: a run in one process, and a run with weights in
    4 bits. Accept every run without `shard`, unless the config of `accelerate launch` asks for it.
    """
    require_launched(config, os.environ)
    if not config.shard:
        return
    if collectives.world_size() == 1:
        raise LabError(
            "shard is on, but this run has one process, which would hold all weights anyway. Start"
            " several, one for each GPU: torchrun --nproc-per-node 2 -m lab train"
            f" {method_of(config)} --shard … Or leave --shard out."
        )
    if config.quantization:
        raise LabError(
            f"shard is on and quantization is '{config.quantization}', but weights in 4 bits cannot"
            " be sharded. Use one of the two."
        )


def shard_model(model: PeftModel, device: torch.device) -> None:
    """Keep this rank's shard of the frozen weights of every block, on `device`.

    A block is moved to the device whole, then sharded. An embedding that is not also the output
    matrix of the vocabulary is sharded like a block. All other weights stay where they are.
    """
    base = cast(PreTrainedModel, model.get_base_model())
    trunk, head = base.base_model, base.get_output_embeddings()
    units: list[torch.nn.Module] = [
        m for m in trunk.modules() if isinstance(m, GradientCheckpointingLayer)
    ]
    if not units:
        raise LabError(
            f"shard is on, but the blocks of a model of type '{base.config.model_type}' are not"
            " known. Leave --shard out."
        )
    embedding = base.get_input_embeddings()
    if head is None or head.weight is not embedding.weight:
        units.append(embedding)
    mesh = init_device_mesh(device.type, (collectives.world_size(),))
    for unit in units:
        fully_shard(
            unit,
            mesh=mesh,
            ignored_params={weight for weight in unit.parameters() if weight.requires_grad},
        )
    fully_shard(
        trunk,
        mesh=mesh,
        ignored_params={weight for weight in trunk.parameters() if not isinstance(weight, DTensor)},
    )


def is_sharded(model: torch.nn.Module) -> bool:
    """Return whether other ranks hold shards of the model's weights."""
    return any(isinstance(weight, DTensor) for weight in model.parameters())


@contextmanager
def whole_layers(model: torch.nn.Module) -> Iterator[None]:
    """Within it a layer stays whole after its first pass, so that the steps of decoding gather nothing,
    if all layers fit into the free memory of every rank; otherwise, and for a model without shards,
    nothing changes. Every rank has to enter it.
    """
    # The first contains the others, and stays whole between passes anyway.
    layers = [module for module in model.modules() if isinstance(module, FSDPModule)][1:]
    if not layers or collectives.all_reduce_max_int(not _fit_whole(layers)):
        yield
        return
    for layer in layers:
        layer.set_reshard_after_forward(False, recurse=False)
    try:
        yield
    finally:
        for layer in layers:
            layer.set_reshard_after_forward(True, recurse=False)
            layer.reshard()


def _fit_whole(layers: Sequence[torch.nn.Module]) -> bool:
    """Return whether the memory of this rank's device has room for these layers as a whole."""
    shards = [
        weight for layer in layers for weight in layer.parameters() if isinstance(weight, DTensor)
    ]
    device = shards[0].to_local().device
    free = (
        torch.cuda.mem_get_info(device)[0]
        if device.type == "cuda"
        else psutil.virtual_memory().available // collectives.world_size()
    )
    needed = sum(weight.numel() * weight.element_size() for weight in shards)
    return needed <= WHOLE_LAYERS_SHARE * free


def bytes_here(model: torch.nn.Module) -> int:
    """Return the bytes of the model's weights that this rank holds."""
    local = (
        weight.to_local() if isinstance(weight, DTensor) else weight
        for weight in model.parameters()
    )
    return sum(weight.numel() * weight.element_size() for weight in local)
