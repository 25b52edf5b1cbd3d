"""Figure of how far a policy moves away from its fixed training data."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from lab.analysis.statistics import LOG_PROBABILITY, SHARE, Interval
from lab.figures.base import axis_name, empty_figure, interval_bars
from lab.figures.palette import METHOD_COLOURS, METHOD_NAMES, REFERENCE_COLOUR

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
    """Return curves over training, one small panel for each method. Panel "logps" shows the
    log-probability of the fixed pairs, "covered" the share of the policy's own completions that the
    pairs contain.

    `rows` are those of the drift experiment's table, `methods` are the methods to draw. Bars are 95 %
    intervals over seeds.
    """
    shown = [row for row in rows if row["method"] in methods]
    figure = empty_figure(
        theme,
        height=330,
        margin={"l": 60, "r": 10, "t": 62, "b": 50},
        hovermode="x",
        legend={"orientation": "h", "x": 0, "y": 1.12, "yanchor": "bottom"},
        **_small_axes(shown, panel),
    )
    for number, row in enumerate(shown, start=1):
        figure.add_traces(_method_traces(row, panel, number))
    for _, word, dash, symbol in DRIFT_PANELS[panel]:
        figure.add_scatter(
            x=[None],
            y=[None],
            name=word,
            mode="lines+markers",
            line={"color": REFERENCE_COLOUR, "dash": dash, "width": 2},
            marker={"symbol": symbol, "size": 7},
        )
    return figure


def drift_narrow_layout(methods: int) -> dict[str, Any]:
    """Return the changes to the layout of `drift_figure` on a narrow screen: its panels are stacked."""
    layout: dict[str, Any] = {"height": 62 + 250 * methods, "legend": {"y": 1 + 0.1 / methods}}
    for number in range(1, methods + 1):
        top = 1 - (number - 1) / methods
        layout[axis_name("xaxis", number)] = {"domain": [0, 1]}
        layout[axis_name("yaxis", number)] = {
            "domain": [top - 0.7 / methods, top - 0.06 / methods],
            "matches": None,
            "showticklabels": True,
        }
    return layout


def _small_axes(rows: Sequence[Mapping[str, Any]], panel: str) -> dict[str, Any]:
    """Return the axes of one panel for each method, side by side, each with its method as title. They
    share the y axis, so that heights can be compared.
    """
    axes: dict[str, Any] = {}
    for number, row in enumerate(rows, start=1):
        low = (number - 1) / len(rows)
        axes[axis_name("xaxis", number)] = {
            "domain": [low, low + 0.9 / len(rows)],
            "anchor": axis_name("y", number),
            "title": {"text": f"<b>{METHOD_NAMES[row['method']]}</b>, step (updates)"},
        }
        axes[axis_name("yaxis", number)] = (
            {"anchor": axis_name("x", number)}
            | ({} if panel == "logps" else {"range": [-0.03, 1.03]})
            | ({"matches": "y"} if number > 1 else {})
            | ({"title": {"text": DRIFT_AXIS_TITLES[panel]}} if number == 1 else {})
        )
    return axes


def _method_traces(row: Mapping[str, Any], panel: str, number: int) -> list[go.Scatter]:
    """Return the two curves of a method with their intervals, in the panel `number`."""
    possible = LOG_PROBABILITY if panel == "logps" else SHARE
    traces = []
    for name, word, dash, symbol in DRIFT_PANELS[panel]:
        intervals = [Interval(m or 0.0, h or 0.0) for m, h in zip(row[name], row[f"{name} ±"])]
        traces.append(
            go.Scatter(
                x=row["step"],
                y=row[name],
                xaxis=axis_name("x", number),
                yaxis=axis_name("y", number),
                name=f"{METHOD_NAMES[row['method']]}, {word}",
                showlegend=False,
                mode="lines+markers",
                line={"color": METHOD_COLOURS[row["method"]], "dash": dash, "width": 2},
                marker={"symbol": symbol, "size": 7},
                error_y=interval_bars(intervals, possible) | {"thickness": 1, "width": 2},
                hovertemplate="%{y:.2f}",
            )
        )
    return traces
