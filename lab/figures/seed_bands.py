"""Runs that are alike but for their seed, drawn as one line, their mean, in a band, its 95 %
interval.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from lab.analysis.diagnose import MetricColumn
from lab.analysis.statistics import half_width
from lab.figures.base import axis_name
from lab.figures.curve_points import decimate
from lab.figures.run_curves import METRIC_PANELS, RunCurves, run_labels
from lab.figures.training_curves import training_curves
from lab.runs.records import is_change

Band = tuple[list[int], list[float], list[float]]
"""Steps, means, and half the width of the interval at each."""


def seed_groups(
    configs: Mapping[str, Mapping[str, Any]], events: Mapping[str, Sequence[Mapping[str, Any]]]
) -> list[list[str]]:
    """The runs in groups that are alike but for seed and device, in the order of their first: same
    knobs, and the same live changes at the same steps.
    """
    found: dict[Any, list[str]] = {}
    again: dict[
        Any, int
        # A run with the seed of another of its group is a copy, not one more: it goes to a group of
        # copies.
    ] = {}
    for name, config in configs.items():
        knobs = tuple(sorted((k, v) for k, v in config.items() if k not in ("seed", "device")))
        steered = tuple(
            (row["step"], row["detail"]["knob"], row["detail"]["to"])
            for row in events[name]
            if is_change(row)
        )
        seed = knobs, steered, config.get("seed")
        again[seed] = again.get(seed, -1) + 1
        found.setdefault((knobs, steered, again[seed]), []).append(name)
    return list(found.values())


def mean_band(columns: Sequence[MetricColumn]) -> Band:
    """Mean of a metric over runs with half its Student-t interval, at the steps that every run has
    and where every value is finite.

    Anchor: values 1, 2, 3 at one step give mean 2 and half width 2.484.
    """
    steps = columns[0][0]
    for other, _ in columns[1:]:
        steps = np.intersect1d(steps, other)
    steps = np.asarray(steps, dtype=int)
    values = np.array([np.asarray(v, dtype=float)[np.searchsorted(s, steps)] for s, v in columns])
    known = np.isfinite(values).all(0)
    steps, values = steps[known], values[:, known]
    return (
        steps.tolist(),
        values.mean(0).tolist(),
        (half_width(len(columns)) * values.std(0, ddof=1)).tolist(),
    )


def panel_bands(runs: Sequence[RunCurves]) -> dict[str, Band]:
    """The band of every panel's metric that all `runs` have."""
    found = {
        name: mean_band([run.columns[name] for run in runs])
        for name in METRIC_PANELS
        if all(name in run.columns for run in runs)
    }
    return {name: one for name, one in found.items() if one[0]}


def group_by_seed(
    runs: Sequence[RunCurves], configs: Mapping[str, Mapping[str, Any]]
) -> tuple[list[RunCurves], dict[str, dict[str, Band]]]:
    """One line for every group of runs that are alike but for their seed, and by its name the bands
    around it; a run alone has none.

    `configs` as in `run_labels`. The line of a group has the name of its first run, and its live
    changes: they are those of all.
    """
    by_name = {run.name: run for run in runs}
    groups = seed_groups(configs, {run.name: run.events for run in runs})
    labels = run_labels(
        {names[0]: {k: v for k, v in configs[names[0]].items() if k != "seed"} for names in groups}
    )
    lines: list[RunCurves] = []
    around: dict[str, dict[str, Band]] = {}
    for names in groups:
        members = [by_name[name] for name in names]
        first, label, columns = members[0], labels[names[0]], members[0].columns
        if len(members) > 1:
            around[first.name] = panel_bands(members)
            label = f"{len(members)} seeds of {label}"
            columns = {
                name: (steps, means) for name, (steps, means, _) in around[first.name].items()
            }
        order = sum(line.method == first.method for line in lines)
        lines.append(
            RunCurves(first.name, first.method, label, columns, first.events, order, first.steps)
        )
    return lines, around


def band_traces(
    run: RunCurves, found: Mapping[str, Band], panels: Sequence[str], limit: int = 240
) -> list[dict[str, Any]]:
    """The plotly traces of the bands around a mean run: one closed shape a panel."""
    out = []
    for place, panel in enumerate(panels, start=1):
        if panel not in found:
            continue
        steps, means, halves = found[panel]
        half_at = dict(zip(steps, halves))
        kept, middle = decimate(steps, means, limit)
        low, high = ([m + sign * half_at[s] for s, m in zip(kept, middle)] for sign in (-1, 1))
        out.append(
            {
                "type": "scatter",
                "mode": "lines",
                "x": kept + kept[::-1],
                "y": high + low[::-1],
                "fill": "toself",
                "fillcolor": run.style["colour"],
                "opacity": 0.2,
                "line": {"width": 0},
                "hoverinfo": "skip",
                "showlegend": False,
                "xaxis": axis_name("x", place),
                "yaxis": axis_name("y", place),
                "name": f"{run.label}, 95 % interval",
                "legendgroup": run.name,
                "meta": run.name,
            }
        )
    return out


def seed_bands(
    runs: Sequence[RunCurves],
    configs: Mapping[str, Mapping[str, Any]],
    panels: Sequence[str],
    *,
    columns: int = 3,
    theme: str = "light",
) -> go.Figure:
    """Training curves in which runs alike but for their seed are one line in its 95 % interval;
    `configs` as in `run_labels`.
    """
    lines, around = group_by_seed(runs, configs)
    figure = training_curves(lines, panels, columns=columns, theme=theme)
    shapes = [
        trace for line in lines for trace in band_traces(line, around.get(line.name, {}), panels)
    ]
    return go.Figure(
        {
            "data": [*shapes, *(trace.to_plotly_json() for trace in figure.data)],
            "layout": figure.layout,
        }
    )
