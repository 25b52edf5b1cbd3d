"""Figure of a sweep over β: what whole runs reached."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from lab.analysis.statistics import Interval, possible_range
from lab.figures.base import axis_name, figure_from_traces, interval_bars
from lab.figures.palette import METHOD_COLOURS, METHOD_NAMES, SYMBOLS, THEMES

BETA_MEASURES = {
    "kl": "KL(π‖π_ref), nats per completion",
    "gold/accuracy": "gold accuracy, share",
    "logps/chosen": "chosen: log π − log π_ref, nats",
    "logps/rejected": "rejected: log π − log π_ref, nats",
}


def beta_sweep_figure(
    rows: Sequence[Mapping[str, Any]],
    step: int,
    own: Sequence[Mapping[str, Any]] = (),
    theme: str = "light",
) -> go.Figure:
    """Return what runs that differ in β had reached after `step` updates: KL, gold accuracy, and the
    log-probabilities of chosen and rejected.

    `rows` are those of the experiment `beta`: method, beta, steps, and for each measure its mean and
    half its interval at each step. `own` are single runs: name, method, beta, and the measures that
    they have.
    """
    data: list[dict[str, Any]] = []
    layout: dict[str, Any] = {}
    betas = sorted({row["beta"] for row in rows})
    for number, measure in enumerate(BETA_MEASURES, start=1):
        axes = {"type": "scatter", "xaxis": axis_name("x", number), "yaxis": axis_name("y", number)}
        in_legend = number == 1
        for order, method in enumerate(dict.fromkeys(row["method"] for row in rows)):
            method_rows = [row for row in rows if row["method"] == method]
            data.append(axes | _method_line(method_rows, measure, step, order, in_legend))
        data += [axes | _own_run(run, measure, in_legend) for run in own]
        column, row = (number - 1) % 2, (number - 1) // 2
        layout[axis_name("xaxis", number)] = {
            "domain": [(0, 0.45), (0.55, 1)][column],
            "anchor": axis_name("y", number),
            "type": "log",
            "title": {"text": "β (log scale)"},
            "tickvals": betas,
            "ticktext": [f"{b:g}" for b in betas],
        }
        layout[axis_name("yaxis", number)] = {
            "domain": [(0.58, 1), (0, 0.42)][row],
            "anchor": axis_name("x", number),
            "title": {"text": BETA_MEASURES[measure]},
            "range": _y_range(rows, own, measure),
        }
    return figure_from_traces(
        data,
        layout
        | {
            "template": {"layout": THEMES[theme]["layout"]},
            "height": 620,
            "margin": {"l": 60, "r": 10, "t": 40, "b": 50},
            "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        },
    )


def _method_line(
    rows: Sequence[Mapping[str, Any]], measure: str, step: int, order: int, in_legend: bool
) -> dict[str, Any]:
    """Return the line of one method over β, with its intervals."""
    rows = sorted(rows, key=lambda row: row["beta"])
    method, indices = rows[0]["method"], [row["steps"].index(step) for row in rows]
    possible = possible_range(measure)
    intervals = [
        Interval(row[measure]["mean"][i], row[measure]["half"][i]) for row, i in zip(rows, indices)
    ]
    return {
        "mode": "lines+markers",
        "x": [row["beta"] for row in rows],
        "y": [row[measure]["mean"][i] for row, i in zip(rows, indices)],
        "error_y": interval_bars(intervals, possible) | {"thickness": 1, "width": 3},
        "customdata": [interval.text(2, possible) for interval in intervals],
        "name": METHOD_NAMES[method],
        "legendgroup": method,
        "showlegend": in_legend,
        "line": {
            "color": METHOD_COLOURS[method],
            "width": 2,
            "dash": ("solid", "dash", "dot")[order % 3],
        },
        "marker": {"symbol": SYMBOLS[order], "size": 8},
        "hovertemplate": "β %{x:.3~g}: %{customdata}",
    }


def _own_run(run: Mapping[str, Any], measure: str, in_legend: bool) -> dict[str, Any]:
    """Return the marker of a single run; it is empty if the run lacks the measure."""
    has_measure = measure in run
    return {
        "mode": "markers",
        "x": [run["beta"]] if has_measure else [],
        "y": [run[measure]] if has_measure else [],
        "name": run["name"],
        "legendgroup": run["name"],
        "showlegend": in_legend,
        "hovertemplate": "β %{x:.3~g}: %{y:.2f}",
        "marker": {
            "symbol": "star-open",
            "size": 13,
            "color": METHOD_COLOURS[run["method"]],
            "line": {"width": 2},
        },
    }


def _y_range(
    rows: Sequence[Mapping[str, Any]], own: Sequence[Mapping[str, Any]], measure: str
) -> list[float]:
    """Return a range that holds all means and intervals. An interval counts at most as long as the
    span of the means, since that of two seeds may be many times longer.
    """
    means = [mean for row in rows for mean in row[measure]["mean"]]
    span = max(means, default=0.0) - min(means, default=0.0)
    bars = [
        (mean, min(half, span))
        for row in rows
        for mean, half in zip(row[measure]["mean"], row[measure]["half"])
    ]
    values = [value for mean, half in bars for value in (mean - half, mean + half)]
    values += [run[measure] for run in own if measure in run]
    lowest, highest = possible_range(measure)
    low, high = max(lowest, min(values, default=0.0)), min(highest, max(values, default=1.0))
    margin = 0.05 * (high - low or 1.0)
    return [low - margin, high + margin]
