"""Figures of a group of completions: its rewards and advantages, other ways to scale them, groups
that are dead, what a larger group buys.
"""

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from lab.figures.base import frame
from lab.figures.palette import ABOVE, BELOW, DASHES, METHOD_COLOURS, REFERENCE, SYMBOLS

VARIANTS = {
    "group": "std, unbiased",
    "population": "std, population",
    "batch": "std of the batch",
    "none": "not divided",
}
BUDGETS = {"rollouts": "equal completions an update", "prompts": "equal prompts an update"}
LABELLED = 16  # The largest group whose completions are labelled one by one.


@dataclass(frozen=True)
class Group:
    """G completions of a prompt, the best first: `labels` are short, `texts` whole; `mean` and
    `std` are those that made the advantages.
    """

    labels: Sequence[str]
    texts: Sequence[str]
    rewards: Sequence[float]
    advantages: Sequence[float]
    mean: float
    std: float

    @property
    def sides(self) -> tuple[list[int], list[int], list[int]]:
        """The places of those above, below and at the mean."""
        return (
            [i for i, a in enumerate(self.advantages) if a > 0],
            [i for i, a in enumerate(self.advantages) if a < 0],
            [i for i, a in enumerate(self.advantages) if a == 0],
        )


def as_text(text: str) -> str:
    """Any text so that plotly shows it letter by letter: it would read tags, and a model may write
    anything.
    """
    return html.escape(text, quote=False)


def signed(value: float) -> str:
    """A number with its sign and two digits; nothing is 0."""
    return f"{value:+.2f}".replace("-", "−") if value else "0"


def _padded(values: Sequence[float], share: float) -> list[float]:
    """A range around `values` that leaves `share` of their span free on both sides."""
    low, high = min(values), max(values)
    room = share * (high - low) or 0.5
    return [low - room, high + room]


def group(found: Group, among: Sequence[Group] = (), theme: str = "light") -> go.Figure:
    """Above the rewards, sorted, each on a stem from the group's mean; below the advantages. Green
    and solid is above the mean, red and hatched below it.

    Every size of group has the same traces and the same axes, which hold all the groups in `among`,
    so that sizes can be compared.
    """
    size = len(found.rewards)
    x = [(i + 0.5) / size for i in range(size)]
    angle = 0 if size <= 8 else -90
    groups = [*among, found]
    rewards = [r for g in groups for r in (*g.rewards, g.mean + g.std, g.mean - g.std)]
    figure = frame(
        theme,
        height=440,
        margin={"l": 56, "r": 12, "t": 34, "b": 26},
        bargap=0,
        uniformtext={"mode": False},
        legend={"orientation": "h", "y": 1.01, "yanchor": "bottom", "x": 0},
        barmode="overlay",
        xaxis={
            "range": [0, 1],
            "showticklabels": False,
            "showgrid": False,
            "zeroline": False,
            "anchor": "y2",
            "title": {
                "text": "answers of the group, best reward first (… thought first)",
                "standoff": 4,
            },
        },
        yaxis={
            "domain": [0.62, 1],
            "title": {"text": "reward r"},
            "range": _padded(rewards, 0.12),
            "nticks": 5,
            "zeroline": False,
        },
        yaxis2={
            "domain": [0, 0.52],
            "title": {"text": "advantage A, std"},
            "range": _padded([0, *(a for g in groups for a in g.advantages)], 0.16),
        },
        yaxis3={"domain": [0.54, 0.6], "visible": False, "range": [0, 1], "fixedrange": True},
    )
    figure.add_scatter(
        x=[0, 1, 1, 0],
        y=[found.mean + s * found.std for s in (-1, -1, 1, 1)],
        fill="toself",
        mode="none",
        name=f"± std {found.std:.3f}",
        fillcolor="rgba(128,128,128,0.16)",
        hoverinfo="skip",
    )
    figure.add_scatter(
        x=[0, 1],
        y=[found.mean] * 2,
        mode="lines",
        name=f"mean {found.mean:.3f}",
        hoverinfo="skip",
        line={"color": REFERENCE, "dash": "dash", "width": 2},
    )
    figure.add_scatter(
        x=[v for at in x for v in (at, at, None)],
        y=[v for r in found.rewards for v in (found.mean, r, None)],
        mode="lines",
        line={"color": REFERENCE, "width": 1},
        hoverinfo="skip",
        showlegend=False,
    )
    looks = (
        ("above the mean: made more likely", ABOVE, "triangle-up", ""),
        ("below the mean: made less likely", BELOW, "triangle-down", "/"),
        ("at the mean: nothing to learn", REFERENCE, "circle", ""),
    )
    for places, (name, colour, symbol, _) in zip(found.sides, looks):
        figure.add_scatter(
            x=[x[i] for i in places],
            y=[found.rewards[i] for i in places],
            mode="markers",
            name=name,
            showlegend=False,
            marker={"color": colour, "symbol": symbol, "size": 11},
            customdata=[as_text(found.texts[i]) for i in places],
            hovertemplate="%{customdata}<br>reward %{y:.3g}<extra></extra>",
        )
    for places, (name, colour, _, pattern) in zip(found.sides, looks):
        values = [found.advantages[i] for i in places]
        figure.add_bar(
            x=[x[i] for i in places],
            y=values,
            yaxis="y2",
            width=0.82 / size,
            name=name,
            customdata=[as_text(found.texts[i]) for i in places],
            marker={
                "color": colour,
                "line": {"color": colour, "width": 1},
                "pattern": {
                    "shape": pattern,
                    "fillmode": "overlay",
                    "size": 6,
                    "fgcolor": "rgba(255,255,255,0.75)",
                    "solidity": 0.25,
                },
            },
            text=[signed(v) for v in values],
            textposition="outside",
            textangle=angle,
            cliponaxis=False,
            hovertemplate="%{customdata}<br>advantage %{y:+.3f}<extra></extra>",
        )
    figure.add_scatter(
        x=x,
        y=[0.5] * size,
        yaxis="y3",
        mode="text",
        text=[as_text(t) if size <= LABELLED else "" for t in found.labels],
        textfont={"size": 12 if size <= 8 else 10},
        showlegend=False,
        hoverinfo="skip",
    )
    return figure


