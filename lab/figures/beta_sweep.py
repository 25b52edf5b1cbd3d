"""Figure of a sweep over β: what whole runs reached."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from lab.figures.base import figure_from_traces
from lab.figures.palette import METHOD_COLOURS, METHOD_NAMES, SYMBOLS, THEMES

BETA_MEASURES = {
    "kl": "KL(π‖π_ref), nats per completion",
    "gold/accuracy": "gold accuracy, share",
    "logps/chosen": "chosen: log π − log π_ref, nats",
    "logps/rejected": "rejected: log π − log π_ref, nats",
}


_BOUNDS = {
    "kl": (0.0, math.inf),
    "gold/accuracy": (0.0, 1.0),
}  # An interval may reach beyond what a measure can be; an axis need not.


def beta_sweep_figure(
    rows: Sequence[Mapping[str, Any]],
    step: int,
    own: Sequence[Mapping[str, Any]] = (),
    theme: str = "light",
) -> go.Figure:
    """What runs that differ in β had reached after `step` updates: KL, gold accuracy,
    log-probabilities of chosen and rejected.

    `rows` are those of the experiment `beta`: method, beta, steps, and per measure mean and half
    the interval at each step. `own` are single runs: name, method, beta, and the measures that they
    have.
    """
    data: list[dict[str, Any]] = []
    for place, measure in enumerate(BETA_MEASURES, start=1):
        number = "" if place == 1 else str(place)
        axes = {"type": "scatter", "xaxis": f"x{number}", "yaxis": f"y{number}"}
        for order, method in enumerate(dict.fromkeys(row["method"] for row in rows)):
            mine = sorted(
                (row for row in rows if row["method"] == method), key=lambda row: row["beta"]
            )
            at = [row["steps"].index(step) for row in mine]
            data.append(
                axes
                | {
                    "mode": "lines+markers",
                    "x": [row["beta"] for row in mine],
                    "y": [row[measure]["mean"][i] for row, i in zip(mine, at)],
                    "error_y": {
                        "array": [row[measure]["half"][i] for row, i in zip(mine, at)],
                        "thickness": 1,
                        "width": 3,
                    },
                    "name": METHOD_NAMES[method],
                    "legendgroup": method,
                    "showlegend": place == 1,
                    "line": {
                        "color": METHOD_COLOURS[method],
                        "width": 2,
                        "dash": ("solid", "dash", "dot")[order % 3],
                    },
                    "marker": {"symbol": SYMBOLS[order], "size": 8},
                    "hovertemplate": "β %{x:g}: %{y:.2f} ± %{error_y.array:.2f}",
                }
            )
        for run in own:
            there = measure in run
            data.append(
                axes
                | {
                    "mode": "markers",
                    "x": [run["beta"]] if there else [],
                    "y": [run[measure]] if there else [],
                    "name": run["name"],
                    "legendgroup": run["name"],
                    "showlegend": place == 1,
                    "hovertemplate": "β %{x:g}: %{y:.2f}",
                    "marker": {
                        "symbol": "star-open",
                        "size": 13,
                        "color": METHOD_COLOURS[run["method"]],
                        "line": {"width": 2},
                    },
                }
            )
    layout: dict[str, Any] = {}
    betas = sorted({row["beta"] for row in rows})
    for place, measure in enumerate(BETA_MEASURES, start=1):
        number = "" if place == 1 else str(place)
        column, row = (place - 1) % 2, (place - 1) // 2
        means = [mean for r in rows for mean in r[measure]["mean"]]
        longest = max(means, default=0.0) - min(
            means, default=0.0
        )  # An interval of two seeds may be many times as long as all that is to be seen.
        bars = [
            (mean, min(half, longest))
            for r in rows
            for mean, half in zip(r[measure]["mean"], r[measure]["half"])
        ]
        values = [v for mean, half in bars for v in (mean - half, mean + half)]
        values += [run[measure] for run in own if measure in run]
        least, most = _BOUNDS.get(measure, (-math.inf, math.inf))
        low, high = max(least, min(values, default=0.0)), min(most, max(values, default=1.0))
        room = 0.05 * (high - low or 1.0)
        layout[f"xaxis{number}"] = {
            "domain": [(0, 0.45), (0.55, 1)][column],
            "anchor": f"y{number}",
            "type": "log",
            "title": {"text": "β (log scale)"},
            "tickvals": betas,
            "ticktext": [f"{b:g}" for b in betas],
        }
        layout[f"yaxis{number}"] = {
            "domain": [(0.58, 1), (0, 0.42)][row],
            "anchor": f"x{number}",
            "title": {"text": BETA_MEASURES[measure]},
            "range": [low - room, high + room],
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
