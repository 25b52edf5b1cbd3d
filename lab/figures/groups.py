"""Figures of one group of completions: rewards, advantages, and other ways to scale them."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from lab.config.number_text import signed_number
from lab.figures.base import empty_figure
from lab.figures.palette import ABOVE, BELOW, REFERENCE_COLOUR

VARIANT_TITLES = {
    "group": "group std, n − 1",
    "population": "group std, n",
    "batch": "batch std",
    "none": "not divided",
}


_MAX_LABELLED = 16  # The largest group whose completions are labelled one by one,
_MAX_NUMBERED = 8  # and whose advantages are written at their bars.


@dataclass(frozen=True)
class Group:
    """G completions of a prompt, the best first. `labels` are short texts, `texts` whole ones; `mean`
    and `std` are the statistics that the advantages were computed with.
    """

    labels: Sequence[str]
    texts: Sequence[str]
    rewards: Sequence[float]
    advantages: Sequence[float]
    mean: float
    std: float

    @property
    def sides(self) -> tuple[list[int], list[int], list[int]]:
        """The indices of the completions above, below and at the mean."""
        return (
            [i for i, a in enumerate(self.advantages) if a > 0],
            [i for i, a in enumerate(self.advantages) if a < 0],
            [i for i, a in enumerate(self.advantages) if a == 0],
        )


def as_text(text: str) -> str:
    """Return `text` with its markup escaped: plotly would interpret tags, and a model may write any."""
    return html.escape(text, quote=False)


def _padded(values: Sequence[float], share: float) -> list[float]:
    """Return a range around `values` that leaves `share` of their span free on both sides."""
    low, high = min(values), max(values)
    room = share * (high - low) or 0.5
    return [low - room, high + room]


_SIDES = (
    ("above the mean: made more likely", ABOVE, "triangle-up", ""),
    ("below the mean: made less likely", BELOW, "triangle-down", "/"),
    ("at the mean: nothing to learn", REFERENCE_COLOUR, "circle", ""),
)
"""In the order of `Group.sides`: name, colour, symbol and hatching."""


def group_figure(group: Group, among: Sequence[Group] = (), theme: str = "light") -> go.Figure:
    """Return the rewards of a group (above, sorted, each on a stem from the mean of the group) and
    its advantages (below). Green and solid is above the mean, red and hatched below it.

    Every group size has the same traces. The axes hold all groups in `among`, so that sizes can be
    compared.
    """
    figure = _empty_group_figure([*among, group], theme)
    _add_mean_and_std(figure, group)
    _add_rewards(figure, group)
    _add_advantages(figure, group)
    size = len(group.rewards)
    figure.add_scatter(
        x=_columns(group),
        y=[0.5] * size,
        yaxis="y3",
        mode="text",
        text=[as_text(t) if size <= _MAX_LABELLED else "" for t in group.labels],
        textfont={"size": 12},
        showlegend=False,
        hoverinfo="skip",
    )
    return figure


def _columns(group: Group) -> list[float]:
    """Return the x of each completion, from 0 to 1."""
    size = len(group.rewards)
    return [(i + 0.5) / size for i in range(size)]


def _empty_group_figure(groups: Sequence[Group], theme: str) -> go.Figure:
    """Return the axes, which hold all `groups`."""
    rewards = [r for g in groups for r in (*g.rewards, g.mean + g.std, g.mean - g.std)]
    return empty_figure(
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
            "title": {"text": "completions, best reward first (… = scratchpad)", "standoff": 4},
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


def _add_mean_and_std(figure: go.Figure, group: Group) -> None:
    figure.add_scatter(
        x=[0, 1, 1, 0],
        y=[group.mean + s * group.std for s in (-1, -1, 1, 1)],
        fill="toself",
        mode="none",
        name=f"± std {group.std:.3f}",
        fillcolor="rgba(128,128,128,0.16)",
        hoverinfo="skip",
    )
    figure.add_scatter(
        x=[0, 1],
        y=[group.mean] * 2,
        mode="lines",
        name=f"mean {group.mean:.3f}",
        hoverinfo="skip",
        line={"color": REFERENCE_COLOUR, "dash": "dash", "width": 2},
    )


def _add_rewards(figure: go.Figure, group: Group) -> None:
    x = _columns(group)
    figure.add_scatter(
        x=[v for at in x for v in (at, at, None)],
        y=[v for r in group.rewards for v in (group.mean, r, None)],
        mode="lines",
        line={"color": REFERENCE_COLOUR, "width": 1},
        hoverinfo="skip",
        showlegend=False,
    )
    for indices, (name, colour, symbol, _) in zip(group.sides, _SIDES):
        figure.add_scatter(
            x=[x[i] for i in indices],
            y=[group.rewards[i] for i in indices],
            mode="markers",
            name=name,
            showlegend=False,
            marker={"color": colour, "symbol": symbol, "size": 11},
            customdata=[as_text(group.texts[i]) for i in indices],
            hovertemplate="%{customdata}<br>reward %{y:.3~g}<extra></extra>",
        )


def _add_advantages(figure: go.Figure, group: Group) -> None:
    x, size = _columns(group), len(group.advantages)
    for indices, (name, colour, _, pattern) in zip(group.sides, _SIDES):
        values = [group.advantages[i] for i in indices]
        figure.add_bar(
            x=[x[i] for i in indices],
            y=values,
            yaxis="y2",
            width=0.82 / size,
            name=name,
            customdata=[as_text(group.texts[i]) for i in indices],
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
            hovertemplate="%{customdata}<br>advantage %{y:+.3f}<extra></extra>",
        )
    for indices, position in zip(group.sides, ("top center", "bottom center", "top center")):
        figure.add_scatter(
            x=[x[i] for i in indices],
            y=[group.advantages[i] for i in indices],
            yaxis="y2",
            mode="text",
            text=[signed_number(group.advantages[i]) for i in indices]
            if size <= _MAX_NUMBERED
            else [""] * len(indices),
            textposition=position,
            cliponaxis=False,
            showlegend=False,
            hoverinfo="skip",
        )


def advantage_variants_figure(
    by_variant: Mapping[str, Sequence[float]], theme: str = "light"
) -> go.Figure:
    """Return the advantages of one group, one row for each way to scale them. Equal advantages share a
    marker, which says how many they are.
    """
    widest = max(abs(v) for values in by_variant.values() for v in values) or 1.0
    figure = empty_figure(
        theme,
        height=300,
        margin={"l": 110, "r": 12, "t": 12, "b": 44},
        xaxis={
            "title": {"text": "advantage A (unit: std; “not divided”: reward)"},
            "range": [-1.25 * widest, 1.25 * widest],
        },
        yaxis={"autorange": "reversed", "showgrid": True, "range": [len(by_variant) - 0.5, -0.7]},
    )
    for name, advantages in by_variant.items():
        counts = {value: list(advantages).count(value) for value in sorted(set(advantages))}
        labelled = counts if len(counts) <= 3 else {min(counts): 1, max(counts): 1}
        for colour, symbol, side in (
            (ABOVE, "triangle-up", 1),
            (BELOW, "triangle-down", -1),
            (REFERENCE_COLOUR, "circle", 0),
        ):
            values = [v for v in counts if (v > 0) - (v < 0) == side]
            figure.add_scatter(
                x=values,
                y=[VARIANT_TITLES[name]] * len(values),
                mode="markers+text",
                marker={"color": colour, "symbol": symbol, "size": 13},
                text=[
                    signed_number(v) + (f" × {counts[v]}" if counts[v] > 1 else "")
                    if v in labelled
                    else ""
                    for v in values
                ],
                textposition="top center",
                showlegend=False,
                hovertemplate="A = %{x:+.3f}<extra></extra>",
            )
    return figure
