"""Figure of how far a policy moves away from its fixed training data."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from lab.analysis.statistics import LOG_PROBABILITY, SHARE, Interval
from lab.figures.base import empty_figure, interval_bars
from lab.figures.palette import METHOD_COLOURS, METHOD_NAMES

DRIFT_PANELS = {
    "logps": (
        ("logps/chosen", "chosen", "solid", "circle"),
        ("logps/rejected", "rejected", "dash", "x"),
    ),
    "covered": (
        ("right_covered", "right completions", "solid", "circle"),
        ("wrong_covered", "wrong completions", "dash", "x"),
    ),
}
DRIFT_AXIS_TITLES = {
    "logps": "log π of the fixed pairs, nats per completion",
    "covered": "the policy's completions in the data, share",
}


def drift_figure(
    rows: Sequence[Mapping[str, Any]], methods: Sequence[str], panel: str, theme: str = "light"
) -> go.Figure:
    """Return a curve over training. Panel "logps" shows the log-probability of the fixed pairs,
    "covered" the share of the policy's own completions that the pairs contain.

    `rows` are those of the drift experiment's table, `methods` are the methods to draw. Bars are 95 %
    intervals over seeds.
    """
    possible = LOG_PROBABILITY if panel == "logps" else SHARE
    lowest = {} if panel == "logps" else {"range": [-0.03, 1.03]}
    figure = empty_figure(
        theme,
        height=400,
        margin={"l": 60, "r": 10, "t": 10, "b": 50},
        hovermode="x",
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        xaxis={"title": {"text": "step (updates)"}},
        yaxis={"title": {"text": DRIFT_AXIS_TITLES[panel]}} | lowest,
    )
    for row in rows:
        if row["method"] not in methods:
            continue
        for name, word, dash, symbol in DRIFT_PANELS[panel]:
            intervals = [Interval(m or 0.0, h or 0.0) for m, h in zip(row[name], row[f"{name} ±"])]
            figure.add_scatter(
                x=row["step"],
                y=row[name],
                name=f"{METHOD_NAMES[row['method']]}, {word}",
                mode="lines+markers",
                line={"color": METHOD_COLOURS[row["method"]], "dash": dash, "width": 2},
                marker={"symbol": symbol, "size": 7},
                error_y=interval_bars(intervals, possible) | {"thickness": 1, "width": 2},
                hovertemplate="%{y:.2f}",
            )
    return figure
