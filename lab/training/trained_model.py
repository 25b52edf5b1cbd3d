"""Writes the weights that a run has trained."""

from pathlib import Path

from lab.config.adapter_settings import FULL_RANK
from lab.engine.decode_any_model import base_of
from lab.models import adapter_files
from lab.training.state import TrainState


def save_adapter(run: TrainState, folder: Path) -> None:
    """Write the policy's adapter in PEFT's format, without a critic, which
    `PeftModel.from_pretrained(base, folder)` loads; after full fine-tuning the whole model, which
    transformers' `from_pretrained` loads.
    """
    if run.config.lora_rank == FULL_RANK:
        adapter_files.write_model(base_of(run.model), run.tokenizer, folder)
    else:
        adapter_files.write_adapter(run.model, run.tokenizer, folder)
