"""The adapter from which a run starts, in place of a new one, and its frozen copy, which is part of
the reference.
"""

import os
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, PeftModel
from transformers import PreTrainedModel

from lab.config.adapter_settings import ALL_LINEAR
from lab.config.run_config import RunConfig
from lab.config.schema import declared_settings
from lab.errors import LabError
from lab.models import adapter_files
from lab.models.adapters import REFERENCE_ADAPTER, active_adapter
from lab.models.sources import model_source

OWN_SETTINGS = {
    "lora_rank": "r",
    "lora_alpha": "lora_alpha",
    "lora_dropout": "lora_dropout",
    "use_rslora": "use_rslora",
    "use_dora": "use_dora",
}
"""The settings that an adapter brings itself, and their names in its adapter_config.json."""


def adapter_weights(folder: str) -> str:
    """Return the path of the weights of an adapter."""
    return str(Path(folder) / adapter_files.ADAPTER_WEIGHTS)


def load(base: PreTrainedModel, config: RunConfig) -> PeftModel:
    """Return `base` with the adapter of `config`, which trains, and a frozen copy of it for the
    reference.

    Raises `LabError` for a folder without a LoRA adapter, an adapter of another base, and a setting
    that contradicts the adapter's own.
    """
    folder = _checked_folder(config)
    model = adapter_files.load_adapter(base, folder, trains=True)
    _copy_as_reference(model)
    return model


def add_reference(model: PeftModel, config: RunConfig) -> None:
    """Add to the trained `model` the frozen adapter from which its run started."""
    folder = _checked_folder(config)
    trainable = [weight for weight in model.parameters() if weight.requires_grad]
    try:
        model.load_adapter(str(folder), adapter_name=REFERENCE_ADAPTER, is_trainable=False)
    except Exception as error:  # peft and safetensors raise errors of many kinds.
        raise adapter_files.adapter_error(folder, error) from error
    for weight in trainable:
        weight.requires_grad_(True)


@torch.no_grad()
def _copy_as_reference(model: PeftModel) -> None:
    """Add the adapter "default" once more, frozen, under the name that TRL gives it."""
    model.add_adapter(REFERENCE_ADAPTER, model.peft_config["default"])
    weights = dict(model.named_parameters())
    for name, weight in weights.items():
        if f".{REFERENCE_ADAPTER}." in name:
            weight.copy_(weights[name.replace(f".{REFERENCE_ADAPTER}.", ".default.")])
            weight.requires_grad_(False)
    with active_adapter(model, "default"):
        pass


def _checked_folder(config: RunConfig) -> Path:
    folder = Path(config.adapter)
    if not (folder / adapter_files.ADAPTER_CONFIG).is_file():
        raise LabError(
            f"adapter is '{folder}', but there is no {adapter_files.ADAPTER_CONFIG} in it. Give the"
            " folder of an adapter in PEFT's format, such as RUN/adapter."
        )
    adapter_files.require_adapter(folder)
    try:
        lora: Any = PeftConfig.from_pretrained(str(folder))
    except Exception as error:  # json and peft raise errors of many kinds.
        raise adapter_files.adapter_error(folder, error) from error
    if not isinstance(lora, LoraConfig) or lora.task_type == "SEQ_CLS" or lora.modules_to_save:
        raise LabError(
            f"adapter is '{folder}', which is no LoRA adapter of a language model alone. Give one"
            " that was trained by LoRA, without a head and without whole layers."
        )
    _require_same_base(folder, config, lora.base_model_name_or_path or "")
    _require_no_contradiction(folder, config, lora)
    return folder


def _require_same_base(folder: Path, config: RunConfig, trained_on: str) -> None:
    now = model_source(config.model)
    if trained_on and not _same_source(trained_on, now):
        raise LabError(
            f"adapter is '{folder}', which was trained on '{trained_on}', but the model is"
            f" '{config.model}'. Give --model {trained_on}; if both hold the same weights, correct"
            f" base_model_name_or_path in {folder / adapter_files.ADAPTER_CONFIG}."
        )


def _same_source(one: str, other: str) -> bool:
    """Whether two names are one hub id or one folder."""
    if os.path.isdir(one) and os.path.isdir(other):
        return os.path.samefile(one, other)
    return one == other


def _require_no_contradiction(folder: Path, config: RunConfig, lora: LoraConfig) -> None:
    declared = declared_settings(type(config))
    for name, key in OWN_SETTINGS.items():
        given, own = getattr(config, name), getattr(lora, key)
        if given not in (declared[name].default, own):
            raise LabError(
                f"{name} is {given}, but the adapter in {folder} has {own}, and training goes on with"
                f" it as it is. Leave --{name.replace('_', '-')} out."
            )
    if config.lora_targets != ALL_LINEAR:
        raise LabError(
            f"lora_targets is '{config.lora_targets}', but the adapter in {folder} has its own layers."
            " Leave --lora-targets out."
        )
