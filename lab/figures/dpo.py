"""Figures of DPO: its loss and its push along the margin with the pairs of a run on them, and what
β did to whole runs.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from lab.figures.base import whole
from lab.figures.palette import METHOD_COLOURS, METHOD_NAMES, REFERENCE, SYMBOLS, THEMES

MARGIN = "margin h = log(π/π_ref)(y_w) − log(π/π_ref)(y_l), nats"
TOP, LEAST = (
    4.0,
    1e-3,
)  # the loss and the push at which the axes end; a pair beyond stands at the edge, as a triangle
SIDES = {"chosen": ("solid", "circle"), "rejected": ("dash", "x")}

Curve = tuple[Sequence[float], Sequence[float], Sequence[float]]
"""h, and at each the loss and the push."""


def joined(curves: Sequence[Curve], part: int) -> np.ndarray:
    """One part of all curves in a row, with a gap after each: many lines drawn as one."""
    return np.concatenate([np.append(curve[part], np.nan) for curve in curves])


def _pairs(
    h: Sequence[float], y: Sequence[float], edge: float, axis: str, unit: str
) -> dict[str, Any]:
    """Pairs on a curve; those beyond `edge` stand on it."""
    values = np.asarray(y)
    beyond, symbol = (
        (values > edge, "triangle-up") if edge == TOP else (values < edge, "triangle-down")
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
        "hovertemplate": f"h %{{x:.1f}} nats, {unit} %{{customdata:.3g}}<extra>pair</extra>",
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
    """Left the DPO loss and its push along the margin, with the pairs of a run at `step` on both;
    right how far the pairs' completions have moved.

    `others` are thin curves at other β, called `words`; `sides` holds for chosen and rejected the
    mean log π − log π_ref at every one of `steps`.
    """
    colour = METHOD_COLOURS["dpo"]
    thin = {
        "type": "scatter",
        "mode": "lines",
        "x": joined(others, 0),
        "line": {"color": REFERENCE, "width": 1, "dash": "dot"},
        "hoverinfo": "skip",
        "legendgroup": "others",
        "name": words,
    }
    thick = {
        "type": "scatter",
        "mode": "lines",
        "x": np.asarray(curve[0]),
        "line": {"color": colour, "width": 3},
        "legendgroup": "curve",
        "name": f"β = {beta:g}",
    }
    data = [
        thin | {"y": joined(others, 1)},
        thin | {"y": joined(others, 2), "yaxis": "y2", "showlegend": False},
        thick | {"y": np.asarray(curve[1]), "hovertemplate": "h %{x:.1f} nats, loss %{y:.3f}"},
        thick
        | {
            "y": np.asarray(curve[2]),
            "yaxis": "y2",
            "showlegend": False,
            "hovertemplate": "h %{x:.1f} nats, push %{y:.3g}",
        },
        _pairs(pairs[0], pairs[1], TOP, "y", "loss"),
        _pairs(pairs[0], pairs[2], LEAST, "y2", "push"),
    ]
    right = {
        "type": "scatter",
        "mode": "lines+markers",
        "x": np.asarray(steps),
        "xaxis": "x2",
        "yaxis": "y3",
        "legend": "legend2",
    }
    data += [
        right
        | {
            "name": side,
            "y": np.asarray(sides[side]),
            "line": {"color": colour, "dash": dash, "width": 2},
            "marker": {"symbol": symbol, "size": 6, "maxdisplayed": 12},
            "hovertemplate": f"{side} %{{y:.1f}} nats<extra></extra>",
        }
        for side, (dash, symbol) in SIDES.items()
    ]
    note = {"showarrow": False, "yref": "y domain", "y": 0.98, "yanchor": "top"}
    notes = [
        note
        | {"x": 0, "xref": "x", "xanchor": "right", "xshift": -6, "text": "rejected is ahead ←"},
        note | {"x": 0, "xref": "x", "xanchor": "left", "xshift": 6, "text": "→ chosen is ahead"},
    ]
    upright = {"type": "line", "y0": 0, "y1": 1}
    now = upright | {
        "xref": "x2",
        "yref": "y3 domain",
        "x0": step,
        "x1": step,
        "line": {"color": REFERENCE, "width": 2, "dash": "dash"},
    }
    zero = [
        upright
        | {
            "xref": "x",
            "yref": f"{axis} domain",
            "x0": 0,
            "x1": 0,
            "line": {"color": REFERENCE, "width": 1},
        }
        for axis in ("y", "y2")
    ]
    above = {"orientation": "h", "y": 1.02, "yanchor": "bottom"}
    return whole(
        data,
        {
            "template": {"layout": THEMES[theme]["layout"]},
            "height": 560,
            "margin": {"l": 60, "r": 10, "t": 40, "b": 50},
            "shapes": [*zero, now],
            "annotations": notes,
            "legend": {"x": 0} | above,
            "legend2": {"x": 0.67} | above,
            "xaxis": {
                "domain": [0, 0.59],
                "anchor": "y2",
                "title": {"text": MARGIN},
                "range": [min(curve[0]), max(curve[0])],
                "zeroline": False,
            },
            "yaxis": {
                "domain": [0.45, 1],
                "title": {"text": "loss L = −log σ(β·h)"},
                "range": [-0.05, TOP + 0.05],
            },
            "yaxis2": {
                "domain": [0, 0.4],
                "type": "log",
                "title": {"text": "push −∂L/∂h, per nat"},
                "range": [math.log10(LEAST), 0.08],
                "tickvals": [0.001, 0.01, 0.1, 1],
                "ticktext": ["0.001", "0.01", "0.1", "1"],
            },
            "xaxis2": {"domain": [0.67, 1], "anchor": "y3", "title": {"text": "step (updates)"}},
            "yaxis3": {
                "anchor": "x2",
                "title": {"text": "log π − log π_ref, mean over the pairs, nats"},
            },
        },
    )


MEASURES = {
    "kl": "KL(π‖π_ref), nats per completion",
    "gold/accuracy": "gold accuracy, share",
    "logps/chosen": "chosen: log π − log π_ref, nats",
    "logps/rejected": "rejected: log π − log π_ref, nats",
}

BOUNDS = {
    "kl": (0.0, math.inf),
    "gold/accuracy": (0.0, 1.0),
}  # An interval may reach beyond what a measure can be; an axis need not.


def over_beta(
    rows: Sequence[Mapping[str, Any]],
    step: int,
    own: Sequence[Mapping[str, Any]] = (),
    theme: str = "light",
) -> go.Figure:
    """What runs that differ in β had reached after `step` updates: KL, gold accuracy,
    log-probabilities of chosen and rejected.

    `rows` are those of the experiment `beta`: method, beta, steps, and per measure mean and half
    the interval at each step. `own` are single runs: name, method, beta, and the measures that they
    have.
    """
    data: list[dict[str, Any]] = []
    for place, measure in enumerate(MEASURES, start=1):
        number = "" if place == 1 else str(place)
        axes = {"type": "scatter", "xaxis": f"x{number}", "yaxis": f"y{number}"}
        for order, method in enumerate(dict.fromkeys(row["method"] for row in rows)):
            mine = sorted(
                (row for row in rows if row["method"] == method), key=lambda row: row["beta"]
            )
            at = [row["steps"].index(step) for row in mine]
            data.append(
                axes
                | {
                    "mode": "lines+markers",
                    "x": [row["beta"] for row in mine],
                    "y": [row[measure]["mean"][i] for row, i in zip(mine, at)],
                    "error_y": {
                        "array": [row[measure]["half"][i] for row, i in zip(mine, at)],
                        "thickness": 1,
                        "width": 3,
                    },
                    "name": METHOD_NAMES[method],
                    "legendgroup": method,
                    "showlegend": place == 1,
                    "line": {
                        "color": METHOD_COLOURS[method],
                        "width": 2,
                        "dash": ("solid", "dash", "dot")[order % 3],
                    },
                    "marker": {"symbol": SYMBOLS[order], "size": 8},
                    "hovertemplate": "β %{x:g}: %{y:.2f} ± %{error_y.array:.2f}",
                }
            )
        for run in own:
            there = measure in run
            data.append(
                axes
                | {
                    "mode": "markers",
                    "x": [run["beta"]] if there else [],
                    "y": [run[measure]] if there else [],
                    "name": run["name"],
                    "legendgroup": run["name"],
                    "showlegend": place == 1,
                    "hovertemplate": "β %{x:g}: %{y:.2f}",
                    "marker": {
                        "symbol": "star-open",
                        "size": 13,
                        "color": METHOD_COLOURS[run["method"]],
                        "line": {"width": 2},
                    },
                }
            )
    layout: dict[str, Any] = {}
    betas = sorted({row["beta"] for row in rows})
    for place, measure in enumerate(MEASURES, start=1):
        number = "" if place == 1 else str(place)
        column, row = (place - 1) % 2, (place - 1) // 2
        means = [mean for r in rows for mean in r[measure]["mean"]]
        longest = max(means, default=0.0) - min(
            means, default=0.0
        )  # An interval of two seeds may be many times as long as all that is to be seen.
        bars = [
            (mean, min(half, longest))
            for r in rows
            for mean, half in zip(r[measure]["mean"], r[measure]["half"])
        ]
        values = [v for mean, half in bars for v in (mean - half, mean + half)]
        values += [run[measure] for run in own if measure in run]
        least, most = BOUNDS.get(measure, (-math.inf, math.inf))
        low, high = max(least, min(values, default=0.0)), min(most, max(values, default=1.0))
        room = 0.05 * (high - low or 1.0)
        layout[f"xaxis{number}"] = {
            "domain": [(0, 0.45), (0.55, 1)][column],
            "anchor": f"y{number}",
            "type": "log",
            "title": {"text": "β (log scale)"},
            "tickvals": betas,
            "ticktext": [f"{b:g}" for b in betas],
        }
        layout[f"yaxis{number}"] = {
            "domain": [(0.58, 1), (0, 0.42)][row],
            "anchor": f"x{number}",
            "title": {"text": MEASURES[measure]},
            "range": [low - room, high + room],
        }
    return whole(
        data,
        layout
        | {
            "template": {"layout": THEMES[theme]["layout"]},
            "height": 620,
            "margin": {"l": 60, "r": 10, "t": 40, "b": 50},
            "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        },
    )
