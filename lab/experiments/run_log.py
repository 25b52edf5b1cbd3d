"""The log of an experiment: one line of JSON for every finished run, made by one code on one machine."""

import hashlib
import json
import os
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers

from lab.errors import LabError
from lab.experiments.arms import device_name
from lab.storage.jsonl import append_rows

LAB_FOLDER = Path(__file__).parents[1]
MEASURING_CODE = (
    "algorithms",
    "assets/embedded_model",
    "assets/preference_pairs",
    "config",
    "data",
    "distributed",
    "engine",
    "models",
    "tasks",
    "training",
    "experiments/tuned_plan.py",
    "experiments/tuned_runs.py",
)
"""The files and folders below `lab` on which the numbers of every run depend."""


@cache
def code_fingerprint(folder: Path = LAB_FOLDER, modules: tuple[str, ...] = ()) -> str:
    """Return 12 hexadecimal digits of the SHA-256 over the files that decide the numbers of a run:
    `MEASURING_CODE` and the `modules` of `lab.experiments`.
    """
    digest = hashlib.sha256()
    for name in (*MEASURING_CODE, *(f"experiments/{module}.py" for module in modules)):
        place = folder / name
        files = [place] if place.is_file() else sorted(place.rglob("*"))
        for file in files:
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(file.relative_to(folder).as_posix().encode() + b"\0")
                digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:12]


@cache
def code_commit(folder: Path = LAB_FOLDER) -> str:
    """Return the commit of the checkout, with "+changes" where files of the lab differ from it. Outside
    a checkout it is the text of the environment variable LAB_COMMIT, or empty.
    """
    try:
        commit, changes = (
            subprocess.run(
                ["git", "-C", folder, *arguments], capture_output=True, text=True, check=True
            ).stdout.strip()
            for arguments in (["rev-parse", "HEAD"], ["status", "--porcelain", "--", "."])
        )
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("LAB_COMMIT", "")
    return commit[:12] + ("+changes" if changes else "")


def origin(device: str, *modules: str) -> dict[str, str]:
    """Return code, machine and versions of the runs that this process makes."""
    return {
        "code": code_fingerprint(modules=modules),
        "device": device_name(device),
        "torch": torch.__version__.partition("+")[0],
        "transformers": transformers.__version__,
    }


def record_origin(command: str, device: str) -> dict[str, str]:
    """Return what a table says of its origin: command, code, machine, versions and commit."""
    return {"command": command, **origin(device), "commit": code_commit()}


class RunLog:
    """The finished runs in the file `path`, by their key. `modules` of `lab.experiments` decide their
    numbers besides `MEASURING_CODE`.

    Raises `LabError` when the file holds runs of other code, another machine or other versions.
    """

    def __init__(self, path: Path, device: str, *modules: str) -> None:
        self.path, self.origin = path, origin(device, *modules)
        self.rows: dict[str, dict[str, Any]] = {}
        for line in path.read_bytes().splitlines() if path.is_file() else []:
            try:
                row = json.loads(line)
            except ValueError:  # The line that a kill has cut off.
                continue
            self._require_same_origin(row)
            self.rows[row["key"]] = row

    def append(self, key: str, result: dict[str, Any]) -> dict[str, Any]:
        """Write a finished run and return its row."""
        row = {"key": key} | result | self.origin | {"commit": code_commit()}
        append_rows(self.path, [row])
        self.rows[key] = row
        return row

    def has(self, key: str, settings: dict[str, Any]) -> bool:
        """Return whether the run of this key is finished with these settings."""
        return key in self.rows and self.rows[key].get("settings") == settings

    def commits(self) -> list[str]:
        """Return the commits of all runs, sorted."""
        return sorted({row["commit"] for row in self.rows.values()})

    def _require_same_origin(self, row: dict[str, Any]) -> None:
        for name, here in self.origin.items():
            if row[name] != here:
                raise LabError(
                    f"{self.path} holds runs made with {name} '{row[name]}', and here {name} is"
                    f" '{here}'. Runs of different code or machines are not mixed: choose another"
                    " --out, or go back to the commit"
                    f" {row['commit'] or 'that made them'}."
                )
