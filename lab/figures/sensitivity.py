"""Figure of how much each setting of RLHF matters."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from lab.analysis.statistics import SHARE, Interval
from lab.figures.base import empty_figure, interval_bars
from lab.figures.palette import METHOD_COLOURS, METHOD_NAMES, REFERENCE_COLOUR, THEMES

_KNOB_NAMES = {
    "learning_rate": "learning rate",
    "critic_learning_rate": "critic learning rate",
    "epsilon": "ε",
    "beta": "β",
}


_MARKERS = {
    "low": ("÷", -0.22, "triangle-left"),
    "centre": ("", 0.0, "circle"),
    "high": ("×", 0.22, "triangle-right"),
}
"""For each setting of a knob: the sign before the factor, the offset from its row, and the symbol."""


def sensitivity_figure(table: Mapping[str, Any], theme: str = "light") -> go.Figure:
    """Return one row per knob: the gold accuracy with the knob divided by the factor of the table, as
    it is, and multiplied by it, each with its interval.

    `table` is that of the sensitivity experiment; the rows stand in its order, from the top.
    """
    rows, factor = table["rows"], f"{table['factor']:g}"
    figure = empty_figure(
        theme,
        height=90 + 44 * len(rows),
        margin={"l": 10, "r": 10, "t": 40, "b": 50},
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0},
        xaxis={"title": {"text": "gold accuracy, share"}, "range": [-0.03, 1.03]},
        yaxis={
            "tickvals": list(range(len(rows))),
            "ticktext": [knob_name(row) for row in rows],
            "autorange": "reversed",
            "automargin": True,
            "zeroline": False,
        },
    )
    for number, row in enumerate(rows):
        means = [row[setting]["mean"] for setting in _MARKERS]
        figure.add_scatter(
            x=[min(means), max(means)],
            y=[number, number],
            mode="lines",
            line={"color": METHOD_COLOURS[row["method"]], "width": 1, "dash": "dot"},
            showlegend=False,
            hoverinfo="skip",
        )
    for setting, (sign, _, symbol) in _MARKERS.items():
        title = f"{sign} {factor}" if sign else "default"
        figure.add_scatter(
            x=[None],
            y=[None],
            mode="markers",
            name=title,
            marker={"symbol": symbol, "size": 11, "color": THEMES[theme]["muted"]},
        )
        figure.add_scatter(**_setting_markers(rows, setting, title))
    return figure


def _setting_markers(rows: Sequence[Mapping[str, Any]], setting: str, title: str) -> dict[str, Any]:
    """Return the markers of all knobs at one setting (low, centre or high), with their intervals."""
    _, offset, symbol = _MARKERS[setting]
    intervals = [Interval(row[setting]["mean"], row[setting]["half"]) for row in rows]
    return {
        "x": [row[setting]["mean"] for row in rows],
        "y": [number + offset for number in range(len(rows))],
        "mode": "markers",
        "name": title,
        "showlegend": False,
        "marker": {
            "symbol": symbol,
            "size": 11,
            "color": [METHOD_COLOURS[row["method"]] for row in rows],
        },
        "error_x": {
            **interval_bars(intervals, SHARE),
            "color": REFERENCE_COLOUR,
            "thickness": 1.5,
            "width": 3,
        },
        "customdata": [
            [knob_name(row), interval.text(2, SHARE)] for row, interval in zip(rows, intervals)
        ],
        "hovertemplate": (f"%{{customdata[0]}} {title}: gold %{{customdata[1]}}<extra></extra>"),
    }


def knob_name(row: Mapping[str, Any]) -> str:
    """Return the title of a row: its method and its knob."""
    return f"{METHOD_NAMES[row['method']]}, {knob_word(row)}"


def knob_word(row: Mapping[str, Any]) -> str:
    """Return the title of the knob of a row."""
    return _KNOB_NAMES.get(row["knob"], row["knob"].replace("_", " "))
