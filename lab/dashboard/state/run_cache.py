"""Run folders in the server's memory: a folder is read once, then only its appended rows are read.
All sessions share one copy.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import streamlit as st

from lab.analysis.diagnose import MetricColumn
from lab.config.changes import change_setting
from lab.config.json_format import from_dict, to_dict
from lab.errors import LabError
from lab.figures.curve_points import points_json, smooth
from lab.runs.folder import RunFolder
from lab.runs.row_schemas import sample_row
from lab.runs.sample_index import SampleIndex
from lab.runs.states import EventKind
from lab.storage.jsonl import parse_rows, read_bytes

MAX_POINTS_PER_LINE = 240  # a panel is about 350 pixels wide
SAMPLES_TAIL_BYTES = 256 * 1024  # the latest samples are searched in this end of samples.jsonl


@dataclass(frozen=True)
class Snapshot:
    """A run at one moment. It is never changed, so any thread may read it.

    started: the config at the run's start
    config: the config with all live changes
    columns: by metric, its steps and its values
    echoes: by command id, the event that answered the command
    seconds: training time; `wall` includes evaluation
    clock: by "tokens" and "seconds", the total until each step
    points: cache of `points_of`
    """

    started: Mapping[str, Any]
    config: Mapping[str, Any]
    columns: Mapping[str, MetricColumn] = field(default_factory=dict)
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
        """The points of a metric as JSON, against step, tokens or seconds (`along`), smoothed with
        `weight` and thinned to `MAX_POINTS_PER_LINE`; computed once per snapshot.
        """
        key = metric, along, weight
        if key not in self.points:
            steps, values = self.columns[metric]
            self.points[key] = points_json(
                (steps, smooth(values, weight) if weight else values),
                MAX_POINTS_PER_LINE,
                self.clock.get(along),
            )
        return self.points[key]


class RunRecord:
    """A run folder, and everything that has been read from it so far."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._folder_identity: tuple[int, int] | None = None
        self._reset()

    def _reset(self) -> None:
        config = to_dict(self.folder.config)
        self._offset, self._samples_size = 0, -1
        self._samples: list[dict[str, Any]] = []
        self._sample_index = SampleIndex(self.folder.path / "samples.jsonl")
        self._snapshot = Snapshot(config, config)

    def snapshot(self) -> Snapshot:
        """The present state of the run on disk."""
        with self._lock:
            try:
                config_stat = (self.folder.path / "config.json").stat()
                identity = (config_stat.st_ino, config_stat.st_mtime_ns)
                if self._folder_identity != identity:  # another run has taken the folder's name
                    self._reset()
                    self._folder_identity = identity
            except (OSError, LabError):  # deleted or damaged while a page shows it
                return self._snapshot
            rows, self._offset = self.folder.read(self._offset)
            if rows:
                self._snapshot = extend_snapshot(self._snapshot, rows)
            return self._snapshot

    def state(self) -> str:
        """The run's state: running, paused, finished, stopped, failed or interrupted."""
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
        """The latest recorded samples at or before `step`."""
        with self._lock:
            self._sample_index.refresh()
            return self._sample_index.at(step)


def latest_samples(path: Path, size: int) -> list[dict[str, Any]]:
    """The training rows of the latest step and the held-out rows of the latest evaluation, from the
    end of samples.jsonl, which has `size` bytes.
    """
    lines = read_bytes(path, max(0, size - SAMPLES_TAIL_BYTES), SAMPLES_TAIL_BYTES)
    rows = parse_rows(
        lines[lines.find(b"\n") + 1 if size > SAMPLES_TAIL_BYTES else 0 : lines.rfind(b"\n") + 1],
        sample_row,
    )
    latest = []
    for held_out in (False, True):
        candidates = [row for row in rows if bool(row.get("held_out")) is held_out]
        latest += [row for row in candidates if row["step"] == candidates[-1]["step"]]
    return latest


def extend_snapshot(before: Snapshot, rows: list[dict[str, Any]]) -> Snapshot:
    """The snapshot after more rows of metrics.jsonl. A step that is repeated after a resume replaces
    its earlier row and all later ones.
    """
    columns = {
        name: (list(steps), list(values)) for name, (steps, values) in before.columns.items()
    }
    events, echoes, config = list(before.events), dict(before.echoes), dict(before.config)
    step, seconds, wall, tokens = before.step, before.seconds, before.wall, before.tokens
    clock = {name: dict(at) for name, at in before.clock.items()}
    for row in rows:
        if row["type"] == "event":
            if row.get("id") in echoes:  # a resumed run repeats its changes
                events.remove(echoes[row["id"]])
            events.append(row)
            if row.get("id"):
                echoes[row["id"]] = row
            if row["kind"] == EventKind.CHANGED:
                config = with_live_change(config, row["detail"]["knob"], row["detail"]["to"])
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


def with_live_change(config: dict[str, Any], knob: str, value: Any) -> dict[str, Any]:
    """The config with one knob changed; unchanged if the config does not allow the change."""
    try:
        return to_dict(change_setting(from_dict(config), knob, value))
    except LabError:
        return config


@st.cache_resource(max_entries=64, show_spinner=False)
def run_record(path: str) -> RunRecord:
    """The record of a run folder, which all sessions of this server share."""
    return RunRecord(RunFolder(Path(path)))
