"""Figure of GRPO on arithmetic with a language model, under three rewards: checked answers, a
checker that can be fooled, and random rewards.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from lab.analysis.statistics import NOT_NEGATIVE, SHARE, Interval, Range
from lab.figures.base import axis_name, empty_figure, interval_bars
from lab.figures.palette import DASHES, METHOD_COLOURS, REFERENCE_COLOUR, SYMBOLS

REWARD_TITLES = {
    "rollouts": "checked answers",
    "math": "a checker that can be fooled",
    "random": "random rewards",
}
_PANELS = {
    "reward": ("steps", "mean reward of the batch"),
    "gold/accuracy": ("looks", "gold accuracy, share"),
    "length": ("steps", "length, tokens"),
    "entropy": ("steps", "entropy, nats per token"),
}
"""For each panel: the key of the updates at which it was measured, and the title of its y axis."""

_SHARES = ("reward", "gold/accuracy")
_MAX_SYMBOLS = 9  # Symbols on a line that is measured at every update.


def arithmetic_figure(
    rows: Sequence[Mapping[str, Any]], base: Mapping[str, float], theme: str = "light"
) -> go.Figure:
    """Return four panels over updates: the reward in training, gold accuracy on held-out prompts, and
    length and entropy of the training completions. Curves are means over seeds with 95 % intervals.
    The first two panels share their scale, so that reward and accuracy can be compared.

    `rows` are arms of the arithmetic experiment that differ in their reward alone; `base` holds the
    measures of the model before training (dashed).
    """
    axes: dict[str, Any] = {}
    for number, (name, (_, title)) in enumerate(_PANELS.items(), 1):
        left, upper = number % 2 == 1, number <= 2
        high = 1.04 if name in _SHARES else 1.2 * max(max(row[name]["mean"]) for row in rows)
        axes[axis_name("xaxis", number)] = {
            "domain": [0, 0.45] if left else [0.55, 1],
            "anchor": axis_name("y", number),
            "rangemode": "tozero",
            "title": {"text": "step (updates)", "standoff": 6},
        }
        axes[axis_name("yaxis", number)] = {
            "domain": [0.6, 1] if upper else [0, 0.4],
            "anchor": axis_name("x", number),
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
        for number, (name, (steps, _)) in enumerate(_PANELS.items(), 1):
            possible = SHARE if name in _SHARES else NOT_NEGATIVE
            title = REWARD_TITLES[row["equal"]]
            _curve(figure, row[steps], row[name], possible, title, order, number)
    steps = rows[0]["looks"]
    figure.add_scatter(
        x=[steps[0], steps[-1]],
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
    values: Mapping[str, Sequence[float]],
    possible: Range,
    name: str,
    order: int,
    number: int,
) -> None:
    """Add one line with its interval: error bars if it has few points, otherwise a band."""
    colour, few = METHOD_COLOURS["grpo"], len(steps) <= 16
    common = {"xaxis": axis_name("x", number), "yaxis": axis_name("y", number), "legendgroup": name}
    intervals = [Interval(mean, half) for mean, half in zip(values["mean"], values["half"])]
    bars = {"error_y": interval_bars(intervals, possible) | {"thickness": 1, "width": 3}}
    if not few:
        low, high = zip(*(interval.ends(possible) for interval in intervals))
        figure.add_scatter(
            x=[*steps, *reversed(steps)],
            y=[*high, *reversed(low)],
            fill="toself",
            mode="none",
            fillcolor="rgba(0,158,115,0.11)",
            hoverinfo="skip",
            showlegend=False,
            **common,
        )
    figure.add_scatter(
        x=list(steps),
        y=values["mean"],
        mode="lines+markers",
        name=name,
        showlegend=number == 1,
        line={"color": colour, "dash": DASHES[order], "width": 2},
        marker={"symbol": SYMBOLS[order], "size": 8, "maxdisplayed": 0 if few else _MAX_SYMBOLS},
        customdata=[interval.text(2, possible) for interval in intervals],
        hovertemplate=f"{name}, update %{{x}}: %{{customdata}}<extra></extra>",
        **common,
        **(bars if few else {}),
    )


def arithmetic_narrow_layout() -> dict[str, Any]:
    """Return the changes to the layout of `arithmetic_figure` on a phone: the panels are stacked."""
    count = len(_PANELS)
    layout: dict[str, Any] = {"height": 270 * count, "legend": {"y": 1.0, "yanchor": "bottom"}}
    for number in range(1, count + 1):
        low = 1 - number / count
        layout[axis_name("xaxis", number)] = {"domain": [0, 1]}
        layout[axis_name("yaxis", number)] = {"domain": [low + 0.24 / count, low + 0.95 / count]}
    return layout
