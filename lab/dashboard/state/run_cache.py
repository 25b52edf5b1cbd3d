"""What the server knows of a run folder: read once, then only what was appended; one copy for all
sessions.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import streamlit as st

from lab.config.changes import change_setting
from lab.config.json_format import from_dict, to_dict
from lab.errors import LabError
from lab.figures.training_curves import Column, points_json, smooth
from lab.runs.folder import RunFolder
from lab.runs.row_schemas import sample_row
from lab.runs.sample_index import SampleIndex
from lab.storage.jsonl import parse_rows, read_bytes

ACTIVE = ("running", "paused")
POINTS = 240  # per line; a panel is some 350 pixels wide
TAIL = 256 * 1024  # bytes at the end of samples.jsonl in which the latest samples are looked for


@dataclass(frozen=True)
class Snapshot:
    """A run at one moment; never changed, so that any thread may read it.

    `started` is the config that the run began with, `config` has its live changes, `echoes` maps a
    command's id to the event that answered it, `seconds` is time of training, `wall` with
    evaluation; `clock` holds for every step the tokens and the seconds until then.
    """

    started: Mapping[str, Any]
    config: Mapping[str, Any]
    columns: Mapping[str, Column] = field(default_factory=dict)
    events: tuple[Mapping[str, Any], ...] = ()
    echoes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    step: int = 0
    seconds: float = 0.0
    wall: float = 0.0
    tokens: int = 0
    clock: Mapping[str, Mapping[int, float]] = field(
        default_factory=lambda: {"tokens": {}, "seconds": {}}
    )
    points: dict[tuple[str, str, float], str] = field(default_factory=dict)

    def points_of(self, metric: str, along: str = "step", weight: float = 0.0) -> str:
        """The decimated points of a metric as JSON, smoothed with `weight`, along step, tokens or
        seconds; computed once per snapshot.
        """
        key = metric, along, weight
        if key not in self.points:
            steps, values = self.columns[metric]
            self.points[key] = points_json(
                (steps, smooth(values, weight) if weight else values), POINTS, self.clock.get(along)
            )
        return self.points[key]


class RunRecord:
    """A run folder and the part of it that has been read."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._made: tuple[int, int] | None = None
        self._forget()

    def _forget(self) -> None:
        config = to_dict(self.folder.config)
        self._offset, self._samples, self._samples_size = 0, [], -1
        self._index = SampleIndex(self.folder.path / "samples.jsonl")
        self._now = Snapshot(config, config)

    def snapshot(self) -> Snapshot:
        """The run as it is on disk now."""
        with self._lock:
            try:
                made = (self.folder.path / "config.json").stat()
                if self._made != (
                    made.st_ino,
                    made.st_mtime_ns,
                ):  # another run has taken the folder's name
                    self._forget()
                    self._made = (made.st_ino, made.st_mtime_ns)
            except (OSError, LabError):  # deleted or damaged while a page shows it
                return self._now
            rows, self._offset = self.folder.read(self._offset)
            if rows:
                self._now = grow(self._now, rows)
            return self._now

    def state(self) -> str:
        """running, paused, finished, stopped, failed or interrupted."""
        return self.folder.state

    def samples(self) -> list[dict[str, Any]]:
        """The rows of samples.jsonl that belong to the latest step with a training group, and to
        the latest evaluation.
        """
        path = Path(self.folder.path) / "samples.jsonl"
        with self._lock:
            size = path.stat().st_size if path.exists() else 0
            if size != self._samples_size:
                self._samples, self._samples_size = latest_samples(path, size), size
            return self._samples

    def samples_at(self, step: int) -> list[dict[str, Any]]:
        """The samples that the run kept last up to `step`."""
        with self._lock:
            self._index.refresh()
            return self._index.at(step)


def latest_samples(path: Path, size: int) -> list[dict[str, Any]]:
    """Parse the end of samples.jsonl and keep, of training and of held-out rows, those of the
    latest step.
    """
    lines = read_bytes(path, max(0, size - TAIL), TAIL)
    rows = parse_rows(
        lines[lines.find(b"\n") + 1 if size > TAIL else 0 : lines.rfind(b"\n") + 1], sample_row
    )
    kept = []
    for held_out in (False, True):
        some = [row for row in rows if bool(row.get("held_out")) is held_out]
        kept += [row for row in some if row["step"] == some[-1]["step"]]
    return kept


def grow(before: Snapshot, rows: list[dict[str, Any]]) -> Snapshot:
    """The snapshot after more rows of metrics.jsonl. A step that comes again, after a resume,
    replaces itself and all later ones.
    """
    columns = {
        name: (list(steps), list(values)) for name, (steps, values) in before.columns.items()
    }
    events, echoes, config = list(before.events), dict(before.echoes), dict(before.config)
    step, seconds, wall, tokens = before.step, before.seconds, before.wall, before.tokens
    clock = {name: dict(at) for name, at in before.clock.items()}
    for row in rows:
        if row["type"] == "event":
            events.append(row)
            if row.get("id"):
                echoes[row["id"]] = row
            if row["kind"] == "changed":
                config = changed(config, row["detail"]["knob"], row["detail"]["to"])
            continue
        if row["step"] <= step and columns:
            for steps, values in columns.values():
                while steps and steps[-1] >= row["step"]:
                    steps.pop()
                    values.pop()
            clock = {
                name: {s: v for s, v in at.items() if s < row["step"]} for name, at in clock.items()
            }
        for name, value in row["metrics"].items():
            steps, values = columns.setdefault(name, ([], []))
            steps.append(row["step"])
            values.append(float("nan") if value is None else value)
        step, seconds, tokens = row["step"], row["seconds"], row["tokens"]
        wall = sum(row["phases"].values()) or seconds
        clock["tokens"][step], clock["seconds"][step] = tokens, seconds
    return Snapshot(
        before.started, config, columns, tuple(events), echoes, step, seconds, wall, tokens, clock
    )


def changed(config: dict[str, Any], knob: str, value: Any) -> dict[str, Any]:
    """The config with a knob that was changed live; as it was, when no such change can have been
    made.
    """
    try:
        return to_dict(change_setting(from_dict(config), knob, value))
    except LabError:
        return config


@st.cache_resource(max_entries=64, show_spinner=False)
def record(path: str) -> RunRecord:
    """The one record of a run folder in this server."""
    return RunRecord(RunFolder(Path(path)))
