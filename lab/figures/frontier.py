"""Gold reward against KL to the reference, for every method and β (arXiv 2305.18290, Fig. 2, left)."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from lab.figures.base import empty_figure
from lab.figures.palette import METHOD_COLOURS, METHOD_NAMES, REFERENCE_COLOUR, SYMBOLS

SMALLEST, STEP = (
    8,
    3.0,
)  # pixels of the marker of the largest β, and how much the next smaller one adds
FRONTIER_NARROW_LAYOUT = {
    "height": 560,
    "legend": {"orientation": "h", "x": 0, "y": -0.16, "yanchor": "top"},
    "xaxis": {"title": {"text": "KL(π‖π_ref), nats (log scale)"}},
}
"""What of the layout of `frontier` differs on a telephone."""


def frontier_figure(table: Mapping[str, Any], theme: str = "light") -> go.Figure:
    """The ends of every method's runs, one marker a β with its 95 % intervals, larger for a smaller
    β, and thin behind it the way of training.

    `table` is that of the frontier experiment. KL is on a logarithmic axis: β's work spreads over
    three powers of ten. The reference, at KL 0, is not on it; its reward is the dashed line.
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
    for place, method in enumerate(methods_in_order(rows)):
        own = sorted((row for row in rows if row["method"] == method), key=lambda row: -row["beta"])
        _ways(figure, own, lowest)
        _ends(figure, own, SYMBOLS[place], lowest)
    return figure


def methods_in_order(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The methods of the table in its order."""
    return list(dict.fromkeys(row["method"] for row in rows))


def _ways(figure: go.Figure, rows: Sequence[Mapping[str, Any]], lowest: float) -> None:
    """Where the runs of a method went, one line a β, as far as they lie on the axis."""
    x, y, said = [], [], []
    for row in rows:
        for step, kl, reward in zip(row["steps"], row["kl"]["mean"], row["reward"]["mean"]):
            if kl >= lowest:
                x, y, said = [*x, kl], [*y, reward], [*said, f"β {row['beta']:g}, update {step}"]
        x, y, said = [*x, None], [*y, None], [*said, ""]
    method = rows[0]["method"]
    figure.add_scatter(
        x=x,
        y=y,
        mode="lines",
        legendgroup=method,
        showlegend=False,
        opacity=0.45,
        line={"color": METHOD_COLOURS[method], "width": 1},
        customdata=said,
        hovertemplate=(
            f"{METHOD_NAMES[method]}, %{{customdata}}: reward %{{y:.2f}}, KL"
            " %{x:.2g}<extra></extra>"
        ),
    )


def _ends(figure: go.Figure, rows: Sequence[Mapping[str, Any]], symbol: str, lowest: float) -> None:
    """Where the runs of a method ended; a bar that would reach below 0 nats ends at the edge of the
    picture.
    """
    method, kl, reward = (
        rows[0]["method"],
        [row["end"]["kl"] for row in rows],
        [row["end"]["reward"] for row in rows],
    )
    colour = METHOD_COLOURS[method]
    bars = {"color": colour, "thickness": 1, "width": 3}
    figure.add_scatter(
        x=[k["mean"] for k in kl],
        y=[r["mean"] for r in reward],
        mode="markers",
        name=METHOD_NAMES[method],
        legendgroup=method,
        marker={
            "color": colour,
            "symbol": symbol,
            "size": [SMALLEST + STEP * place for place in range(len(rows))],
            "opacity": 1,
        },
        error_x={
            "array": [k["half"] for k in kl],
            "arrayminus": [min(k["half"], k["mean"] - lowest / 2) for k in kl],
        }
        | bars,
        error_y={"array": [r["half"] for r in reward]} | bars,
        customdata=[
            [row["beta"], r["half"], k["half"], row["end"]["repetition"]["mean"]]
            for row, r, k in zip(rows, reward, kl)
        ],
        hovertemplate=(
            f"{METHOD_NAMES[method]}, β %{{customdata[0]:g}}: reward %{{y:.2f}} ±"
            " %{customdata[1]:.2f}, KL %{x:.2g} ± %{customdata[2]:.2g} nats, repeated"
            " bigrams %{customdata[3]:.2f}<extra></extra>"
        ),
    )
