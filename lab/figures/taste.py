"""Figure of the number of labels that a taste needs."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from lab.analysis.statistics import SHARE, Interval
from lab.figures.base import axis_name, empty_figure, interval_bars
from lab.figures.palette import METHOD_COLOURS, REFERENCE_COLOUR

TASTE_PANELS = {
    "agreement": "agreement with the rule, share",
    "gold": "gold accuracy of the policy, share",
}
PICK_STYLES = {
    "random": ("at random", "dash", "circle-open"),
    "uncertain": ("least sure", "solid", "circle"),
}


def taste_figure(table: Mapping[str, Any], noise: float, theme: str = "light") -> go.Figure:
    """Return both measures against the number of labels, one line for each way to pick the next pair,
    for labellers with this noise.

    `table` is that of the experiment `taste`. Bars are 95 % intervals over seeds; the grey lines are the
    goal and, for gold accuracy, the base.
    """
    counts = table["plan"]["counts"]
    figure = empty_figure(
        theme,
        height=380,
        margin={"l": 60, "r": 10, "t": 40, "b": 50},
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        **_axes(counts),
    )
    for number, measure in enumerate(TASTE_PANELS, start=1):
        axes = {"xaxis": axis_name("x", number), "yaxis": axis_name("y", number)}
        for row in table["rows"]:
            if row["noise"] != noise:
                continue
            name, dash, symbol = PICK_STYLES[row["pick"]]
            intervals = [Interval(m, h) for m, h in zip(row[measure]["mean"], row[measure]["half"])]
            figure.add_scatter(
                x=counts,
                y=row[measure]["mean"],
                name=name,
                legendgroup=name,
                showlegend=number == 1,
                mode="lines+markers",
                line={"color": METHOD_COLOURS[table["plan"]["method"]], "dash": dash, "width": 2},
                marker={"symbol": symbol, "size": 8},
                error_y=interval_bars(intervals, SHARE) | {"thickness": 1, "width": 3},
                customdata=[own.text(2, SHARE) for own in intervals],
                hovertemplate="%{x} labels: %{customdata}",
                **axes,
            )
        levels = [("goal", table["goal"], "dot")]
        levels += [("base", table["base"]["mean"], "dash")] if measure == "gold" else []
        for name, level, dash in levels:
            figure.add_scatter(
                x=[counts[0], counts[-1]],
                y=[level, level],
                name=name,
                legendgroup=name,
                showlegend=number == len(TASTE_PANELS),
                mode="lines",
                line={"color": REFERENCE_COLOUR, "dash": dash, "width": 1},
                hovertemplate=f"{name}: %{{y:.2f}}",
                **axes,
            )
    return figure


def _axes(counts: Sequence[int]) -> dict[str, Any]:
    axes: dict[str, Any] = {}
    for number, (measure, domain) in enumerate(zip(TASTE_PANELS, ((0, 0.45), (0.55, 1))), start=1):
        axes[axis_name("xaxis", number)] = {
            "domain": domain,
            "type": "log",
            "tickvals": list(counts),
            "ticktext": [str(count) for count in counts],
            "title": {"text": "labels (log scale)"},
            "anchor": axis_name("y", number),
        }
        axes[axis_name("yaxis", number)] = {
            "range": [0.28, 1.02],
            "title": {"text": TASTE_PANELS[measure]},
            "anchor": axis_name("x", number),
        }
    return axes


def taste_narrow_layout() -> dict[str, Any]:
    """Return the layout that puts the second panel below the first in a narrow window."""
    return {
        "height": 640,
        "xaxis": {"domain": [0, 1]},
        "xaxis2": {"domain": [0, 1]},
        "yaxis": {"domain": [0.57, 1]},
        "yaxis2": {"domain": [0, 0.43]},
    }