def variants(by_variant: Mapping[str, Sequence[float]], theme: str = "light") -> go.Figure:
    """The advantages of one group under every way to scale them: a row each, equal ones on one
    marker with their number.
    """
    widest = max(abs(v) for found in by_variant.values() for v in found) or 1.0
    figure = frame(
        theme,
        height=300,
        margin={"l": 110, "r": 12, "t": 12, "b": 44},
        xaxis={
            "title": {"text": "advantage A (std; not divided: reward)"},
            "range": [-1.25 * widest, 1.25 * widest],
        },
        yaxis={"autorange": "reversed", "showgrid": True, "range": [len(by_variant) - 0.5, -0.7]},
    )
    for name, found in by_variant.items():
        several = {value: list(found).count(value) for value in sorted(set(found))}
        named = several if len(several) <= 3 else {min(several): 1, max(several): 1}
        for colour, symbol, side in (
            (ABOVE, "triangle-up", 1),
            (BELOW, "triangle-down", -1),
            (REFERENCE, "circle", 0),
        ):
            values = [v for v in several if (v > 0) - (v < 0) == side]
            figure.add_scatter(
                x=values,
                y=[VARIANTS[name]] * len(values),
                mode="markers+text",
                marker={"color": colour, "symbol": symbol, "size": 13},
                text=[
                    signed(v) + (f" × {several[v]}" if several[v] > 1 else "") if v in named else ""
                    for v in values
                ],
                textposition="top center",
                showlegend=False,
                hovertemplate="A = %{x:+.3f}<extra></extra>",
            )
    return figure


SIZES_TITLE = "group size G (log scale)"


def _sizes(
    sizes: Sequence[int], place: int = 1, domain: Sequence[float] = (0, 1)
) -> dict[str, Any]:
    """The axis of group sizes of one panel, each size twice the last."""
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


