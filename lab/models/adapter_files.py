"""Writes and reads adapters in PEFT's format, and fully trained models in that of transformers. A whole
adapter or model is on disk at whatever moment the process is killed, and a file that has changed since
it was written is not read.
"""

import json
import os
import shutil
import warnings
from pathlib import Path

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lab.errors import LabError
from lab.models.tokenizer import VOCABULARY_FILE, vocabulary_identity
from lab.storage.checksums import require_intact, write_with_checksums
from lab.storage.paths import absolute_path

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
MODEL_CONFIG, MODEL_WEIGHTS = "config.json", "model.safetensors"
ADAPTER_FILES = (ADAPTER_CONFIG, ADAPTER_WEIGHTS, VOCABULARY_FILE)


def write_adapter(model: PeftModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Writes the adapter "default" of `model`, and what identifies its tokens, to `folder`;
    `PeftModel.from_pretrained(base, folder)` loads it.
    """
    partial = folder.with_name(f".peft.{os.getpid()}")
    try:
        model.save_pretrained(str(partial), selected_adapters=["default"])
        files = {
            path.name: path.read_bytes() for path in sorted(partial.iterdir()) if path.is_file()
        }
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    config = json.loads(files[ADAPTER_CONFIG])
    if os.path.isdir(base := config["base_model_name_or_path"] or ""):
        config["base_model_name_or_path"] = absolute_path(base)
    # peft writes a set, in another order each time; sorted, equal adapters have equal bytes.
    if isinstance(config["target_modules"], list):
        config["target_modules"].sort()
    files[ADAPTER_CONFIG] = (json.dumps(config, indent=2, sort_keys=True) + "\n").encode()
    write_with_checksums(
        folder,
        files | {VOCABULARY_FILE: (json.dumps(vocabulary_identity(tokenizer)) + "\n").encode()},
    )


def write_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Writes a fully trained model and its tokenizer to `folder`, from which transformers'
    `from_pretrained` loads both.
    """
    copies: dict[
        int, torch.Tensor
    ] = {}  # Training holds all weights in one storage; tied ones stay so.
    state = {
        name: copies.setdefault(weight.data_ptr(), weight.detach().clone())
        for name, weight in model.state_dict().items()
    }
    partial = folder.with_name(f".{folder.name}.saved.{os.getpid()}")
    try:
        model.save_pretrained(partial, state_dict=state)
        tokenizer.save_pretrained(partial)
        files = {
            path.name: path.read_bytes() for path in sorted(partial.iterdir()) if path.is_file()
        }
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    identity = (json.dumps(vocabulary_identity(tokenizer)) + "\n").encode()
    write_with_checksums(folder, files | {VOCABULARY_FILE: identity})


def require_trained(folder: Path) -> None:
    """Raises `LabError` for an adapter that cannot be used, or for a fully trained model that has changed
    since it was written.
    """
    if (folder / ADAPTER_CONFIG).exists() or not (folder / MODEL_CONFIG).exists():
        require_adapter(folder)
        return
    weights = sorted(path.name for path in folder.glob("*.safetensors"))
    remedy = (
        f"python -m lab train --resume --out {folder.parent} writes it again from the checkpoint. "
    )
    require_intact(folder, MODEL_CONFIG, MODEL_WEIGHTS, *weights, VOCABULARY_FILE, remedy=remedy)


def require_adapter(folder: Path) -> None:
    """Raises `LabError` for an adapter that has changed since it was written, lacks its weights, or
    has pickled weights, which may run code when they are read.
    """
    remedy = (
        f"python -m lab train --resume --out {folder.parent} writes it again from the checkpoint. "
    )
    require_intact(folder, ADAPTER_CONFIG, ADAPTER_WEIGHTS, remedy=remedy)
    if (folder / VOCABULARY_FILE).exists():
        require_intact(folder, VOCABULARY_FILE, remedy=remedy)
    if not (folder / ADAPTER_WEIGHTS).is_file():
        pickled = (
            "its weights are pickled (.bin), which may run code"
            if any(folder.glob("*.bin"))
            else f"it has no {ADAPTER_WEIGHTS}"
        )
        raise LabError(f"The adapter in {folder} cannot be used: {pickled}. {remedy.strip()}")


def load_adapter(base: PreTrainedModel, folder: Path, *, trains: bool = False) -> PeftModel:
    """Returns `base` with the adapter in `folder`, which `trains` or is frozen; raises `LabError` when
    the adapter is damaged, is no adapter, or does not fit the base.
    """
    require_adapter(folder)
    try:
        with warnings.catch_warnings():
            # peft would only warn, and leave these layers of the base without an adapter.
            warnings.filterwarnings("error", "Found missing adapter keys")
            return PeftModel.from_pretrained(base, folder, is_trainable=trains)
    except torch.OutOfMemoryError:
        raise
    # json, safetensors, peft and torch raise many kinds for a file that is not an adapter's.
    except Exception as error:
        raise adapter_error(folder, error) from error


def adapter_error(folder: Path, error: Exception) -> LabError:
    """Returns the `LabError` for an exception that reading the adapter in `folder` raised."""
    if "size mismatch" in str(error):
        return LabError(
            f"The adapter of {folder.parent} does not fit its base: its matrices have other shapes."
            " Put back the model that it was trained on."
        )
    reason = " ".join(str(error).split())[:160] or type(error).__name__
    return LabError(
        f"The adapter in {folder} is damaged or is none ({reason}). python -m lab train --resume"
        f" --out {folder.parent} writes it again from the checkpoint."
    )
