"""Figure of KTO: the value of a completion along its log-ratio, and the balance of the two kinds."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from lab.figures.base import figure_from_traces
from lab.figures.ipo import LEGEND_ABOVE
from lab.figures.palette import METHOD_COLOURS, REFERENCE_COLOUR, THEMES

TOPS = (1.0, 2.0, 5.0, 12.0)  # where the value axis may end: it holds still while a weight moves
BALANCE_RULE = (1.0, 4 / 3)  # in which λ_D·n_D / (λ_U·n_U) should stay, arXiv 2402.01306, Eq. 8


def kto_value_figure(
    ratios: Sequence[float],
    desirable: Sequence[float],
    undesirable: Sequence[float],
    z: float,
    balance: float,
    theme: str = "light",
) -> go.Figure:
    """Return KTO's value λ − loss of a desirable and of an undesirable completion along r in nats
    (left), and the balance λ_D·n_D / (λ_U·n_U) beside its rule (right).
    """
    colour = METHOD_COLOURS["kto"]
    line: dict[str, Any] = {
        "type": "scatter",
        "mode": "lines",
        "x": np.asarray(ratios),
        "hovertemplate": "r %{x:.1f} nats: value %{y:.3f}",
    }
    data: list[dict[str, Any]] = [
        line
        | {
            "y": np.asarray(desirable),
            "name": "desirable (thumb up)",
            "line": {"color": colour, "width": 3},
        },
        line
        | {
            "y": np.asarray(undesirable),
            "name": "undesirable (thumb down)",
            "line": {"color": colour, "width": 3, "dash": "dash"},
        },
        {
            "type": "scatter",
            "mode": "markers",
            "x": [balance],
            "y": [0.5],
            "xaxis": "x2",
            "yaxis": "y2",
            "showlegend": False,
            "marker": {"color": colour, "symbol": "diamond", "size": 18},
            "hovertemplate": "balance %{x:.3~g}<extra></extra>",
        },
    ]
    highest = max(*desirable, *undesirable)
    top = 1.03 * next((top for top in TOPS if top >= highest), highest)
    return figure_from_traces(data, _layout((min(ratios), max(ratios)), top, z, theme))


def _layout(ratio_range: tuple[float, float], top: float, z: float, theme: str) -> dict[str, Any]:
    shapes, notes = _marks(z)
    return {
        "template": {"layout": THEMES[theme]["layout"]},
        "height": 400,
        "margin": {"l": 60, "r": 10, "t": 40, "b": 50},
        "shapes": shapes,
        "annotations": notes,
        "legend": {"x": 0} | LEGEND_ABOVE,
        "xaxis": {
            "domain": [0, 0.62],
            "title": {"text": "r = log π(y|x) − log π_ref(y|x), nats"},
            "range": list(ratio_range),
        },
        "yaxis": {"title": {"text": "value λ − loss"}, "range": [0, top]},
        "xaxis2": {
            "domain": [0.68, 1],
            "anchor": "y2",
            "type": "log",
            "range": [-2.1, 2.1],
            "title": {"text": "balance λ_D·n_D / (λ_U·n_U), log scale"},
            "tickvals": [0.01, 0.1, 1, 10, 100],
            "ticktext": ["0.01", "0.1", "1", "10", "100"],
        },
        "yaxis2": {"anchor": "x2", "range": [0, 1], "visible": False},
    }


def _marks(z: float) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the shapes and notes of the reference point z and of the rule for the balance."""
    point = {
        "type": "line",
        "xref": "x",
        "yref": "y domain",
        "x0": z,
        "x1": z,
        "y0": 0,
        "y1": 1,
        "line": {"color": REFERENCE_COLOUR, "width": 2, "dash": "dash"},
    }
    rule = {
        "type": "rect",
        "xref": "x2",
        "yref": "y2 domain",
        "x0": BALANCE_RULE[0],
        "x1": BALANCE_RULE[1],
        "y0": 0,
        "y1": 1,
        "line": {"width": 0},
        "fillcolor": REFERENCE_COLOUR,
        "opacity": 0.4,
    }
    notes = [
        {
            "text": f"z = {z:g}",
            "showarrow": False,
            "xref": "x",
            "yref": "y domain",
            "x": z,
            "y": 0.98,
            "xanchor": "left",
            "xshift": 5,
            "yanchor": "top",
        },
        {
            "text": "recommended: 1 to 4/3",
            "showarrow": False,
            "xref": "x2",
            "yref": "y2 domain",
            "x": np.log10(BALANCE_RULE[1]),
            "y": 0.98,
            "xanchor": "left",
            "xshift": 5,
            "yanchor": "top",
        },
    ]
    return [point, rule], notes
