"""Where a run folder holds the weights that it has trained: an adapter in PEFT's format, or after full
fine-tuning a whole model in that of transformers.
"""

from pathlib import Path

from lab.config.adapter_settings import ADAPTER_FOLDER, MODEL_FOLDER

_CONFIG_FILES = {ADAPTER_FOLDER: "adapter_config.json", MODEL_FOLDER: "config.json"}


def policy_config_file(run: Path) -> Path | None:
    """Return the config of the adapter or of the whole model that the run in a folder has trained; None
    where it has neither yet.
    """
    files = (run / folder / name for folder, name in _CONFIG_FILES.items())
    return next((file for file in files if file.is_file()), None)
