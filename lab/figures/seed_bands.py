"""Runs that differ only in their seed as one line, their mean, within a band, its 95 % interval."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lab.analysis.diagnose import MetricColumn
from lab.analysis.statistics import Interval, half_width, possible_range
from lab.figures.base import axis_name
from lab.figures.curve_points import decimate
from lab.figures.run_curves import METRIC_PANELS, RunCurves, run_labels
from lab.runs.records import is_change

Band = tuple[list[int], list[float], list[float]]
"""Steps, means, and half the width of the interval at each."""


def seed_groups(
    configs: Mapping[str, Mapping[str, Any]], events: Mapping[str, Sequence[Mapping[str, Any]]]
) -> list[list[str]]:
    """Return groups of runs that have equal knobs except seed and device, and equal live changes at
    equal steps. Groups are in the order of their first run.

    A second run with the seed of a member is a copy, not another sample: it goes to a group of
    copies.
    """
    groups: dict[Any, list[str]] = {}
    copies: dict[Any, int] = {}
    for name, config in configs.items():
        knobs = tuple(sorted((k, v) for k, v in config.items() if k not in ("seed", "device")))
        changes = tuple(
            (row["step"], row["detail"]["knob"], row["detail"]["to"])
            for row in events[name]
            if is_change(row)
        )
        seed = knobs, changes, config.get("seed")
        copies[seed] = copies.get(seed, -1) + 1
        groups.setdefault((knobs, changes, copies[seed]), []).append(name)
    return list(groups.values())


def mean_band(columns: Sequence[MetricColumn]) -> Band:
    """Return the mean of a metric over runs and half its Student's t interval, at the steps that every
    run has with a finite value.

    Anchor: values 1, 2, 3 at one step give mean 2 and half width 2.484.
    """
    steps = np.asarray(columns[0][0], dtype=int)
    for other, _ in columns[1:]:
        steps = np.intersect1d(steps, other).astype(int)
    values = np.array([np.asarray(v, dtype=float)[np.searchsorted(s, steps)] for s, v in columns])
    finite = np.isfinite(values).all(0)
    steps, values = steps[finite], values[:, finite]
    return (
        steps.tolist(),
        values.mean(0).tolist(),
        (half_width(len(columns)) * values.std(0, ddof=1)).tolist(),
    )


def panel_bands(runs: Sequence[RunCurves]) -> dict[str, Band]:
    """Return the band of every panel metric that all `runs` have."""
    bands = {
        name: mean_band([run.columns[name] for run in runs])
        for name in METRIC_PANELS
        if all(name in run.columns for run in runs)
    }
    return {name: band for name, band in bands.items() if band[0]}


def group_by_seed(
    runs: Sequence[RunCurves], configs: Mapping[str, Mapping[str, Any]]
) -> tuple[list[RunCurves], dict[str, dict[str, Band]]]:
    """Return one line for every group of runs that differ only in their seed, and the bands around it
    by the name of the line; a single run has none.

    `configs` as in `run_labels`. The line of a group has the name and the events of its first run.
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
        style = first.method, first.colour
        order = sum((line.method, line.colour) == style for line in lines)
        lines.append(replace(first, label=label, columns=columns, order=order, clock=None))
    return lines, around


def band_traces(
    run: RunCurves, bands: Mapping[str, Band], panels: Sequence[str], limit: int = 240
) -> list[dict[str, Any]]:
    """Return the plotly traces of the bands around a mean run: one closed shape per panel, cut at the
    possible range of its metric.
    """
    out = []
    for number, panel in enumerate(panels, start=1):
        if panel not in bands:
            continue
        steps, means, halves = bands[panel]
        half_at = dict(zip(steps, halves))
        x, centre = decimate(steps, means, limit)
        low, high = (
            [
                Interval(m, half_at[s]).ends(possible_range(panel))[end]
                for s, m in zip(x, centre)
                if m is not None
            ]
            for end in (0, 1)
        )
        out.append(
            {
                "type": "scatter",
                "mode": "lines",
                "x": x + x[::-1],
                "y": high + low[::-1],
                "fill": "toself",
                "fillcolor": run.style["colour"],
                "opacity": 0.2,
                "line": {"width": 0},
                "hoverinfo": "skip",
                "showlegend": False,
                "xaxis": axis_name("x", number),
                "yaxis": axis_name("y", number),
                "name": f"{run.label}, 95 % interval",
                "legendgroup": run.name,
                "meta": run.name,
            }
        )
    return out
