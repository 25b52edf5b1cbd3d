"""Figures over the group size G: dead groups, the error of advantages and its cost, the accuracy reached."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from lab.analysis.statistics import SHARE, Interval
from lab.figures.base import empty_figure, interval_bars
from lab.figures.palette import DASHES, METHOD_COLOURS, REFERENCE_COLOUR, SYMBOLS

BUDGET_TITLES = {
    "rollouts": "equally many completions in each update",
    "prompts": "equally many prompts in each update",
}


SIZES_TITLE = "group size G (log scale)"


def _sizes(
    sizes: Sequence[int], place: int = 1, domain: Sequence[float] = (0, 1)
) -> dict[str, Any]:
    """Return the logarithmic axis of group sizes for panel number `place`."""
    axis = "" if place == 1 else str(place)
    return {
        f"xaxis{axis}": {
            "type": "log",
            "tickvals": list(sizes),
            "ticktext": [str(s) for s in sizes],
            "title": {"text": SIZES_TITLE},
            "showgrid": False,
            "range": [math.log10(min(sizes) / 1.25), math.log10(max(sizes) * 1.25)],
            "anchor": f"y{axis}",
            "domain": list(domain),
        }
    }


def dead_groups_figure(
    sizes: Sequence[int],
    observed: Mapping[str, Sequence[float]],
    expected: Mapping[str, Sequence[float]],
    theme: str = "light",
) -> go.Figure:
    """Return the share of dead groups over G: points are observed shares, lines are p^G + (1 − p)^G.
    Both have one series for every name in `observed`.
    """
    figure = empty_figure(
        theme,
        height=360,
        margin={"l": 60, "r": 12, "t": 34, "b": 50},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        **_sizes(sizes),
        yaxis={"title": {"text": "dead groups, share"}, "range": [-0.03, 1.03]},
    )
    for order, name in enumerate(observed):
        common = {"x": list(sizes), "legendgroup": name}
        if name in expected:
            figure.add_scatter(
                y=expected[name],
                mode="lines",
                line={"color": METHOD_COLOURS["grpo"], "dash": DASHES[order], "width": 2},
                showlegend=False,
                name=name,
                hovertemplate=f"{name}: p^G + (1 − p)^G = %{{y:.3f}}<extra></extra>",
                **common,
            )
        figure.add_scatter(
            y=observed[name],
            mode="markers",
            marker={"color": METHOD_COLOURS["grpo"], "symbol": SYMBOLS[order], "size": 11},
            name=name,
            hovertemplate=f"{name}: observed %{{y:.3f}}<extra></extra>",
            **common,
        )
    return figure


ERROR_AND_COST_NARROW_LAYOUT = {
    "height": 640,
    "xaxis": {"domain": [0, 1]},
    "xaxis2": {"domain": [0, 1]},
    "yaxis": {"domain": [0.58, 1]},
    "yaxis2": {"domain": [0, 0.38]},
    "legend2": {"x": 0, "y": 0.39},
}
"""Changes to the layout of `error_and_cost_figure` on a phone: the panels are stacked."""


def error_and_cost_figure(
    sizes: Sequence[int],
    error: Sequence[float],
    tokens: Sequence[float],
    seconds: Sequence[float] = (),
    theme: str = "light",
) -> go.Figure:
    """Return the benefit and the cost of a larger group. Left: the error of its advantages, and 1/√G.
    Right: tokens and seconds, in multiples of those of the smallest G.
    """
    figure = _two_panels(sizes, theme)
    grey = {"color": REFERENCE_COLOUR, "dash": "dash", "width": 2}
    figure.add_scatter(
        x=list(sizes),
        y=[error[0] * math.sqrt(sizes[0] / s) for s in sizes],
        mode="lines",
        line=grey,
        name="∝ 1/√G",
        hovertemplate="∝ 1/√G: %{y:.2f}<extra></extra>",
    )
    figure.add_scatter(
        x=list(sizes),
        y=list(error),
        mode="lines+markers",
        line={"color": METHOD_COLOURS["grpo"], "width": 2},
        marker={"size": 9},
        name="error, measured",
        hovertemplate="error %{y:.3f} std<extra></extra>",
    )
    right = {"xaxis": "x2", "yaxis": "y2", "legend": "legend2"}
    figure.add_scatter(
        x=list(sizes),
        y=[s / sizes[0] for s in sizes],
        mode="lines",
        line=grey,
        name="∝ G",
        hovertemplate="∝ G: %{y:.1f}<extra></extra>",
        **right,
    )
    for name, values, symbol, dash, form in (
        ("tokens", tokens, "circle", "solid", ",.0f"),
        ("seconds", seconds, "square", "dot", ".3g"),
    ):
        if values:
            figure.add_scatter(
                x=list(sizes),
                y=[v / values[0] for v in values],
                mode="lines+markers",
                line={"color": METHOD_COLOURS["grpo"], "width": 2, "dash": dash},
                marker={"symbol": symbol, "size": 9},
                name=name,
                customdata=list(values),
                hovertemplate=(
                    f"{name} %{{customdata:{form}}}, %{{y:.2f}} times those of G ="
                    f" {sizes[0]}<extra></extra>"
                ),
                **right,
            )
    return figure


def _two_panels(sizes: Sequence[int], theme: str) -> go.Figure:
    above = {"orientation": "h", "y": 1.02, "yanchor": "bottom"}
    return empty_figure(
        theme,
        height=360,
        margin={"l": 60, "r": 12, "t": 34, "b": 50},
        legend={"x": 0} | above,
        legend2={"x": 0.55} | above,
        **_sizes(sizes, 1, (0, 0.45)),
        **_sizes(sizes, 2, (0.55, 1)),
        yaxis={"title": {"text": "error of A (root mean square), std"}, "rangemode": "tozero"},
        yaxis2={
            "title": {"text": f"cost relative to G = {sizes[0]}"},
            "rangemode": "tozero",
            "anchor": "x2",
        },
    )


def group_size_accuracy_figure(
    rows: Sequence[Mapping[str, Any]], before: float, theme: str = "light"
) -> go.Figure:
    """Return the gold accuracy that runs with each G reached, with its interval: at equal rollouts
    and at equal prompts.

    `rows` are those of the group-size experiment's table; `before` is the accuracy before training.
    """
    sizes = sorted({row["group_size"] for row in rows})
    figure = empty_figure(
        theme,
        height=380,
        margin={"l": 60, "r": 12, "t": 34, "b": 50},
        **_sizes(sizes),
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        yaxis={"title": {"text": "gold accuracy, share"}, "range": [-0.03, 1.03]},
    )
    figure.add_hline(
        y=before,
        line={"color": REFERENCE_COLOUR, "dash": "dash", "width": 1.5},
        annotation={"text": "before training"},
        annotation_position="top left",
    )
    for order, (budget, title) in enumerate(BUDGET_TITLES.items()):
        budget_rows = sorted(
            (row for row in rows if row["budget"] == budget), key=lambda row: row["group_size"]
        )
        gold = [Interval(**row["final"]["gold/accuracy"]) for row in budget_rows]
        figure.add_scatter(
            x=[row["group_size"] * (0.97, 1.03)[order] for row in budget_rows],
            y=[g.mean for g in gold],
            mode="lines+markers",
            name=title,
            error_y=interval_bars(gold, SHARE) | {"thickness": 1, "width": 3},
            line={"color": METHOD_COLOURS["grpo"], "dash": DASHES[order], "width": 2},
            marker={"symbol": SYMBOLS[order], "size": 9},
            customdata=[
                [row["group_size"], row["batch_size"], row["final"]["seconds"]["mean"]]
                for row in budget_rows
            ],
            hovertemplate=(
                "G %{customdata[0]}: %{y:.3f}, %{customdata[1]} completions an update,"
                " %{customdata[2]:.0f} s<extra></extra>"
            ),
        )
    return figure
