"""Figure of LoRA against full fine-tuning: accuracy over the rank, and over the learning rate of one rank."""

from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go

from lab.analysis.lora_rank import row_of
from lab.analysis.statistics import SHARE, Interval
from lab.figures.base import figure_from_traces, interval_bars
from lab.figures.palette import METHOD_COLOURS, REFERENCE_COLOUR, THEMES

NARROW_LAYOUT = {
    "height": 760,
    "xaxis": {"domain": [0, 1]},
    "xaxis2": {"domain": [0, 1]},
    "yaxis": {"domain": [0.6, 1]},
    "yaxis2": {"domain": [0, 0.4]},
}
"""The part of the layout that differs on a telephone: one panel under the other."""


def lora_rank_figure(rank: float, table: Mapping[str, Any], theme: str = "light") -> go.Figure:
    """Return gold accuracy of every rank and of full fine-tuning (left), and of one rank and full
    fine-tuning at every learning rate that they tried (right).

    `table` is that of the experiment lora_rank.
    """
    picked, full = row_of(table, int(rank)), row_of(table, 0)
    trials = [
        _trials(full, "all weights", REFERENCE_COLOUR, "dash"),
        _trials(picked, picked["title"], METHOD_COLOURS["dpo"], "solid"),
    ]
    return figure_from_traces(_accuracies(table, picked, full) + trials, _layout(table, theme))


def _accuracies(
    table: Mapping[str, Any], picked: Mapping[str, Any], full: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The traces of the left panel: the line of full fine-tuning, all rows, and a ring at one rank."""
    rows = table["rows"]
    intervals = [Interval(**row["gold/accuracy"]) for row in rows]
    place = rows.index(picked)
    line = {
        "type": "scatter",
        "x": [-0.5, len(rows) - 0.5],
        "y": [full["gold/accuracy"]["mean"]] * 2,
        "mode": "lines",
        "line": {"color": REFERENCE_COLOUR, "width": 1.5, "dash": "dash"},
        "hoverinfo": "skip",
        "showlegend": False,
    }
    points = {
        "type": "scatter",
        "x": list(range(len(rows))),
        "y": [interval.mean for interval in intervals],
        "mode": "markers",
        "marker": {
            "size": 9,
            "color": [METHOD_COLOURS["dpo"] if row["rank"] else REFERENCE_COLOUR for row in rows],
        },
        "error_y": {**interval_bars(intervals, SHARE), "color": REFERENCE_COLOUR, "width": 4},
        "customdata": [
            [row["title"], interval.text(3, SHARE)] for row, interval in zip(rows, intervals)
        ],
        "hovertemplate": "%{customdata[0]}: gold %{customdata[1]}<extra></extra>",
        "showlegend": False,
    }
    ring = {
        "type": "scatter",
        "x": [place],
        "y": [intervals[place].mean],
        "mode": "markers",
        "marker": {
            "size": 20,
            "symbol": "circle-open",
            "color": METHOD_COLOURS["dpo"],
            "line": {"width": 3},
        },
        "hoverinfo": "skip",
        "showlegend": False,
    }
    return [line, points, ring]


def _trials(row: Mapping[str, Any], name: str, colour: str, dash: str) -> dict[str, Any]:
    """The accuracy of a row on the tuning prompts over the learning rates that it tried."""
    rates = [trial["learning_rate"] for trial in row["trials"]]
    return {
        "type": "scatter",
        "x": rates,
        "y": [trial["gold/accuracy"] for trial in row["trials"]],
        "xaxis": "x2",
        "yaxis": "y2",
        "mode": "lines+markers",
        "name": name,
        "line": {"color": colour, "dash": dash, "width": 2},
        "marker": {
            "size": [13 if rate == row["learning_rate"] else 8 for rate in rates],
            "symbol": ["diamond" if rate == row["learning_rate"] else "circle" for rate in rates],
        },
        "hovertemplate": f"{name}, learning rate %{{x:~g}}: %{{y:.3f}}<extra></extra>",
    }


def _layout(table: Mapping[str, Any], theme: str) -> dict[str, Any]:
    rows = table["rows"]
    tried = [trial["learning_rate"] for row in table["rows"] for trial in row["trials"]]
    low, high = min(tried), max(tried)
    exponents = [10.0**exponent for exponent in range(-6, 1) if low <= 10.0**exponent <= high]
    return {
        "template": {"layout": THEMES[theme]["layout"]},
        "height": 400,
        "margin": {"l": 60, "r": 10, "t": 40, "b": 50},
        "legend": {"orientation": "h", "x": 1, "xanchor": "right", "y": 1, "yanchor": "bottom"},
        "xaxis": {
            "domain": [0, 0.46],
            "title": {"text": "rank of LoRA"},
            "tickvals": list(range(len(rows))),
            "ticktext": [row["title"].removeprefix("rank ") for row in rows],
            "range": [-0.5, len(rows) - 0.5],
        },
        "yaxis": {"title": {"text": "gold accuracy, test prompts"}, "range": [0, 1]},
        "xaxis2": {
            "domain": [0.56, 1],
            "anchor": "y2",
            "type": "log",
            "title": {"text": "learning rate"},
            "tickvals": exponents,
            "ticktext": [f"{value:g}" for value in exponents],
        },
        "yaxis2": {
            "anchor": "x2",
            "title": {"text": "gold accuracy, tuning prompts"},
            "range": [0, 1],
        },
    }