def dead(
    sizes: Sequence[int],
    observed: Mapping[str, Sequence[float]],
    expected: Mapping[str, Sequence[float]],
    theme: str = "light",
) -> go.Figure:
    """Share of dead groups over G: observed as points, p^G + (1 − p)^G as lines, both for every
    name in `observed`.
    """
    figure = frame(
        theme,
        height=360,
        margin={"l": 60, "r": 12, "t": 34, "b": 50},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        **_sizes(sizes),
        yaxis={"title": {"text": "dead groups, share"}, "range": [-0.03, 1.03]},
    )
    for place, name in enumerate(observed):
        common = {"x": list(sizes), "legendgroup": name}
        if name in expected:
            figure.add_scatter(
                y=expected[name],
                mode="lines",
                line={"color": METHOD_COLOURS["grpo"], "dash": DASHES[place], "width": 2},
                showlegend=False,
                name=name,
                hovertemplate=f"{name}: p^G + (1 − p)^G = %{{y:.3f}}<extra></extra>",
                **common,
            )
        figure.add_scatter(
            y=observed[name],
            mode="markers",
            marker={"color": METHOD_COLOURS["grpo"], "symbol": SYMBOLS[place], "size": 11},
            name=name,
            hovertemplate=f"{name}: observed %{{y:.3f}}<extra></extra>",
            **common,
        )
    return figure


STACKED = {
    "height": 640,
    "xaxis": {"domain": [0, 1]},
    "xaxis2": {"domain": [0, 1]},
    "yaxis": {"domain": [0.58, 1]},
    "yaxis2": {"domain": [0, 0.38]},
    "legend2": {"x": 0, "y": 0.39},
}
"""What of the layout of `error_and_cost` differs on a telephone: the panels stand one above the
other.
"""


def error_and_cost(
    sizes: Sequence[int],
    error: Sequence[float],
    tokens: Sequence[float],
    seconds: Sequence[float] = (),
    theme: str = "light",
) -> go.Figure:
    """What a larger group buys and what it costs: left the error of its advantages and 1/√G, right
    tokens and seconds, in multiples of the smallest G.
    """
    green = METHOD_COLOURS["grpo"]
    above = {"orientation": "h", "y": 1.02, "yanchor": "bottom"}
    figure = frame(
        theme,
        height=360,
        margin={"l": 60, "r": 12, "t": 34, "b": 50},
        legend={"x": 0} | above,
        legend2={"x": 0.55} | above,
        **_sizes(sizes, 1, (0, 0.45)),
        **_sizes(sizes, 2, (0.55, 1)),
        yaxis={"title": {"text": "error of A, std (root mean square)"}, "rangemode": "tozero"},
        yaxis2={
            "title": {"text": f"cost, multiples of G = {sizes[0]}"},
            "rangemode": "tozero",
            "anchor": "x2",
        },
    )
    grey = {"color": REFERENCE, "dash": "dash", "width": 2}
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
        line={"color": green, "width": 2},
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
                line={"color": green, "width": 2, "dash": dash},
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


def outcome(rows: Sequence[Mapping[str, Any]], before: float, theme: str = "light") -> go.Figure:
    """Gold accuracy that runs with each G reached, with its interval: at equal rollouts and at
    equal prompts.

    `rows` are those of the group-size experiment's table; `before` is the accuracy before training.
    """
    sizes = sorted({row["group_size"] for row in rows})
    figure = frame(
        theme,
        height=380,
        margin={"l": 60, "r": 12, "t": 34, "b": 50},
        **_sizes(sizes),
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        yaxis={"title": {"text": "gold accuracy, share"}, "range": [-0.03, 1.03]},
    )
    figure.add_hline(
        y=before,
        line={"color": REFERENCE, "dash": "dash", "width": 1.5},
        annotation={"text": "before training"},
        annotation_position="top left",
    )
    for place, (budget, words) in enumerate(BUDGETS.items()):
        found = sorted(
            (row for row in rows if row["budget"] == budget), key=lambda row: row["group_size"]
        )
        gold = [row["final"]["gold/accuracy"] for row in found]
        figure.add_scatter(
            x=[row["group_size"] * (0.97, 1.03)[place] for row in found],
            y=[g["mean"] for g in gold],
            mode="lines+markers",
            name=words,
            error_y={"array": [g["half"] for g in gold], "thickness": 1, "width": 3},
            line={"color": METHOD_COLOURS["grpo"], "dash": DASHES[place], "width": 2},
            marker={"symbol": SYMBOLS[place], "size": 9},
            customdata=[
                [row["group_size"], row["batch_size"], row["final"]["seconds"]["mean"]]
                for row in found
            ],
            hovertemplate=(
                "G %{customdata[0]}: %{y:.3f}, %{customdata[1]} completions an update,"
                " %{customdata[2]:.0f} s<extra></extra>"
            ),
        )
    return figure
