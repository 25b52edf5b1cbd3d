"""Decides which layers of a model get LoRA adapters, and names the layers that cannot get one."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
from peft import LoraConfig, PeftModel
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import ParamWrapper
from torch import nn
from torch.nn.functional import linear
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lab.config.adapter_settings import ALL_LINEAR
from lab.config.run_config import RunConfig
from lab.errors import LabError

warnings.filterwarnings(
    "ignore",
    r"The following (rank|alpha)_pattern keys did not match any targeted module",
    RuntimeWarning,
)  # The pattern is peft's own, for fused experts.

LINEAR_CLASSES = (torch.nn.Linear, Conv1D)
BYPASSED_LAYERS = {
    "mamba": ("dt_proj", "out_proj"),
    "falcon_mamba": ("dt_proj", "out_proj"),
    "jamba": ("dt_proj",),
    "mamba2": ("out_proj",),
    "falcon_h1": ("out_proj",),
    "nemotron_h": ("out_proj",),
}
"""Model type → linear layers whose weights the model, or a fused kernel of it, reads without
calling the layer, so that an adapter would do nothing. peft refuses some of them.
"""


def lora_config(
    config: RunConfig, task_type: str | None, base: torch.nn.Module | None = None
) -> LoraConfig:
    """Returns peft's config of LoRA as the config describes it: on every linear layer of `base` but
    its vocabulary, or on the layers that `lora_targets` names.
    """
    base = base.get_base_model() if isinstance(base, PeftModel) else base
    targets: str | list[str] = "all-linear"
    excluded: list[str] = []
    if config.lora_targets != ALL_LINEAR:
        targets = [name.strip() for name in config.lora_targets.split(",")]
        if base is not None:
            _check_names(targets, base)
    elif base is not None:
        excluded = unadapted_layers(base)
    # GPT-2 stores its matrices transposed.
    transposed = base is not None and any(isinstance(m, Conv1D) for m in base.modules())
    return LoraConfig(
        r=config.lora_rank,
        # peft divides it by the rank, so any number will do.
        lora_alpha=config.lora_alpha,  # type: ignore[arg-type]
        lora_dropout=config.lora_dropout,
        use_rslora=config.use_rslora,
        use_dora=config.use_dora,
        target_modules=targets,
        exclude_modules=excluded or None,
        task_type=task_type,
        fan_in_fan_out=transposed,
    )


def unadapted_layers(base: torch.nn.Module) -> list[str]:
    """Returns the names of the linear layers that get no adapter: those whose class computes
    something else, such as routers, and those of `BYPASSED_LAYERS`.
    """
    fused = BYPASSED_LAYERS.get(_model_type(base), ())
    return [
        name
        for name, m in base.named_modules()
        if isinstance(m, LINEAR_CLASSES) and (_own_forward(m) or name.rpartition(".")[2] in fused)
    ]


def _model_type(base: torch.nn.Module) -> str:
    return cast(PreTrainedModel, base).config.model_type


def _embeddings(base: torch.nn.Module, side: str) -> torch.nn.Module | None:
    """The module of the vocabulary on the "input" or "output" side; None where it has none."""
    getter = getattr(base, f"get_{side}_embeddings", None)
    return getter() if getter else None


def _own_forward(module: torch.nn.Module) -> bool:
    """Whether a subclass of a linear layer returns something else than the product, as a router
    does. 4-bit layers return the product.
    """
    if type(module).forward in (torch.nn.Linear.forward, Conv1D.forward) or type(
        module
    ).__module__.startswith("bitsandbytes"):
        return False
    try:
        weight, bias = module.weight, module.bias
        assert isinstance(weight, torch.Tensor) and not isinstance(bias, torch.nn.Module)
        x = torch.ones(1, weight.shape[1], dtype=weight.dtype, device=weight.device)
        with torch.no_grad():
            # A subclass may add up the same product in another order.
            return not torch.allclose(module(x), linear(x, weight, bias), rtol=1e-2)
    except Exception:  # The layer takes other arguments, or returns no tensor.
        return True


def _check_names(names: list[str], base: torch.nn.Module) -> None:
    vocabulary = {id(_embeddings(base, "input")), id(_embeddings(base, "output"))}
    for name in names:
        layers = [
            m for path, m in base.named_modules() if path == name or path.endswith(f".{name}")
        ]
        if any(id(m) in vocabulary for m in layers):
            raise LabError(
                f"lora_targets names '{name}', the vocabulary of this model, which the lab leaves"
                f" as it is. {_choices(base)}"
            )
        if name.rpartition(".")[2] in BYPASSED_LAYERS.get(_model_type(base), ()):
            raise LabError(
                f"lora_targets names '{name}', whose weights a model of type '{_model_type(base)}'"
                f" reads past an adapter. {_choices(base)}"
            )
        # peft knows the names that the layers of fused experts had before they were fused.
        if not layers and not _experts(base):
            raise LabError(
                f"lora_targets names '{name}', but this model has no such layer. {_choices(base)}"
            )


def _choices(base: torch.nn.Module) -> str:
    """The accepted names of layers, as a sentence."""
    base = base.get_base_model() if isinstance(base, PeftModel) else base
    head = _embeddings(base, "output")
    names = {
        name.rpartition(".")[2]
        for name, m in base.named_modules()
        if isinstance(m, LINEAR_CLASSES) and m is not head and not _own_forward(m)
    }
    return (
        f"Accepted: {ALL_LINEAR}, or names from"
        f" {', '.join(sorted(names - set(BYPASSED_LAYERS.get(_model_type(base), ()))))} with commas"
        " between them."
    )


@contextmanager
def lora_errors(config: RunConfig, base: torch.nn.Module) -> Iterator[None]:
    """Turns peft's errors within the block into a `LabError` with the reason and a remedy."""
    try:
        yield
    except LabError:
        raise
    except (ValueError, TypeError, NotImplementedError, KeyError) as error:
        reason = " ".join(str(error).split()).removesuffix(".")[:300]
        raise LabError(
            f"peft cannot put LoRA on a model of type '{_model_type(base)}' with lora_targets"
            f" '{config.lora_targets}' ({reason}). Name other layers: --lora-targets NAME,NAME."
            f" {_choices(base)}"
        ) from error


