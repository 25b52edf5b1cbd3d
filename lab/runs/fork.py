"""Forks a recorded run: a new run that continues from a checkpoint of the recording with other settings.

The folder of a recording is a finished run with a folder checkpoint-STEP for every update at which a
run can fork. A fork keeps the records up to its checkpoint and notes every changed setting as a live
change, which the training process makes before its first update.
"""

import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lab.config.changes import change_setting
from lab.config.run_config import RunConfig
from lab.errors import LabError
from lab.runs.control import new_command
from lab.runs.folder import RunFolder, create
from lab.runs.records import Event
from lab.runs.states import EventKind, RunState
from lab.storage.checksums import require_intact, write_with_checksums
from lab.storage.jsonl import append_rows

RECORDINGS_FOLDER = Path(__file__).parents[1] / "assets" / "playground"
"""The recordings that the lab ships, one folder for each method."""
MAX_RECORDED_SAMPLES = 8
"""Held-out samples of each evaluation that a recording holds."""
CHECKPOINT_FILE = "state.pt"
_POINT_NAME = re.compile(r"checkpoint-(\d+)")


def save_fork_point(recording: Path, step: int, data: bytes) -> None:
    """Write the checkpoint of an update, with its checksum, into the folder of a recording."""
    recording.mkdir(parents=True, exist_ok=True)
    write_with_checksums(recording / f"checkpoint-{step}", {CHECKPOINT_FILE: data})


def fork_points(recording: Path) -> list[int]:
    """Return the updates from which a run can fork; 0 is always one of them."""
    names = (_POINT_NAME.fullmatch(path.name) for path in recording.iterdir())
    return sorted({0, *(int(name[1]) for name in names if name)})


def nearest_fork_point(points: list[int], step: int) -> int:
    """Return the fork point nearest to `step`, the earlier one of two. Anchor: 15 of 0, 10, 20 is 10."""
    return min(points, key=lambda point: (abs(point - step), point))


def fork(
    recording: Path, step: int, changes: Mapping[str, Any], path: Path, updates: int
) -> RunFolder:
    """Create the run `path`, which continues the recording after update `step` for `updates` updates
    with the settings `changes`; return it as a queued run.

    Raises `LabError` for an update without a checkpoint, a damaged checkpoint, and a setting that is
    fixed or has a value that is not accepted.
    """
    if step not in (points := fork_points(recording)):
        raise LabError(
            f"{recording.name} has no checkpoint of update {step}. It can fork at"
            f" {', '.join(map(str, points))}."
        )
    recorded = replace(RunFolder(recording).config, steps=step + updates)
    changed = _with_changes(recorded, changes)
    if step == 0:
        return create(path, changed, RunState.QUEUED)
    point = recording / f"checkpoint-{step}"
    require_intact(point, CHECKPOINT_FILE, remedy="Install the lab again. ")
    run = create(path, recorded, RunState.INTERRUPTED)
    try:
        _copy_records(RunFolder(recording), run, step, changes)
        shutil.copytree(point, run.path / "checkpoint")
        run.write_status(RunState.QUEUED, step)
    except OSError as error:
        shutil.rmtree(run.path, ignore_errors=True)
        raise LabError(f"Cannot write in {path}: {error.strerror}.") from error
    return run


def _with_changes(config: RunConfig, changes: Mapping[str, Any]) -> RunConfig:
    for knob, value in changes.items():
        config = change_setting(config, knob, value)
    return config


def _copy_records(
    recording: RunFolder, run: RunFolder, step: int, changes: Mapping[str, Any]
) -> None:
    """Copy metrics and samples up to `step`, and append an event for every changed setting."""
    rows = [row for row in recording.history() if row["step"] <= step]
    events = [
        Event(
            step,
            EventKind.CHANGED,
            {"knob": knob, "from": getattr(recording.config, knob), "to": value},
            new_command("set").id,
        ).row()
        for knob, value in changes.items()
    ]
    append_rows(run.path / "metrics.jsonl", [*rows, *events])
    append_rows(
        run.path / "samples.jsonl", [row for row in recording.samples() if row["step"] <= step]
    )
