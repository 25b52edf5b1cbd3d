"""Finds damaged run folders, so that lists of runs show them with the reason."""

import os
from pathlib import Path

from lab.config.adapter_settings import ADAPTER_FOLDER, MODEL_FOLDER
from lab.errors import LabError
from lab.runs.catalogue import run_paths
from lab.runs.folder import RunFolder
from lab.storage.jsonl import read_text

RUN_FOLDER_FILES = (
    "status.json",
    "metrics.jsonl",
    "samples.jsonl",
    "control.jsonl",
    "log.txt",
    "checkpoint/state.pt",
    "data.json",
)
RUN_SUBFOLDERS = ("checkpoint", ADAPTER_FOLDER, MODEL_FOLDER)


def damage(folder: RunFolder) -> str:
    """Return the reason, in one line, why a run cannot be read or continued; empty when it can.

    Lines of its records that cannot be read are no damage: readers pass over them.
    """
    try:
        folder.config  # noqa: B018
    except LabError as error:
        return " ".join(str(error).split())
    return next(
        filter(
            None,
            (
                _misplaced(folder.path / name, name in RUN_SUBFOLDERS)
                for name in (*RUN_SUBFOLDERS, *RUN_FOLDER_FILES)
            ),
        ),
        "",
    )


def _misplaced(path: Path, is_folder: bool) -> str:
    if not os.path.lexists(path):
        return ""
    if not (os.path.isdir(path) if is_folder else os.path.isfile(path)):
        return f"{path} is no {'folder' if is_folder else 'file'}. Move it away."
    try:
        os.listdir(path) if is_folder else path.open("rb").close()
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}."
    return ""


def damaged_runs(root: Path | None = None) -> dict[str, str]:
    """Return the reason of each damaged run in `root`, by the run's name.

    A folder that only has another program's config.json is no run.
    """
    reasons = {path.name: damage(RunFolder(path)) for path in run_paths(root) if _is_run(path)}
    return {name: reason for name, reason in reasons.items() if reason}


def _is_run(path: Path) -> bool:
    """Whether a folder is a run, and not a model in Hugging Face's format or another program's folder
    with a config.json.
    """
    if os.path.lexists(path / "status.json") or os.path.lexists(path / "metrics.jsonl"):
        return True
    try:
        text = read_text(path / "config.json")
    except (OSError, UnicodeError):
        return True
    return '"method"' in text or '"model_type"' not in text and '"architectures"' not in text
