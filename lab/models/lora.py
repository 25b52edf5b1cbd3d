"""Where LoRA goes in a model, and what is said where it cannot go."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from peft import LoraConfig, PeftModel
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import ParamWrapper
from torch.nn.functional import linear
from transformers.pytorch_utils import Conv1D

from lab.config.methods import ALL_LINEAR, RunConfig
from lab.errors import LabError

warnings.filterwarnings(
    "ignore",
    r"The following (rank|alpha)_pattern keys did not match any targeted module",
    RuntimeWarning,
)  # peft's own, of experts.

LINEAR = (torch.nn.Linear, Conv1D)
CONVOLUTIONS = (
    torch.nn.Conv1d,
    torch.nn.Conv2d,
    torch.nn.Conv3d,
    torch.nn.ConvTranspose1d,
    torch.nn.ConvTranspose2d,
    torch.nn.ConvTranspose3d,
)
BYPASSED = {
    "mamba": ("dt_proj", "out_proj"),
    "falcon_mamba": ("dt_proj", "out_proj"),
    "jamba": ("dt_proj",),
    "mamba2": ("out_proj",),
    "falcon_h1": ("out_proj",),
    "nemotron_h": ("out_proj",),
}
"""Linear layers by model type whose weights the model, or a fused kernel of it, reads past an
adapter, which then does nothing; peft refuses some.
"""


def lora_config(
    config: RunConfig, task_type: str | None, base: torch.nn.Module | None = None
) -> LoraConfig:
    """LoRA of the config's rank, without dropout: on every linear layer of `base` but its
    vocabulary, or on the layers that `lora_targets` names.
    """
    base = base.get_base_model() if isinstance(base, PeftModel) else base
    if config.lora_targets == ALL_LINEAR:
        targets, excluded = "all-linear", [] if base is None else unfit(base)
    else:
        targets, excluded = [name.strip() for name in config.lora_targets.split(",")], []
        if base is not None:
            _check_names(targets, base)
    transposed = base is not None and any(
        isinstance(m, Conv1D) for m in base.modules()
    )  # GPT-2 keeps its matrices the other way round.
    return LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=0.0,
        target_modules=targets,
        exclude_modules=excluded or None,
        task_type=task_type,
        fan_in_fan_out=transposed,
    )


def unfit(base: torch.nn.Module) -> list[str]:
    """Linear layers that LoRA leaves as they are: those whose class computes something else, such
    as routers, and those of `BYPASSED`.
    """
    fused = BYPASSED.get(base.config.model_type, ())
    return [
        name
        for name, m in base.named_modules()
        if isinstance(m, LINEAR) and (_own_forward(m) or name.rpartition(".")[2] in fused)
    ]


def _own_forward(module: torch.nn.Module) -> bool:
    """Whether a subclass of a linear layer returns something else than the product: a router, say.
    4-bit layers return the product.
    """
    if type(module).forward in (torch.nn.Linear.forward, Conv1D.forward) or type(
        module
    ).__module__.startswith("bitsandbytes"):
        return False
    try:
        x = torch.ones(
            1, module.weight.shape[1], dtype=module.weight.dtype, device=module.weight.device
        )
        with torch.no_grad():
            return not torch.allclose(
                module(x), linear(x, module.weight, module.bias), rtol=1e-2
            )  # The same product in another order of sums.
    except Exception:  # It takes other arguments, or returns no tensor.
        return True


def _check_names(names: list[str], base: torch.nn.Module) -> None:
    vocabulary = {
        id(m)
        for m in (
            base.get_input_embeddings(),
            getattr(base, "get_output_embeddings", lambda: None)(),
        )
    }
    for name in names:
        meant = [m for path, m in base.named_modules() if path == name or path.endswith(f".{name}")]
        if any(id(m) in vocabulary for m in meant):
            raise LabError(
                f"lora_targets names '{name}', the vocabulary of this model, which the lab leaves"
                f" as it is. {_choices(base)}"
            )
        if name.rpartition(".")[2] in BYPASSED.get(base.config.model_type, ()):
            raise LabError(
                f"lora_targets names '{name}', whose weights a model of type"
                f" '{base.config.model_type}' reads past an adapter. {_choices(base)}"
            )
        if not meant and not _experts(base):  # Of fused experts peft knows the former names.
            raise LabError(
                f"lora_targets names '{name}', but this model has no such layer. {_choices(base)}"
            )


def _choices(base: torch.nn.Module) -> str:
    """Which names can be given, as a sentence."""
    base = base.get_base_model() if isinstance(base, PeftModel) else base
    head = getattr(base, "get_output_embeddings", lambda: None)()
    names = {
        name.rpartition(".")[2]
        for name, m in base.named_modules()
        if isinstance(m, LINEAR) and m is not head and not _own_forward(m)
    }
    return (
        f"Accepted: {ALL_LINEAR}, or names from"
        f" {', '.join(sorted(names - set(BYPASSED.get(base.config.model_type, ()))))} with commas"
        " between them."
    )


@contextmanager
def refusals(config: RunConfig, base: torch.nn.Module) -> Iterator[None]:
    """Within it, what peft refuses becomes a `LabError` that names it and the answer."""
    try:
        yield
    except LabError:
        raise
    except (ValueError, TypeError, NotImplementedError, KeyError) as error:
        said = " ".join(str(error).split()).removesuffix(".")[:300]
        raise LabError(
            f"peft cannot put LoRA on a model of type '{base.config.model_type}' with lora_targets"
            f" '{config.lora_targets}' ({said}). Name other layers: --lora-targets NAME,NAME."
            f" {_choices(base)}"
        ) from error


def weights_of(layer: LoraLayer) -> tuple[torch.nn.Module, str]:
    """The module that holds the frozen weights under an adapter, and their name there: an expert's
    may be one of several.
    """
    return layer.get_base_layer(), getattr(layer, "parameter_name", None) or "weight"


def frozen_weights(model: torch.nn.Module) -> list[tuple[LoraLayer, torch.nn.Parameter]]:
    """Each layer with an adapter, and the weight of the base under it."""
    return [(m, getattr(*weights_of(m))) for m in model.modules() if isinstance(m, LoraLayer)]


def shares_weights(model: torch.nn.Module) -> bool:
    """Whether several layers, each with an adapter of its own, stand on one weight, so that no sum
    of base and adapter can take its place (Zamba).
    """
    found = [id(weight) for _, weight in frozen_weights(model)]
    return len(set(found)) < len(found)


def _experts(base: torch.nn.Module) -> dict[int, str]:
    """The stacked weights of experts, all experts in one tensor, by identity, each with its name."""
    known = (*CONVOLUTIONS, torch.nn.Linear, Conv1D, torch.nn.Embedding)
    return {
        id(weight): f"{path}.{name}"
        for path, m in base.named_modules()
        if not isinstance(m, known) and "expert" in f"{path}.{type(m).__name__}".lower()
        for name, weight in m.named_parameters(recurse=False)
        if weight.ndim > 1 and "lora_" not in path
    }


def notes(model: PeftModel) -> list[str]:
    """What a user of "every linear layer" has to know of this model: the experts or layers that
    stay as they are.
    """
    base, found = model.get_base_model(), []
    layers = [(name, m) for name, m in base.named_modules() if isinstance(m, LoraLayer)]
    adapted = {id(m.get_param()) for _, m in layers if isinstance(m, ParamWrapper)}
    if _experts(base).keys() - adapted:
        names = sorted(
            {name.rpartition(".")[2] for name, m in layers if not isinstance(m, ParamWrapper)}
        )
        found.append(
            f"LoRA adapts {', '.join(names)} of this model and leaves its experts as they are: peft"
            f" has none for experts of type '{base.config.model_type}'."
        )
    left = sorted(
        {name.rpartition(".")[2] for name in unfit(base)}
        & set(BYPASSED.get(base.config.model_type, ()))
    )
    if left:
        found.append(
            f"LoRA leaves out {', '.join(left)}, whose weights a model of type"
            f" '{base.config.model_type}' reads past an adapter."
        )
    return found
