"""Exports a trained adapter: merged into its base as a plain model, or published on the hub."""

import json
import os
import shutil
import tempfile
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoConfig

from lab.config.adapter_settings import FULL_RANK, MODEL_FOLDER
from lab.config.methods import method_of
from lab.errors import LabError
from lab.models.adapter_files import ADAPTER_CONFIG, ADAPTER_FILES
from lab.models.download import MODEL_SOURCES
from lab.models.lora import shares_weights
from lab.models.sources import model_source
from lab.models.tokenizer import load_tokenizer
from lab.runs.folder import RunFolder
from lab.serving.load import load_run
from lab.serving.model_card import model_card
from lab.serving.run_report import CARD


def merge(folder: RunFolder, out: Path) -> Path:
    """Writes a run's policy as a plain model in Hugging Face's format to `out`, and returns `out`.

    The sum W + BA is computed in float32, and the weights are stored in the dtype in which the base
    stores its own. Raises `LabError` where `out` exists, the run has no adapter, or layers share
    weights.
    """
    if out.exists():
        raise LabError(f"{out} exists already. Give a folder that does not.")
    config, model = load_run(folder, "cpu", with_reference=False)
    if shares_weights(model):
        raise LabError(
            f"Layers of '{config.model}' share weights, each with an adapter of its own, so no"
            " plain model holds their sum. Use the base with the adapter beside it:"
            f" PeftModel.from_pretrained(base, '{folder.path / 'adapter'}')."
        )
    merged = model.merge_and_unload() if isinstance(model, PeftModel) else model
    merged.to(AutoConfig.from_pretrained(model_source(config.model)).dtype or torch.float32)
    partial = out.with_name(f".{out.name}.partial")
    try:
        merged.save_pretrained(partial)
        load_tokenizer(config.model).save_pretrained(partial)
        os.replace(partial, out)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise LabError(
            f"Could not write {out} ({error}). Free some disk space or give another folder."
        ) from error
    return out


def push(folder: RunFolder, name: str, public: bool = False) -> str:
    """Publishes a run's adapter on the hub as `name` (owner/name), private unless `public`, and
    returns its address.

    It uses the hub's own login (hf auth login). Raises `LabError` for a base that others could not
    load, and when the hub cannot be reached or refuses.
    """
    config, adapter = folder.config, folder.path / "adapter"
    if name.count("/") != 1 or not all(name.split("/")):
        raise LabError(f"'{name}' is no name on the hub. Give owner/name.")
    if config.lora_rank == FULL_RANK:
        raise LabError(
            f"{folder.path} has no adapter: it trained all weights (lora_rank {FULL_RANK}). Upload the"
            f" whole model: hf upload {name} {folder.path / MODEL_FOLDER}"
        )
    if not (adapter / "adapter_config.json").is_file():
        raise LabError(
            f"{folder.path} has no adapter yet: it is {folder.state}. Let it finish, or stop it:"
            f" python -m lab control {folder.path} stop"
        )
    base = MODEL_SOURCES[config.model].hub if config.model in MODEL_SOURCES else config.model
    if base == "embedded" or Path(base).is_dir():
        raise LabError(
            f"The base of this run, '{config.model}', lies on this machine alone, so nobody else"
            " could load the adapter. Merge the two and upload the folder: python -m lab merge"
            f" {folder.path} OUT, then hf upload {name} OUT"
        )
    with tempfile.TemporaryDirectory(prefix="alignment-lab-") as temporary:
        _write_published_files(folder, base, Path(temporary))
        return _upload(
            Path(temporary), name, f"{method_of(config)} adapter for {base}", public, adapter
        )


def _write_published_files(folder: RunFolder, base: str, out: Path) -> None:
    """Write the adapter, with the hub's name of its base, and a model card to the folder `out`."""
    adapter = folder.path / "adapter"
    for file in ADAPTER_FILES:
        if (adapter / file).is_file():
            shutil.copyfile(adapter / file, out / file)
    adapter_config = json.loads((adapter / ADAPTER_CONFIG).read_text("utf-8")) | {
        "base_model_name_or_path": base
    }
    (out / ADAPTER_CONFIG).write_text(
        json.dumps(adapter_config, indent=1, sort_keys=True) + "\n", "utf-8"
    )
    (out / CARD).write_text(model_card(folder, base), "utf-8")


def _upload(folder: Path, name: str, message: str, public: bool, adapter: Path) -> str:
    from huggingface_hub import HfApi

    try:
        api = HfApi()
        api.create_repo(name, private=not public, exist_ok=True)
        return str(api.upload_folder(repo_id=name, folder_path=folder, commit_message=message))
    # No network, no login, no right to write there: the hub's client says which.
    except Exception as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise LabError(
            f"The hub did not take {name} ({first}). Go online and log in (hf auth login); the"
            f" adapter stays in {adapter}."
        ) from error
