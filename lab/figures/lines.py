"""Figure of a few curves over one axis, coloured by method."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from lab.figures.palette import DASHES, METHOD_COLOURS, REFERENCE_COLOUR, SYMBOLS, THEMES


def line_figure(
    x: Sequence[float],
    curves: Mapping[str, tuple[str, Sequence[float]]],
    across: str,
    up: str,
    *,
    y_range: tuple[float, float] | None = None,
    marks: Mapping[str, float] | None = None,
    points: bool = False,
    theme: str = "light",
) -> go.Figure:
    """Return curves over one axis. `curves` maps a name to its method and its y values at `x`; curves
    of one method differ in dash and symbol.

    `across` and `up` are the titles of the axes, with symbol and unit. `y_range` fixes the y axis
    while a slider moves the curves. `marks` are labelled vertical lines. `points` adds a symbol at
    each x.
    """
    figure = go.Figure()
    orders: dict[str, int] = {}
    for name, (method, y_values) in curves.items():
        order = orders[method] = orders.get(method, -1) + 1
        figure.add_scatter(
            x=list(x),
            y=list(y_values),
            name=name,
            mode="lines+markers" if points else "lines",
            line={"color": METHOD_COLOURS[method], "dash": DASHES[order], "width": 2.5},
            marker={"symbol": SYMBOLS[order], "size": 8},
            hovertemplate="%{y:.4~g}",
        )
    shapes, notes = _vertical_lines(marks or {})
    return figure.update_layout(
        template={"layout": THEMES[theme]["layout"]},
        height=380,
        margin={"l": 60, "r": 20, "t": 40, "b": 50},
        hovermode="x unified",
        shapes=shapes,
        annotations=notes,
        showlegend=True,
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        xaxis={"title": {"text": across}},
        yaxis={"title": {"text": up}, "range": y_range},
    )


def _vertical_lines(
    marks: Mapping[str, float],
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the shapes and the labels of vertical lines; `marks` maps a label to its x."""
    shapes: list[dict[str, Any]] = [
        {
            "type": "line",
            "x0": x,
            "x1": x,
            "yref": "paper",
            "y0": 0,
            "y1": 1,
            "line": {"color": REFERENCE_COLOUR, "dash": "dash", "width": 1.5},
        }
        for x in marks.values()
    ]
    notes = [
        {
            "x": x,
            "yref": "paper",
            "y": 1,
            "yanchor": "top",
            "xanchor": "left",
            "xshift": 4,
            "showarrow": False,
            "text": text,
        }
        for text, x in marks.items()
    ]
    return shapes, notes
