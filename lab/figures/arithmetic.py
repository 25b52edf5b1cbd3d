"""GRPO on sums with a language model: a run with checked answers beside two that are paid by
something else, a checker that can be fooled and a coin.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from lab.figures.base import axis_name, empty_figure
from lab.figures.palette import DASHES, METHOD_COLOURS, REFERENCE_COLOUR, SYMBOLS

REWARD_TITLES = {
    "rollouts": "checked answers",
    "math": "a checker that can be fooled",
    "random": "random rewards",
}
_PANELS = {
    "reward": ("steps", "reward paid, mean"),
    "gold/accuracy": ("looks", "gold accuracy, share"),
    "length": ("steps", "length, tokens"),
    "entropy": ("steps", "entropy, nats per token"),
}
"""What is drawn of each, the updates at which it was measured, and the title of its axis."""

_SHARES = ("reward", "gold/accuracy")
_MAX_SYMBOLS = 9  # symbols on a line that is measured at every update


def arithmetic_figure(
    rows: Sequence[Mapping[str, Any]], base: Mapping[str, float], theme: str = "light"
) -> go.Figure:
    """Over updates: the reward paid in training, gold accuracy on held-out sums, length and entropy
    of the completions trained on, means over seeds with 95 % intervals. The upper two share their
    scale, so that what is paid can be held against what is right.

    `rows` are arms of the arithmetic experiment that differ in their reward alone; `base` is the
    model before training, dashed.
    """
    axes: dict[str, Any] = {}
    for place, (name, (_, title)) in enumerate(_PANELS.items(), 1):
        left, upper = place % 2 == 1, place <= 2
        high = 1.04 if name in _SHARES else 1.2 * max(max(row[name]["mean"]) for row in rows)
        axes[axis_name("xaxis", place)] = {
            "domain": [0, 0.45] if left else [0.55, 1],
            "anchor": axis_name("y", place),
            "rangemode": "tozero",
            "title": {"text": "step (updates)", "standoff": 6},
        }
        axes[axis_name("yaxis", place)] = {
            "domain": [0.6, 1] if upper else [0, 0.4],
            "anchor": axis_name("x", place),
            "title": {"text": title},
            "range": [0, high],
        }
    figure = empty_figure(
        theme,
        height=580,
        margin={"l": 54, "r": 12, "t": 40, "b": 50},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        **axes,
    )
    for order, row in enumerate(rows):
        for place, (name, (steps, _)) in enumerate(_PANELS.items(), 1):
            _curve(figure, row[steps], row[name], REWARD_TITLES[row["equal"]], order, place)
    looks = rows[0]["looks"]
    figure.add_scatter(
        x=[looks[0], looks[-1]],
        y=[base["gold/accuracy"]] * 2,
        mode="lines",
        name="before training",
        hoverinfo="skip",
        xaxis="x2",
        yaxis="y2",
        line={"color": REFERENCE_COLOUR, "dash": "dash", "width": 1.5},
    )
    return figure


def _curve(
    figure: go.Figure,
    steps: Sequence[int],
    found: Mapping[str, Sequence[float]],
    name: str,
    order: int,
    place: int,
) -> None:
    """One line with its interval: bars where it was measured a few times, a band where at every
    update.
    """
    green, few = METHOD_COLOURS["grpo"], len(steps) <= 16
    where = {"xaxis": axis_name("x", place), "yaxis": axis_name("y", place), "legendgroup": name}
    bars = {"error_y": {"array": found["half"], "thickness": 1, "width": 3}} if few else {}
    if not few:
        high, low = (
            [max(0.0, m + sign * h) for m, h in zip(found["mean"], found["half"])]
            for sign in (1, -1)
        )  # none can be negative
        figure.add_scatter(
            x=[*steps, *reversed(steps)],
            y=[*high, *reversed(low)],
            fill="toself",
            mode="none",
            fillcolor="rgba(0,158,115,0.11)",
            hoverinfo="skip",
            showlegend=False,
            **where,
        )
    figure.add_scatter(
        x=list(steps),
        y=found["mean"],
        mode="lines+markers",
        name=name,
        showlegend=place == 1,
        line={"color": green, "dash": DASHES[order], "width": 2},
        marker={"symbol": SYMBOLS[order], "size": 8, "maxdisplayed": 0 if few else _MAX_SYMBOLS},
        customdata=found["half"],
        hovertemplate=f"{name}, update %{{x}}: %{{y:.3g}} ± %{{customdata:.2g}}<extra></extra>",
        **where,
        **bars,
    )


def arithmetic_narrow_layout() -> dict[str, Any]:
    """What of the layout of `trained` differs on a telephone: its panels stand under each other."""
    count = len(_PANELS)
    layout: dict[str, Any] = {"height": 270 * count, "legend": {"y": 1.0, "yanchor": "bottom"}}
    for place in range(1, count + 1):
        low = 1 - place / count
        layout[axis_name("xaxis", place)] = {"domain": [0, 1]}
        layout[axis_name("yaxis", place)] = {"domain": [low + 0.24 / count, low + 0.95 / count]}
    return layout
