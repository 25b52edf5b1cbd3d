"""Figure of how much each setting of RLHF matters."""

from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go

from lab.figures.base import empty_figure
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
"""Per setting of a knob the sign before the factor, how far above its row it stands, and its
symbol.
"""


def sensitivity_figure(table: Mapping[str, Any], theme: str = "light") -> go.Figure:
    """A row per knob: gold accuracy with the knob divided, as it is and multiplied by the table's
    factor, each with its interval.

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
        colour = METHOD_COLOURS[row["method"]]
        means = [row[word]["mean"] for word in _MARKERS]
        figure.add_scatter(
            x=[min(means), max(means)],
            y=[number, number],
            mode="lines",
            line={"color": colour, "width": 1, "dash": "dot"},
            showlegend=False,
            hoverinfo="skip",
        )
    for word, (sign, above, symbol) in _MARKERS.items():
        title = f"{sign} {factor}" if sign else "as it is"
        figure.add_scatter(
            x=[None],
            y=[None],
            mode="markers",
            name=title,
            marker={"symbol": symbol, "size": 11, "color": THEMES[theme]["muted"]},
        )
        figure.add_scatter(
            x=[row[word]["mean"] for row in rows],
            y=[number + above for number in range(len(rows))],
            mode="markers",
            name=title,
            showlegend=False,
            marker={
                "symbol": symbol,
                "size": 11,
                "color": [METHOD_COLOURS[row["method"]] for row in rows],
            },
            error_x={
                "array": [row[word]["half"] for row in rows],
                "color": REFERENCE_COLOUR,
                "thickness": 1.5,
                "width": 3,
            },
            customdata=[knob_name(row) for row in rows],
            hovertemplate=(
                f"%{{customdata}} {title}: gold %{{x:.2f}} ± %{{error_x.array:.2f}}<extra></extra>"
            ),
        )
    return figure


def knob_name(row: Mapping[str, Any]) -> str:
    """Method and knob of a row in words."""
    return f"{METHOD_NAMES[row['method']]}, {knob_word(row)}"


def knob_word(row: Mapping[str, Any]) -> str:
    """The knob of a row in words."""
    return _KNOB_NAMES.get(row["knob"], row["knob"].replace("_", " "))
