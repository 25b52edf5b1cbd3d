"""Identifies the data of a run, so that a run does not go on with other data than it began with."""

import hashlib
import re
from pathlib import Path
from typing import Any

from lab.config.run_config import OfflineConfig, RunConfig
from lab.errors import LabError
from lab.storage.paths import find_run
from lab.tasks.registry import TASKS

HUB = re.compile(r"(\w[\w.-]*/[\w.-]+?)(?::([\w.-]+))?")
FILE = re.compile(r"\.(jsonl|json|csv|parquet|gz)$", re.IGNORECASE)


def identities(config: RunConfig) -> dict[str, dict[str, Any]]:
    """By knob, what stands there and what identifies its content: of a file its bytes and their
    SHA-256, of a data set of the hub its fingerprint.

    A source that is not there, or that nothing identifies, has no entry: what reads it will say so.
    """
    found = {
        "data": _of(_data(config)),
        "task": _of(config.task if config.task not in TASKS else ""),
        "reward_from": _of(_reward_model(config)),
    }
    return {knob: content for knob, content in found.items() if content}


def _data(config: RunConfig) -> str:
    """The offline data of a run: its own, or the pairs that its task ships."""
    if not isinstance(config, OfflineConfig):
        return ""
    shipped = TASKS[config.task].pairs_path if config.task in TASKS else None
    return config.data or str(shipped or "")


def _reward_model(config: RunConfig) -> str:
    """The weights of the reward model that scores a run's completions."""
    name = getattr(config, "reward_from", "gold")
    try:
        return (
            ""
            if name in ("gold", "")
            else str(find_run(name) / "adapter" / "adapter_model.safetensors")
        )
    except LabError:
        return ""


def _of(source: str) -> dict[str, Any]:
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
    hub = HUB.fullmatch(source) if not FILE.search(source) else None
    fingerprint = _fingerprint(*hub.groups()) if hub else ""
    return {"source": source, "fingerprint": fingerprint} if fingerprint else {}


def _fingerprint(name: str, split: str | None) -> str:
    """That of the package datasets, which is made of the commit on the hub, the configuration and
    the split.
    """
    try:
        from datasets import load_dataset

        return str(getattr(load_dataset(name, split=split or "train"), "_fingerprint", ""))
    except (
        Exception
    ):  # Whatever the hub's reader raises, whoever reads the data meets it again and says so.
        return ""
