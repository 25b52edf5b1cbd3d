"""Identifies the data and the base model of a run, so that a run does not continue with other data or
weights than at its start.
"""

import hashlib
import re
from pathlib import Path
from typing import Any

from lab.config.adapter_settings import MODEL_FOLDER
from lab.config.run_config import OfflineConfig, RunConfig
from lab.errors import LabError
from lab.models.sources import model_source
from lab.models.starting_adapter import adapter_weights
from lab.models.weights_fingerprint import weights_fingerprint
from lab.storage.paths import find_run
from lab.tasks.registry import TASKS

HUB_PATTERN = re.compile(r"(\w[\w.-]*/[\w.-]+?)(?::([\w.-]+))?")
FILE_PATTERN = re.compile(r"\.(jsonl|json|csv|parquet|gz)$", re.IGNORECASE)


def data_identities(config: RunConfig) -> dict[str, dict[str, Any]]:
    """Return for each setting that names data its value ("source") and the identity of the content:
    the bytes and the SHA-256 of a file, the fingerprint of a data set on the hub.

    A source that does not exist, or has no identity, gets no entry: the code that reads it raises the
    error.
    """
    identity_by_knob = {
        "data": _identity_of(_data(config)),
        "eval_pairs": _identity_of(config.eval_pairs),
        "task": _identity_of(config.task if config.task not in TASKS else ""),
        "reward_from": _identity_of(_reward_model(config)),
        "model": _base_weights(config.model),
        "adapter": _identity_of(adapter_weights(config.adapter) if config.adapter else ""),
    }
    return {knob: content for knob, content in identity_by_knob.items() if content}


def _data(config: RunConfig) -> str:
    """The file or data set of an offline run: its own, or the pairs that its task ships."""
    if not isinstance(config, OfflineConfig):
        return ""
    shipped = TASKS[config.task].pairs_path if config.task in TASKS else None
    return config.data or str(shipped or "")


def _reward_model(config: RunConfig) -> str:
    """The weights file of the reward model that scores a run's completions, empty for none."""
    name = getattr(config, "reward_from", "gold")
    try:
        if name in ("gold", ""):
            return ""
        run = find_run(name)
        whole = run / MODEL_FOLDER / "model.safetensors"
        return str(whole if whole.is_file() else run / "adapter" / "adapter_model.safetensors")
    except LabError:
        return ""


def _base_weights(model: str) -> dict[str, Any]:
    """The fingerprint of the base's weights where they lie in a local folder; empty for a hub id."""
    try:
        folder = Path(model_source(model))
        fingerprint = weights_fingerprint(folder) if folder.is_dir() else ""
    except (LabError, OSError):
        return {}
    return {"source": str(folder), "fingerprint": fingerprint} if fingerprint else {}


def _identity_of(source: str) -> dict[str, Any]:
    path = Path(source)
    try:
        if path.is_file():
            with path.open("rb") as file:
                return {
                    "source": source,
                    "bytes": path.stat().st_size,
                    "sha256": hashlib.file_digest(file, "sha256").hexdigest(),
                }
    except OSError:
        return {}
    hub = HUB_PATTERN.fullmatch(source) if not FILE_PATTERN.search(source) else None
    fingerprint = _fingerprint(*hub.groups()) if hub else ""
    return {"source": source, "fingerprint": fingerprint} if fingerprint else {}


def _fingerprint(name: str, split: str | None) -> str:
    """The fingerprint of the package datasets: it depends on the commit on the hub, the configuration
    and the split. Empty when the data set cannot be loaded.
    """
    try:
        from datasets import load_dataset

        return str(getattr(load_dataset(name, split=split or "train"), "_fingerprint", ""))
    except Exception:  # The code that reads the data meets the same error, and reports it.
        return ""
