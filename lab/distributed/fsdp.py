"""For a model that does not fit on one device: each of a run's processes keeps its part of the
frozen base, and a layer is whole only while it is used.

This is torch's own FSDP (arXiv 2304.11277) on the frozen weights alone. What trains stays whole in
every process, as without it: adapters are tiny, and so are their gradients and optimizer states.
The matrix of the vocabulary stays whole too: where log-probabilities are made, which is where
memory is highest, all of it is needed. Every process has to make the same number of passes through
the model, or they wait for each other for ever.
"""

import torch
from peft import PeftModel
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from transformers.modeling_layers import GradientCheckpointingLayer

from lab.config.methods import METHODS, method_of
from lab.config.run_config import RunConfig
from lab.distributed import collectives
from lab.errors import LabError


def require_shardable(config: RunConfig) -> None:
    """Raise `LabError` for a run that cannot be sharded: a run in one process, a run of a method
    that is not `shardable`, and a run with weights in 4 bits. Accept every run without `shard`.
    """
    if not config.shard:
        return
    method = METHODS[method_of(config)]
    if collectives.world_size() == 1:
        raise LabError(
            "shard is on, but this run has one process, which would hold all weights anyway. Start"
            " several, one for each GPU: torchrun --nproc-per-node 2 -m lab train"
            f" {method.name} --shard … Or leave --shard out."
        )
    if not method.shardable:
        shardable = ", ".join(spec.name for spec in METHODS.values() if spec.shardable)
        raise LabError(
            f"shard is on, but processes of {method.name} make different numbers of passes in one"
            f" update. Methods that can be sharded: {shardable}. Or leave --shard out."
        )
    if config.quantization:
        raise LabError(
            f"shard is on and quantization is '{config.quantization}', but weights in 4 bits cannot"
            " be sharded. Use one of the two."
        )


def shard_model(model: PeftModel, device: torch.device) -> None:
    """Leave this process its part of every block's frozen weights, on `device`: a block is moved
    there whole, cut, and the other parts dropped.

    An embedding that is not the vocabulary's matrix as well is cut like a block. The rest stays
    where it is.
    """
    base = model.get_base_model()
    trunk, head = base.base_model, base.get_output_embeddings()
    units = [m for m in trunk.modules() if isinstance(m, GradientCheckpointingLayer)]
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
    """Whether other processes hold parts of the model's weights."""
    return any(isinstance(weight, DTensor) for weight in model.parameters())


def bytes_here(model: torch.nn.Module) -> int:
    """Bytes of the model's weights that lie in this process."""
    local = (
        weight.to_local() if isinstance(weight, DTensor) else weight
        for weight in model.parameters()
    )
    return sum(weight.numel() * weight.element_size() for weight in local)
