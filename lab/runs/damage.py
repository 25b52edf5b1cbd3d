"""Finds damage in a run folder, so that lists show it with the reason, beside the runs that can be
read.
"""

import os
from pathlib import Path

from lab.errors import LabError
from lab.runs.catalogue import run_paths
from lab.runs.folder import RunFolder

RUN_FOLDER_FILES = (
    "status.json",
    "metrics.jsonl",
    "samples.jsonl",
    "control.jsonl",
    "log.txt",
    "checkpoint/state.pt",
    "data.json",
)
RUN_SUBFOLDERS = ("checkpoint", "adapter")


def damage(folder: RunFolder) -> str:
    """Why a run cannot be read or go on, in one line; empty when it can. Lines of its records that
    cannot be read are passed over, no damage.
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
    """The runs in `root` that are damaged, by name, each with its reason. A folder that only has
    another program's config.json is no run.
    """
    found = {path.name: damage(RunFolder(path)) for path in run_paths(root) if _is_run(path)}
    return {name: reason for name, reason in found.items() if reason}


def _is_run(path: Path) -> bool:
    """Whether a folder is more than a model in Hugging Face's format, or what else has a
    config.json of its own.
    """
    if os.path.lexists(path / "status.json") or os.path.lexists(path / "metrics.jsonl"):
        return True
    try:
        text = (path / "config.json").read_text("utf-8", "replace")
    except OSError:
        return True
    return '"method"' in text or '"model_type"' not in text and '"architectures"' not in text
