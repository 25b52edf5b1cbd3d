"""Forks a recorded run: a new run that continues from a checkpoint of the recording with other settings.

The folder of a recording is a finished run with a folder checkpoint-STEP for every update at which a
run can fork. A fork keeps the records up to its checkpoint and notes every changed setting as a live
change, which the training process makes before its first update.
"""

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lab.config.changes import change_setting
from lab.config.methods import method_of
from lab.config.run_config import RunConfig
from lab.errors import LabError
from lab.runs.control import new_command
from lab.runs.folder import RunFolder, create
from lab.runs.records import Event
from lab.runs.states import EventKind, RunState
from lab.storage.checksums import require_intact, write_with_checksums
from lab.storage.jsonl import append_rows, encode_row, replace_file

RECORDINGS_FOLDER = Path(__file__).parents[1] / "assets" / "playground"
"""The recordings that the lab ships, one folder for each method."""
MAX_RECORDED_SAMPLES = 8
"""Held-out samples of each evaluation that a recording holds."""
UPDATES_BETWEEN_EVALUATIONS = {"dpo": 50, "ipo": 50, "grpo": 10, "ppo": 10}
"""By method, of a fork. So an evaluation costs at most a tenth of the updates before it: on one core
64 prompts cost 0.22 s of CPU time, and an update 0.05 s (DPO, IPO) or 0.25 s (GRPO, PPO).
"""
CHECKPOINT_FILE = "state.pt"
ORIGIN_FILE = "fork.json"
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


@dataclass(frozen=True)
class Origin:
    """Where a fork comes from: the name of its recording and the update of its checkpoint.

    `is_twin` tells a run that shows what a live run would be without a change; it trains with low
    priority.
    """

    recording: str
    step: int
    is_twin: bool = False


def origin_of(path: Path) -> Origin | None:
    """Return the origin of the run at `path`; None for a run that is no fork."""
    try:
        row = json.loads((path / ORIGIN_FILE).read_text("utf-8"))
        return Origin(str(row["recording"]), int(row["step"]), bool(row["is_twin"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


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
    recorded = RunFolder(recording)
    config = replace(
        recorded.config,
        steps=step + updates,
        eval_every=UPDATES_BETWEEN_EVALUATIONS[method_of(recorded.config)],
    )
    changed = _with_changes(config, changes)
    if step == 0:
        return _create(recording, Origin(recording.name, 0), path, changed, [])
    events = [
        Event(
            step,
            EventKind.CHANGED,
            {"knob": knob, "from": getattr(config, knob), "to": value},
            new_command("set").id,
        ).row()
        for knob, value in changes.items()
    ]
    return _create(recording, Origin(recording.name, step), path, config, events)


def twin(recording: Path, run: RunFolder, before: int, path: Path) -> RunFolder:
    """Create the run `path`: the fork `run` of a recording once more, with those of its live changes
    that were made before update `before`; return it as a queued run.

    Seed and checkpoint are those of `run`, so both are equal up to that update. Raises `LabError` for
    a run that is no fork.
    """
    if (origin := origin_of(run.path)) is None:
        raise LabError(f"{run.path} is no fork of a recorded run, so it has no twin.")
    changes = [
        row
        for row in run.history()
        if row["type"] == "event" and row["kind"] == EventKind.CHANGED and row["step"] < before
    ]
    return _create(recording, replace(origin, is_twin=True), path, run.config, changes)


def _with_changes(config: RunConfig, changes: Mapping[str, Any]) -> RunConfig:
    for knob, value in changes.items():
        config = change_setting(config, knob, value)
    return config


def _create(
    recording: Path, origin: Origin, path: Path, config: RunConfig, changes: list[dict[str, Any]]
) -> RunFolder:
    """Create a run with the checkpoint of `origin`, the records up to it, and the events `changes`,
    which the training process repeats at their updates.
    """
    step, recorded = origin.step, RunFolder(recording)
    point = recording / f"checkpoint-{step}"
    if step:
        require_intact(point, CHECKPOINT_FILE, remedy="Install the lab again. ")
    run = create(path, config, RunState.INTERRUPTED)  # Queued when its files are complete.
    try:
        replace_file(path / ORIGIN_FILE, encode_row(asdict(origin)))
        if step:
            rows = [row for row in recorded.history() if row["step"] <= step]
            append_rows(path / "metrics.jsonl", [*rows, *changes])
            samples = [row for row in recorded.samples() if row["step"] <= step]
            append_rows(path / "samples.jsonl", samples)
            shutil.copytree(point, path / "checkpoint")
        elif changes:
            append_rows(path / "metrics.jsonl", changes)
        run.write_status(RunState.QUEUED, step)
    except OSError as error:
        shutil.rmtree(path, ignore_errors=True)
        raise LabError(f"Cannot write in {path}: {error.strerror}.") from error
    return run
