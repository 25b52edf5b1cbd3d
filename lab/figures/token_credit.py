"""Figures of single tokens: their log-ratios, their credit, and the clipped surrogate."""

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from lab.figures.base import axis_name, empty_figure
from lab.figures.groups import as_text
from lab.figures.palette import ABOVE, BELOW, REFERENCE_COLOUR, SYMBOLS

TOKENS_PER_LINE = 16
_SHORT_TOKENS = {"<think>": "‹", "</think>": "›", "<eos>": "¶"}
REDUCTION_TITLES = {
    "sequence_mean": "sequence_mean (GRPO's paper)",
    "token_mean": "token_mean (DAPO, TRL)",
    "fixed_length": "fixed_length (Dr. GRPO)",
}


def log_ratios(
    tokens: Sequence[str], ratios: Sequence[float], limit: float, theme: str = "light"
) -> go.Figure:
    """A completion, token by token in lines of `PER_LINE`, coloured by log π − log π_ref in nats:
    from red and lower to green and higher.

    Colours end at ± `limit`.
    """
    lines = range(0, len(tokens), TOKENS_PER_LINE)
    values = [
        [
            *ratios[i : i + TOKENS_PER_LINE],
            *[None] * (TOKENS_PER_LINE - len(ratios[i : i + TOKENS_PER_LINE])),
        ]
        for i in lines
    ]
    labels = [
        [
            *(as_text(_SHORT_TOKENS.get(t, t)) for t in tokens[i : i + TOKENS_PER_LINE]),
            *[""] * (TOKENS_PER_LINE - len(tokens[i : i + TOKENS_PER_LINE])),
        ]
        for i in lines
    ]
    tokens_of_line = [[as_text(t) for t in tokens[i : i + TOKENS_PER_LINE]] for i in lines]
    figure = empty_figure(
        theme,
        height=110 + 42 * len(lines),
        margin={"l": 8, "r": 8, "t": 70, "b": 8},
        xaxis={"visible": False, "fixedrange": True},
        yaxis={"visible": False, "autorange": "reversed", "fixedrange": True},
    )
    return figure.add_heatmap(
        z=values,
        text=labels,
        customdata=[row + [""] * (TOKENS_PER_LINE - len(row)) for row in tokens_of_line],
        texttemplate="%{text}",
        zmin=-limit,
        zmax=limit,
        xgap=2,
        ygap=2,
        colorscale=[[0, BELOW], [0.5, "#EDEDEA"], [1, ABOVE]],
        textfont={"size": 15, "color": "#1F2328"},
        hoverongaps=False,
        colorbar={
            "title": {"text": "log π − log π_ref, nats", "side": "top"},
            "orientation": "h",
            "y": 1.02,
            "yanchor": "bottom",
            "thickness": 9,
            "len": 0.6,
            "x": 0,
            "xanchor": "left",
        },
        hovertemplate="%{customdata}: %{z:+.2f} nats<extra></extra>",
    )


def reduction_credit_figure(
    labels: Sequence[str], by_reduction: Mapping[str, Sequence[float]], theme: str = "light"
) -> go.Figure:
    """Return the credit of one token of each completion under each reduction, the best completion
    first.
    """
    figure = empty_figure(
        theme,
        height=320,
        margin={"l": 66, "r": 12, "t": 34, "b": 50},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        xaxis={
            "title": {"text": "completion: number of its tokens"},
            "tickvals": list(range(1, len(labels) + 1)),
            "ticktext": list(labels),
            "showgrid": False,
        },
        yaxis={"title": {"text": "push on one token, −∂L/∂log π"}},
    )
    for order, (name, values) in enumerate(by_reduction.items()):
        figure.add_scatter(
            x=list(range(1, len(values) + 1)),
            y=list(values),
            mode="markers",
            name=REDUCTION_TITLES[name],
            marker={
                "symbol": SYMBOLS[order],
                "size": 11,
                "color": [ABOVE if v > 0 else BELOW if v < 0 else REFERENCE_COLOUR for v in values],
            },
            customdata=[as_text(label) for label in labels],
            hovertemplate="%{customdata}: %{y:+.4f} a token<extra></extra>",
        )
    return figure


