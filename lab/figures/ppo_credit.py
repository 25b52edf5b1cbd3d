"""Figure of one completion of PPO: the value before every token and the advantage of every token."""

from collections.abc import Sequence

import plotly.graph_objects as go

from lab.figures.base import empty_figure
from lab.figures.palette import METHOD_COLOURS, REFERENCE_COLOUR


def critic_credit_figure(
    tokens: Sequence[str],
    values: Sequence[float],
    advantages: Sequence[float],
    score: float,
    theme: str = "light",
) -> go.Figure:
    """Return bars for the whitened advantage of every token, a line for the critic's value before it,
    and a dashed line for the score of the completion.
    """
    positions = list(range(len(tokens)))
    figure = empty_figure(
        theme,
        height=300,
        margin={"l": 55, "r": 10, "t": 10, "b": 70},
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        xaxis={
            "tickvals": positions,
            "ticktext": list(tokens),
            "tickangle": -90,
            "title": {"text": "token"},
        },
        yaxis={"title": {"text": "V and score: reward; A: std"}},
    )
    figure.add_bar(
        x=positions,
        y=list(advantages),
        name="advantage A (mean 0, std 1 over the rollout)",
        marker={"color": METHOD_COLOURS["ppo"]},
        customdata=list(tokens),
        hovertemplate="A = %{y:.2f} at “%{customdata}”<extra></extra>",
    )
    figure.add_scatter(
        x=positions,
        y=list(values),
        name="value V: the critic's prediction before the token",
        mode="lines+markers",
        line={"color": REFERENCE_COLOUR, "width": 1.5},
        marker={"symbol": "diamond", "size": 5},
        customdata=list(tokens),
        hovertemplate="V = %{y:.2f} before “%{customdata}”<extra></extra>",
    )
    figure.add_scatter(
        x=[0, len(tokens) - 1],
        y=[score, score],
        name="score of the whole completion",
        mode="lines",
        line={"color": REFERENCE_COLOUR, "width": 1.5, "dash": "dash"},
        hovertemplate="score %{y:.2f}<extra></extra>",
    )
    return figure
