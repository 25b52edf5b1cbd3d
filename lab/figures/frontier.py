"""Gold reward against KL to the reference, for every method and β (arXiv 2305.18290, Fig. 2, left)."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from lab.analysis.statistics import NOT_NEGATIVE, Interval, possible_range
from lab.figures.base import empty_figure, interval_bars
from lab.figures.palette import METHOD_COLOURS, METHOD_NAMES, REFERENCE_COLOUR, SYMBOLS

_MIN_MARKER_SIZE, _MARKER_SIZE_STEP = 8, 3.0
"""In pixels: the marker of the largest β, and the increase for each smaller β."""
FRONTIER_NARROW_LAYOUT = {
    "height": 560,
    "legend": {"orientation": "h", "x": 0, "y": -0.16, "yanchor": "top"},
    "xaxis": {"title": {"text": "KL(π‖π_ref), nats (log scale)"}},
}
"""Changes to the layout of `frontier_figure` on a phone."""


def frontier_figure(table: Mapping[str, Any], theme: str = "light") -> go.Figure:
    """Return the final reward and KL of the runs of every method: one marker per β with its 95 %
    intervals, larger for a smaller β, and a thin line through the course of training.

    `table` is that of the frontier experiment. The KL axis is logarithmic, since β spreads the runs
    over three powers of ten. The reference has KL 0 and is not on it; the dashed line is its reward.
    """
    rows = table["rows"]
    lowest = min(row["end"]["kl"]["mean"] for row in rows) / 2
    highest = max(row["end"]["kl"]["mean"] for row in rows) * 1.6
    heights = [table["base"]["reward"], *(row["end"]["reward"]["mean"] for row in rows)]
    figure = empty_figure(
        theme,
        height=500,
        margin={"l": 60, "r": 10, "t": 20, "b": 50},
        legend={
            "orientation": "h",
            "x": 0,
            "y": 1.02,
            "yanchor": "bottom",
            "groupclick": "togglegroup",
        },
        xaxis={
            "title": {"text": "KL(π‖π_ref) on held-out prompts, nats per completion (log scale)"},
            "type": "log",
            "range": [math.log10(lowest), math.log10(highest)],
            "dtick": 1,
        },
        yaxis={
            "title": {"text": "gold reward (VADER, from −1 to 1)"},
            "range": [min(heights) - 0.15, max(heights) + 0.08],
        },
    )
    figure.add_hline(
        y=table["base"]["reward"],
        line={"color": REFERENCE_COLOUR, "dash": "dash", "width": 1.5},
        annotation={"text": "before training"},
        annotation_position="bottom right",
    )
    for order, method in enumerate(methods_in_order(rows)):
        method_rows = sorted(
            (row for row in rows if row["method"] == method), key=lambda row: -row["beta"]
        )
        _add_training_paths(figure, method_rows, lowest)
        _add_final_points(figure, method_rows, SYMBOLS[order], lowest)
    return figure


def methods_in_order(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the methods of the table in its order."""
    return list(dict.fromkeys(row["method"] for row in rows))


def _add_training_paths(
    figure: go.Figure, rows: Sequence[Mapping[str, Any]], lowest: float
) -> None:
    """Add the course of training of a method, one line per β, without points left of the axis."""
    x: list[float | None] = []
    y: list[float | None] = []
    texts: list[str] = []
    for row in rows:
        for step, kl, reward in zip(row["steps"], row["kl"]["mean"], row["reward"]["mean"]):
            if kl >= lowest:
                x, y, texts = [*x, kl], [*y, reward], [*texts, f"β {row['beta']:g}, update {step}"]
        x, y, texts = [*x, None], [*y, None], [*texts, ""]
    method = rows[0]["method"]
    figure.add_scatter(
        x=x,
        y=y,
        mode="lines",
        legendgroup=method,
        showlegend=False,
        opacity=0.45,
        line={"color": METHOD_COLOURS[method], "width": 1},
        customdata=texts,
        hovertemplate=(
            f"{METHOD_NAMES[method]}, %{{customdata}}: reward %{{y:.2f}}, KL"
            " %{x:.2~g}<extra></extra>"
        ),
    )


def _add_final_points(
    figure: go.Figure, rows: Sequence[Mapping[str, Any]], symbol: str, lowest: float
) -> None:
    """Add the final points of a method. An error bar that would reach below 0 nats ends at the edge of
    the figure.
    """
    method, kl, reward = (
        rows[0]["method"],
        [Interval(**row["end"]["kl"]) for row in rows],
        [Interval(**row["end"]["reward"]) for row in rows],
    )
    colour = METHOD_COLOURS[method]
    bars = {"color": colour, "thickness": 1, "width": 3}
    figure.add_scatter(
        x=[k.mean for k in kl],
        y=[r.mean for r in reward],
        mode="markers",
        name=METHOD_NAMES[method],
        legendgroup=method,
        marker={
            "color": colour,
            "symbol": symbol,
            "size": [_MIN_MARKER_SIZE + _MARKER_SIZE_STEP * order for order in range(len(rows))],
            "opacity": 1,
        },
        error_x=interval_bars(kl, (lowest / 2, math.inf)) | bars,
        error_y=interval_bars(reward, possible_range("reward")) | bars,
        customdata=[
            [
                row["beta"],
                r.text(2, possible_range("reward")),
                k.text(1, NOT_NEGATIVE),
                row["end"]["repetition"]["mean"],
            ]
            for row, r, k in zip(rows, reward, kl)
        ],
        hovertemplate=(
            f"{METHOD_NAMES[method]}, β %{{customdata[0]:.3~g}}: reward %{{customdata[1]}}, KL"
            " %{customdata[2]} nats, repeated bigrams %{customdata[3]:.2f}<extra></extra>"
        ),
    )
