"""GRPO on sums with a language model: a run with checked answers beside its control, whose rewards are a coin's."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from lab.figures.curves import axis
from lab.figures.frame import frame
from lab.figures.palette import DASHES, METHOD_COLOURS, REFERENCE, SYMBOLS

ARMS = {"rollouts": "checked answers", "random": "random rewards"}
PANELS = {"gold/accuracy": ("looks", "gold accuracy, share"), "length": ("steps", "length, tokens"), "entropy": ("steps", "entropy, nats per token")}
"""What is drawn of both, the updates at which it was measured, and the title of its axis."""


def trained(rows: Sequence[Mapping[str, Any]], base: Mapping[str, float], theme: str = "light") -> go.Figure:
    """Over updates: gold accuracy on held-out sums, length and entropy of the completions trained on, means over seeds with 95 % intervals.

    `rows` are the two arms of the arithmetic experiment, checked answers and random rewards; `base` is the model before training, dashed.
    """
    width = 1 / len(PANELS)
    axes: dict[str, Any] = {}
    for place, (_, title) in enumerate(PANELS.values(), 1):
        axes[axis("xaxis", place)] = {"domain": [(place - 1) * width + 0.05, place * width - 0.01], "anchor": axis("y", place), "rangemode": "tozero",
                                      "title": {"text": "step (updates)"}}
        axes[axis("yaxis", place)] = {"anchor": axis("x", place), "title": {"text": title}, "rangemode": "tozero"}
    figure = frame(theme, height=360, margin={"l": 50, "r": 10, "t": 40, "b": 50}, legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0}, **axes)
    for order, row in enumerate(rows):
        for place, (name, (steps, _)) in enumerate(PANELS.items(), 1):
            _curve(figure, row[steps], row[name], ARMS[row["equal"]], order, place)
    looks = rows[0]["looks"]
    figure.add_scatter(x=[looks[0], looks[-1]], y=[base["gold/accuracy"]] * 2, mode="lines", name="before training", hoverinfo="skip",
                       line={"color": REFERENCE, "dash": "dash", "width": 1.5})
    return figure


def _curve(figure: go.Figure, steps: Sequence[int], found: Mapping[str, Sequence[float]], name: str, order: int, place: int) -> None:
    """One line with its interval: bars where it was measured a few times, a band where at every update."""
    green, few = METHOD_COLOURS["grpo"], len(steps) <= 16
    where = {"xaxis": axis("x", place), "yaxis": axis("y", place), "legendgroup": name}
    bars = {"error_y": {"array": found["half"], "thickness": 1, "width": 3}} if few else {}
    if not few:
        high, low = ([max(0.0, m + sign * h) for m, h in zip(found["mean"], found["half"])] for sign in (1, -1))  # neither can be negative
        figure.add_scatter(x=[*steps, *reversed(steps)], y=[*high, *reversed(low)], fill="toself", mode="none", fillcolor="rgba(0,158,115,0.13)",
                           hoverinfo="skip", showlegend=False, **where)
    figure.add_scatter(x=list(steps), y=found["mean"], mode="lines+markers" if few else "lines", name=name, showlegend=place == 1,
                       line={"color": green, "dash": DASHES[order], "width": 2}, marker={"symbol": SYMBOLS[order], "size": 8},
                       customdata=found["half"], hovertemplate=f"{name}, update %{{x}}: %{{y:.3g}} ± %{{customdata:.2g}}<extra></extra>", **where, **bars)


def stacked() -> dict[str, Any]:
    """What of the layout of `trained` differs on a telephone: its panels stand under each other."""
    count = len(PANELS)
    layout: dict[str, Any] = {"height": 280 * count, "legend": {"y": 1.0, "yanchor": "bottom"}}
    for place in range(1, count + 1):
        low = 1 - place / count
        layout[axis("xaxis", place)] = {"domain": [0, 1]}
        layout[axis("yaxis", place)] = {"domain": [low + 0.24 / count, low + 0.95 / count]}
    return layout
