"""Finds the folder or hub id of a model name, and refuses folders that cannot be loaded safely."""

import re
from pathlib import Path
from typing import Any

from lab.errors import LabError
from lab.models.download import MODEL_SOURCES, fetched_folder

EMBEDDED = Path(__file__).parents[1] / "assets" / "embedded_model"


def model_source(name: str) -> str:
    """Returns the folder or hub id of a model name; raises `LabError` for a path that does not
    exist, and for a folder without safetensors weights of a model.
    """
    if name == "embedded":
        return str(EMBEDDED)
    if name in MODEL_SOURCES:
        return str(fetched_folder(name))
    if name and Path(name).is_dir():
        _refuse_unfit(Path(name))
        return name
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise LabError(
            f"No model folder at '{name}'. Give 'embedded', a folder with config.json and"
            " model.safetensors, a hub id such as owner/name, or one of those that python -m lab"
            f" fetch gets: {', '.join(MODEL_SOURCES)}."
        )
    return name


def _refuse_unfit(folder: Path) -> None:
    """Raises `LabError` for a folder that holds an adapter alone, or weights that only Python's
    pickle reads, which may run code.
    """
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        raise LabError(
            f"{folder} holds an adapter, not a model. Give the base that it was trained on, or"
            " merge the two: python -m lab merge RUN OUT"
        )
    if any(folder.glob("*.bin")) and not any(folder.glob("*.safetensors")):
        raise LabError(
            f"The weights in {folder} are pickled (.bin), which may run code when they are read, so"
            " the lab does not read them. Save them as safetensors: model.save_pretrained(FOLDER)"
            " of transformers 5 does so."
        )


def load_pretrained(loader: Any, name: str, **options: object) -> Any:
    """Returns what a class of transformers (`loader`) loads from the model with a name; raises
    `LabError` where that fails. No code that comes with a model is run.
    """
    try:
        return loader.from_pretrained(model_source(name), trust_remote_code=False, **options)
    except (LabError, MemoryError):
        raise
    # transformers, safetensors and torch raise many kinds for files that are cut short, of another
    # kind, or do not fit each other.
    except Exception as error:
        if re.search("out of memory|allocate memory", str(error)):
            raise
        raise LabError(
            f"Could not load '{name}' ({_reason(error)}). Give 'embedded', a folder in"
            " Hugging Face format with safetensors weights, or a hub id that this machine can"
            " reach."
        ) from error


def _reason(error: Exception) -> str:
    """The first line of an error, or in words what transformers says in a table."""
    if "ignore_mismatched_sizes" in str(error):
        return "its weights have other shapes than its config.json says"
    return next(iter(str(error).splitlines()), "") or type(error).__name__
