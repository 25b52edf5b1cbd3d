"""Figure of the DPO loss and its push along the margin, with the pairs of a run on the curve."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from lab.figures.base import figure_from_traces
from lab.figures.palette import METHOD_COLOURS, REFERENCE_COLOUR, THEMES

_MARGIN_TITLE = "margin h = log(π/π_ref)(y_w) − log(π/π_ref)(y_l), nats"


MAX_LOSS, MIN_PUSH = (
    4.0,
    1e-3,
)  # the loss and the push at which the axes end; a pair beyond stands at the edge, as a triangle


_SIDE_STYLES = {"chosen": ("solid", "circle"), "rejected": ("dash", "x")}


Curve = tuple[Sequence[float], Sequence[float], Sequence[float]]
"""The margins h, and the loss and the push at each."""


def join_with_gaps(curves: Sequence[Curve], part: int) -> np.ndarray:
    """Return element `part` of all curves joined, with a NaN after each: many lines in one trace."""
    return np.concatenate([np.append(curve[part], np.nan) for curve in curves])


def _pairs(
    h: Sequence[float], y: Sequence[float], edge: float, axis: str, unit: str
) -> dict[str, Any]:
    """Return the pairs as markers on a curve; a pair beyond `edge` is a triangle at the edge."""
    values = np.asarray(y)
    beyond, symbol = (
        (values > edge, "triangle-up") if edge == MAX_LOSS else (values < edge, "triangle-down")
    )
    return {
        "type": "scatter",
        "mode": "markers",
        "x": np.asarray(h),
        "y": np.where(beyond, edge, values),
        "yaxis": axis,
        "cliponaxis": False,
        "name": "pairs of the run",
        "legendgroup": "pairs",
        "showlegend": axis == "y",
        "customdata": values,
        "marker": {
            "color": METHOD_COLOURS["dpo"],
            "opacity": 0.55,
            "size": 9,
            "symbol": np.where(beyond, symbol, "circle").tolist(),
        },
        "hovertemplate": f"h %{{x:.1f}} nats, {unit} %{{customdata:.3~g}}<extra>pair</extra>",
    }


def loss_and_pairs(
    curve: Curve,
    others: Sequence[Curve],
    pairs: Curve,
    sides: Mapping[str, Sequence[float]],
    steps: Sequence[int],
    step: int,
    beta: float,
    words: str,
    theme: str = "light",
) -> go.Figure:
    """Return the DPO loss and its push along the margin, with the pairs of a run at `step` (left),
    and how far the log-probabilities of the pairs have moved (right).

    `curve` is the curve at `beta`, `others` are thin curves at other β, with `words` as their
    legend. `sides` holds for chosen and rejected the mean of log π − log π_ref at each of `steps`,
    in nats.
    """
    data = [
        *_curve_traces(curve, others, beta, words),
        _pairs(pairs[0], pairs[1], MAX_LOSS, "y", "loss"),
        _pairs(pairs[0], pairs[2], MIN_PUSH, "y2", "push"),
        *_side_traces(sides, steps),
    ]
    return figure_from_traces(data, _layout(curve, step, theme))


def _curve_traces(
    curve: Curve, others: Sequence[Curve], beta: float, words: str
) -> list[dict[str, Any]]:
    """Return loss and push at every β: thin lines for the other β, a thick line for this one."""
    thin = {
        "type": "scatter",
        "mode": "lines",
        "x": join_with_gaps(others, 0),
        "line": {"color": REFERENCE_COLOUR, "width": 1, "dash": "dot"},
        "hoverinfo": "skip",
        "legendgroup": "others",
        "name": words,
    }
    thick = {
        "type": "scatter",
        "mode": "lines",
        "x": np.asarray(curve[0]),
        "line": {"color": METHOD_COLOURS["dpo"], "width": 3},
        "legendgroup": "curve",
        "name": f"β = {beta:g}",
    }
    return [
        thin | {"y": join_with_gaps(others, 1)},
        thin | {"y": join_with_gaps(others, 2), "yaxis": "y2", "showlegend": False},
        thick | {"y": np.asarray(curve[1]), "hovertemplate": "h %{x:.1f} nats, loss %{y:.3f}"},
        thick
        | {
            "y": np.asarray(curve[2]),
            "yaxis": "y2",
            "showlegend": False,
            "hovertemplate": "h %{x:.1f} nats, push %{y:.3~g}",
        },
    ]


def _side_traces(
    sides: Mapping[str, Sequence[float]], steps: Sequence[int]
) -> list[dict[str, Any]]:
    """Return the mean log-ratios of chosen and rejected over the steps."""
    right = {
        "type": "scatter",
        "mode": "lines+markers",
        "x": np.asarray(steps),
        "xaxis": "x2",
        "yaxis": "y3",
        "legend": "legend2",
    }
    return [
        right
        | {
            "name": side,
            "y": np.asarray(sides[side]),
            "line": {"color": METHOD_COLOURS["dpo"], "dash": dash, "width": 2},
            "marker": {"symbol": symbol, "size": 6, "maxdisplayed": 12},
            "hovertemplate": f"{side} %{{y:.1f}} nats<extra></extra>",
        }
        for side, (dash, symbol) in _SIDE_STYLES.items()
    ]


def _layout(curve: Curve, step: int, theme: str) -> dict[str, Any]:
    above = {"orientation": "h", "y": 1.02, "yanchor": "bottom"}
    return {
        "template": {"layout": THEMES[theme]["layout"]},
        "height": 560,
        "margin": {"l": 60, "r": 10, "t": 40, "b": 50},
        "shapes": _lines(step),
        "annotations": _notes(),
        "legend": {"x": 0} | above,
        "legend2": {"x": 0.67} | above,
        "xaxis": {
            "domain": [0, 0.59],
            "anchor": "y2",
            "title": {"text": _MARGIN_TITLE},
            "range": [min(curve[0]), max(curve[0])],
            "zeroline": False,
        },
        "yaxis": {
            "domain": [0.45, 1],
            "title": {"text": "loss L = −log σ(β·h)"},
            "range": [-0.05, MAX_LOSS + 0.05],
        },
        "yaxis2": {
            "domain": [0, 0.4],
            "type": "log",
            "title": {"text": "push −∂L/∂h, per nat"},
            "range": [math.log10(MIN_PUSH), 0.08],
            "tickvals": [0.001, 0.01, 0.1, 1],
            "ticktext": ["0.001", "0.01", "0.1", "1"],
        },
        "xaxis2": {"domain": [0.67, 1], "anchor": "y3", "title": {"text": "step (updates)"}},
        "yaxis3": {
            "anchor": "x2",
            "title": {"text": "log π − log π_ref, mean over the pairs, nats"},
        },
    }


def _lines(step: int) -> list[dict[str, Any]]:
    """Return the vertical lines at h = 0 and at the current step."""
    upright = {"type": "line", "y0": 0, "y1": 1}
    now = upright | {
        "xref": "x2",
        "yref": "y3 domain",
        "x0": step,
        "x1": step,
        "line": {"color": REFERENCE_COLOUR, "width": 2, "dash": "dash"},
    }
    zero = [
        upright
        | {
            "xref": "x",
            "yref": f"{axis} domain",
            "x0": 0,
            "x1": 0,
            "line": {"color": REFERENCE_COLOUR, "width": 1},
        }
        for axis in ("y", "y2")
    ]
    return [*zero, now]


def _notes() -> list[dict[str, Any]]:
    """Return the two notes that say which completion of a pair is ahead."""
    note = {"showarrow": False, "yref": "y domain", "y": 0.98, "yanchor": "top"}
    return [
        note
        | {"x": 0, "xref": "x", "xanchor": "right", "xshift": -6, "text": "rejected is ahead ←"},
        note | {"x": 0, "xref": "x", "xanchor": "left", "xshift": 6, "text": "→ chosen is ahead"},
    ]
