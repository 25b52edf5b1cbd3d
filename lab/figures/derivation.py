"""Figures of the derivation of DPO."""

from collections.abc import Sequence

import plotly.graph_objects as go

from lab.figures.base import empty_figure
from lab.figures.palette import METHOD_COLOURS, REFERENCE_COLOUR


def policies(
    responses: Sequence[str],
    reference: Sequence[float],
    optimal: Sequence[float],
    dpo: Sequence[float],
    theme: str = "light",
) -> go.Figure:
    """Return the probability of every response under the reference, under the optimal policy of RLHF,
    and at the minimum of the DPO loss.
    """
    figure = empty_figure(
        theme,
        barmode="group",
        scattermode="group",
        height=380,
        margin={"l": 60, "r": 10, "t": 40, "b": 60},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        xaxis={"title": {"text": "response y"}, "automargin": True},
        yaxis={"title": {"text": "probability π(y|x)"}, "range": [0, 1.02]},
    )
    figure.add_bar(
        x=list(responses),
        y=list(reference),
        name="reference π_ref",
        offsetgroup="reference",
        marker={"color": "rgba(0,0,0,0)", "line": {"color": REFERENCE_COLOUR, "width": 2}},
        hovertemplate="π_ref %{y:.3f}<extra></extra>",
    )
    figure.add_bar(
        x=list(responses),
        y=list(optimal),
        name="optimal policy π* of RLHF",
        offsetgroup="optimum",
        marker={"color": METHOD_COLOURS["ppo"]},
        hovertemplate="π* %{y:.3f}<extra></extra>",
    )
    figure.add_scatter(
        x=list(responses),
        y=list(dpo),
        name="minimum of the DPO loss",
        mode="markers",
        offsetgroup="optimum",
        marker={
            "color": METHOD_COLOURS["dpo"],
            "symbol": "diamond-open",
            "size": 14,
            "line": {"width": 3},
        },
        hovertemplate="DPO %{y:.3f}<extra></extra>",
    )
    return figure
