"""Figure of the length of right and of wrong answers while GRPO trains."""

from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go

from lab.analysis.answer_length import KINDS, REDUCTIONS, unit
from lab.analysis.statistics import NOT_NEGATIVE, Interval
from lab.figures.base import axis_name, empty_figure, interval_bars
from lab.figures.palette import DASHES, METHOD_COLOURS, SYMBOLS


def answer_length_figure(table: Mapping[str, Any], theme: str = "light") -> go.Figure:
    """Return two panels over updates: the length of right completions and that of wrong ones, one line
    for each reduction. Both have one scale. Bars are 95 % intervals over seeds.
    """
    axes: dict[str, Any] = {}
    for number, kind in enumerate(KINDS, 1):
        axes[axis_name("xaxis", number)] = {
            "domain": [0, 0.45] if number == 1 else [0.55, 1],
            "anchor": axis_name("y", number),
            "rangemode": "tozero",
            "title": {"text": "step (updates)", "standoff": 6},
        }
        axes[axis_name("yaxis", number)] = {
            "anchor": axis_name("x", number),
            "title": {"text": f"{kind}: {unit(table)}"},
            "range": [0, 1.05 * _highest(table)],
        }
    figure = empty_figure(
        theme,
        height=380,
        margin={"l": 54, "r": 12, "t": 70, "b": 50},
        legend={"orientation": "h", "y": 1.04, "yanchor": "bottom", "x": 0},
        **axes,
    )
    for order, row in enumerate(table["rows"]):
        for number, kind in enumerate(KINDS, 1):
            figure.add_scatter(
                xaxis=axis_name("x", number),
                yaxis=axis_name("y", number),
                showlegend=number == 1,
                **_curve(row, kind, order),
            )
    return figure


def _highest(table: Mapping[str, Any]) -> float:
    """Return the upper end of the highest interval of both panels."""
    curves = [row[f"{kind}_relative"] for row in table["rows"] for kind in KINDS]
    return float(max(m + h for curve in curves for m, h in zip(curve["mean"], curve["half"])))


def _curve(row: Mapping[str, Any], kind: str, order: int) -> dict[str, Any]:
    name, curve = REDUCTIONS[row["reduction"]], row[f"{kind}_relative"]
    intervals = [Interval(*point) for point in zip(curve["mean"], curve["half"])]
    return {
        "x": row["updates"],
        "y": curve["mean"],
        "mode": "lines+markers",
        "name": name,
        "legendgroup": name,
        "line": {"color": METHOD_COLOURS["grpo"], "width": 2, "dash": DASHES[order]},
        "marker": {"symbol": SYMBOLS[order], "size": 8},
        "error_y": interval_bars(intervals, NOT_NEGATIVE) | {"thickness": 1, "width": 3},
        "customdata": [interval.text(2, NOT_NEGATIVE) for interval in intervals],
        "hovertemplate": f"{name}, {kind}, update %{{x}}: %{{customdata}}<extra></extra>",
    }


def answer_length_narrow_layout() -> dict[str, Any]:
    """Return the changes to the layout of `answer_length_figure` on a phone: the panels are stacked."""
    return {
        "height": 620,
        "margin": {"t": 100},
        "xaxis": {"domain": [0, 1]},
        "xaxis2": {"domain": [0, 1]},
        "yaxis": {"domain": [0.58, 1]},
        "yaxis2": {"domain": [0, 0.42]},
    }