def frozen_weight_of(layer: LoraLayer) -> tuple[torch.nn.Module, str]:
    """Returns the module that holds the frozen weights under an adapter, and their name in it; the
    module of an expert may hold several.
    """
    return layer.get_base_layer(), getattr(layer, "parameter_name", None) or "weight"


def frozen_weights(model: torch.nn.Module) -> list[tuple[LoraLayer, torch.nn.Parameter]]:
    """Returns each layer with an adapter, with the weight of the base under it."""
    return [(m, getattr(*frozen_weight_of(m))) for m in model.modules() if isinstance(m, LoraLayer)]


def shares_weights(model: torch.nn.Module) -> bool:
    """Returns whether several layers, each with an adapter of its own, share one weight (as in
    Zamba), so that no sum of base and adapter can replace the weight.
    """
    identities = [id(weight) for _, weight in frozen_weights(model)]
    return len(set(identities)) < len(identities)


def is_mergeable(model: torch.nn.Module) -> bool:
    """Returns whether every adapter is the sum s·B·A, which can be added to a weight; DoRA's is not."""
    return not any(m.lora_variant for m in model.modules() if isinstance(m, LoraLayer))


def _experts(base: torch.nn.Module) -> dict[int, str]:
    """The names of the tensors that stack the weights of all experts, by the tensor's identity."""
    convolutions = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    transposed = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    known = (*convolutions, *transposed, nn.Linear, Conv1D, nn.Embedding)
    return {
        id(weight): f"{path}.{name}"
        for path, m in base.named_modules()
        if not isinstance(m, known) and "expert" in f"{path}.{type(m).__name__}".lower()
        for name, weight in m.named_parameters(recurse=False)
        if weight.ndim > 1 and "lora_" not in path
    }


def lora_notes(model: PeftModel) -> list[str]:
    """Returns notes for a run that adapts every linear layer: the experts and layers of this model
    that get no adapter.
    """
    base = model.get_base_model()
    notes = []
    layers = [(name, m) for name, m in base.named_modules() if isinstance(m, LoraLayer)]
    adapted = {id(m.get_param()) for _, m in layers if isinstance(m, ParamWrapper)}
    if _experts(base).keys() - adapted:
        names = sorted(
            {name.rpartition(".")[2] for name, m in layers if not isinstance(m, ParamWrapper)}
        )
        notes.append(
            f"LoRA adapts {', '.join(names)} of this model and leaves its experts as they are: peft"
            f" has none for experts of type '{_model_type(base)}'."
        )
    left = sorted(
        {name.rpartition(".")[2] for name in unadapted_layers(base)}
        & set(BYPASSED_LAYERS.get(_model_type(base), ()))
    )
    if left:
        notes.append(
            f"LoRA leaves out {', '.join(left)}, whose weights a model of type"
            f" '{_model_type(base)}' reads past an adapter."
        )
    return notes
