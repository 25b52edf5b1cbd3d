"""The data that the playground's element draws: recorded runs, and a live run at one moment."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import streamlit as st

from lab.analysis.diagnose import MetricColumn
from lab.dashboard.pages.play.ranges import KNOBS, slider_ranges
from lab.dashboard.state.run_cache import RunRecord, Snapshot, run_record
from lab.figures.events import event_text
from lab.figures.palette import METHOD_COLOURS, METHOD_NAMES
from lab.runs.folder import RunFolder
from lab.runs.fork import MAX_RECORDED_SAMPLES, RECORDINGS_FOLDER, fork_points
from lab.runs.states import ACTIVE_STATES, WAITING_STATES, EventKind

METHODS_SHOWN = ("grpo", "dpo", "ipo", "ppo")
MARGIN = "rewards/margins"
PANELS = {
    "accuracy": ("gold/accuracy", "Gold accuracy", ""),
    "reward": ("reward", "Reward", ""),
    "kl": ("gold/kl", "KL", "nats"),
    "length": ("gold/mean_length", "Length", "tokens"),
}
"""By panel, its metric, title and unit; a run without rewards shows its margin instead."""
DIGITS = 4
MAX_POINTS = 400  # of a live curve
REFRESH_SECONDS = 0.15, 1.0  # The least and the most between two moments of a live run.
PACE_UPDATES = 10


def rounded(value: float) -> float | None:
    """The number with the digits that a curve shows; None if it is not finite."""
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None


def curve(column: MetricColumn) -> list[list[float | None]]:
    """Steps and values of a metric; of a long run every second, third, … point, and the last."""
    steps, values = column
    every = -(-len(steps) // MAX_POINTS) or 1
    picked = range(len(steps) - 1, -1, -every)[::-1]
    return [[steps[i] for i in picked], [rounded(values[i]) for i in picked]]


def panel_curves(run: Snapshot) -> dict[str, list[list[float | None]]]:
    """The curve of each panel that has one."""
    columns = run.columns
    drawn = {
        panel: curve(columns[metric])
        for panel, (metric, _, _) in PANELS.items()
        if metric in columns
    }
    if "reward" not in drawn and MARGIN in columns:
        drawn["reward"] = curve(margin_in_nats(run))
    return drawn


def margin_in_nats(run: Snapshot) -> MetricColumn:
    """The margin h of the log-ratios, chosen minus rejected: the logged margin, which is β times h,
    without the β of its update. So a change of β does not move the curve by itself.
    """
    changes = [
        (row["step"], row["detail"]["to"])
        for row in run.events
        if row["kind"] == EventKind.CHANGED and row["detail"]["knob"] == "beta"
    ]
    steps, values = run.columns[MARGIN]
    betas = (
        next((beta for at, beta in reversed(changes) if at < step), run.started["beta"])
        for step in steps
    )
    return steps, [value / beta if beta else math.nan for value, beta in zip(values, betas)]


def panels(columns: Mapping[str, MetricColumn]) -> dict[str, dict[str, str]]:
    """Title and unit of each panel of a run."""
    texts = {panel: {"title": title, "unit": unit} for panel, (_, title, unit) in PANELS.items()}
    if "reward" not in columns:
        texts["reward"] = {"title": "Margin", "unit": "nats"}
    return texts


def sample_texts(rows: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    """Text of each completion, and whether it is right, of the first held-out rows."""
    held_out = [row for row in rows if row.get("held_out")][:MAX_RECORDED_SAMPLES]
    return [[row["completion"], bool(row["gold"])] for row in held_out]


@st.cache_resource(show_spinner=False)
def recordings() -> dict[str, dict[str, Any]]:
    """Every recorded run, by method, as the browser needs it."""
    return {method: recording(RECORDINGS_FOLDER / method) for method in METHODS_SHOWN}


def recording(path: Path) -> dict[str, Any]:
    """One recorded run: curves, completions of every evaluation, fork points and slider ranges."""
    run, folder = run_record(str(path)).snapshot(), RunFolder(path)
    by_step: dict[int, list[dict[str, Any]]] = {}
    for row in folder.samples():
        by_step.setdefault(row["step"], []).append(row)
    first = by_step[min(by_step)]
    method = run.started["method"]
    return {
        "name": METHOD_NAMES[method],
        "colour": METHOD_COLOURS[method],
        "end": run.step,
        "points": fork_points(path),
        "panels": panels(run.columns),
        "curves": panel_curves(run),
        "prompts": [[row["prompt"], row["answer"]] for row in first],
        "samples": [[step, sample_texts(rows)] for step, rows in sorted(by_step.items())],
        "knobs": slider_ranges(run.started),
    }


def marks(events: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    """Step and text of every event that curves show."""
    return [[row["step"], text] for row in events if (text := event_text(row))]


def first_marks(run: Snapshot) -> list[list[Any]]:
    """Marks at update 0 for the settings with which a run began and its recording did not."""
    recorded = run_record(str(RECORDINGS_FOLDER / run.started["method"])).snapshot().started
    changes = (
        {
            "kind": EventKind.CHANGED,
            "step": 0,
            "detail": {"knob": knob, "from": recorded[knob], "to": run.started[knob]},
        }
        for knob in KNOBS
        if knob in recorded
    )
    return marks([*changes])


def live_run(record: RunRecord, run: Snapshot) -> dict[str, Any]:
    """A live run at this moment."""
    state = record.state()
    return {
        "run": record.folder.path.name,
        "method": run.started["method"],
        "state": state,
        "active": state in ACTIVE_STATES,
        "waiting": state in WAITING_STATES,
        "step": run.step,
        "total": run.started["steps"],
        "curves": panel_curves(run),
        "marks": first_marks(run) + marks([row for row in run.events if row["kind"] == "changed"]),
        "settings": {knob: run.config[knob] for knob in KNOBS if knob in run.config},
        "samples": sample_texts(record.samples()),
    }


def refresh_seconds(run: Snapshot) -> float:
    """Seconds from one look at a live run to the next: those of an update, as its last ten took them."""
    ends = list(run.clock["seconds"].values())[-PACE_UPDATES - 1 :]
    pace = (ends[-1] - ends[0]) / (len(ends) - 1) if len(ends) > 1 else 0.0
    least, most = REFRESH_SECONDS
    return min(most, max(least, pace))