CLIPPED_SURROGATE_NARROW_LAYOUT = {
    "height": 620,
    "xaxis": {"domain": [0, 1]},
    "xaxis2": {"domain": [0, 1]},
    "yaxis": {"domain": [0.58, 1]},
    "yaxis2": {"domain": [0, 0.4]},
}
"""Changes to the layout of `clipped_surrogate_figure` on a phone: the panels are stacked."""


def clipped_surrogate_figure(
    ratios: Sequence[float],
    curves: Mapping[str, Mapping[str, Sequence[float]]],
    epsilon: float,
    epsilon_high: float,
    theme: str = "light",
) -> go.Figure:
    """Return the surrogate that GRPO maximises for one token over its ratio ρ, for A = 1 and A = −1,
    and where it is flat. `curves` are those of `lab.analysis.group_statistics.clip_curves`.
    """
    figure = _surrogate_panels([ratios[0], ratios[-1]], theme)
    for number, (side, colour, dash, advantage, edge) in enumerate(
        (("above", ABOVE, "solid", 1, 1 + epsilon_high), ("below", BELOW, "dash", -1, 1 - epsilon)),
        start=1,
    ):
        axes = {"xaxis": axis_name("x", number), "yaxis": axis_name("y", number)}
        in_legend = number == 1
        outer = [edge, ratios[-1] if advantage > 0 else ratios[0]]
        _add_flat_region(figure, outer, in_legend, axes)
        figure.add_scatter(
            x=list(ratios),
            y=[advantage * r for r in ratios],
            mode="lines",
            line={"color": REFERENCE_COLOUR, "dash": "dot", "width": 1.5},
            name="ρ·A, not clipped",
            showlegend=in_legend,
            hoverinfo="skip",
            **axes,
        )
        figure.add_scatter(
            x=list(ratios),
            y=[-v for v in curves[side]["loss"]],
            mode="lines",
            line={"color": colour, "dash": dash, "width": 3},
            name=f"min(ρA, clip(ρ)A), A = {advantage}".replace("-", "−"),
            hovertemplate="ρ = %{x:.2f}: %{y:.2f}<extra></extra>",
            **axes,
        )
        figure.add_scatter(
            x=[1],
            y=[advantage],
            mode="markers",
            marker={"color": colour, "size": 10, "symbol": "circle-open", "line": {"width": 2}},
            name="first update on a rollout: ρ = 1",
            showlegend=in_legend,
            hovertemplate="ρ = 1 at the first update<extra></extra>",
            **axes,
        )
    return figure


def _add_flat_region(
    figure: go.Figure, edges: Sequence[float], in_legend: bool, axes: Mapping[str, str]
) -> None:
    """Shade the ratios at which the loss is clipped."""
    figure.add_scatter(
        x=[edges[0], edges[1], edges[1], edges[0]],
        y=[-9, -9, 9, 9],
        fill="toself",
        mode="none",
        fillcolor="rgba(128,128,128,0.16)",
        name="clipped: no gradient",
        hoverinfo="skip",
        showlegend=in_legend,
        **axes,
    )


def _surrogate_panels(span: Sequence[float], theme: str) -> go.Figure:
    """Return the empty panels for A > 0 and A < 0, with ratios over `span`."""
    return empty_figure(
        theme,
        height=380,
        margin={"l": 56, "r": 12, "t": 56, "b": 50},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        xaxis={
            "domain": [0, 0.46],
            "range": list(span),
            "title": {"text": "ratio ρ = π/π_old, A > 0"},
        },
        xaxis2={
            "domain": [0.54, 1],
            "range": list(span),
            "title": {"text": "ratio ρ = π/π_old, A < 0"},
            "anchor": "y2",
        },
        yaxis={"range": [0, 2.1], "title": {"text": "objective of one token, std"}},
        yaxis2={"range": [-2.1, 0], "anchor": "x2"},
    )
