"""Figures of IPO beside DPO and KTO: where the margin stops, in the loss and in real runs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from lab.figures.base import figure_from_traces
from lab.figures.palette import METHOD_COLOURS, METHOD_NAMES, REFERENCE_COLOUR, THEMES

_LINE_STYLES = {"dpo": ("solid", "circle"), "ipo": ("dash", "square"), "kto": ("dot", "diamond")}


_SIDE_SYMBOLS = {"chosen": "circle", "rejected": "x"}


LEGEND_ABOVE = {"orientation": "h", "y": 1.02, "yanchor": "bottom"}


def _line(method: str, **more: Any) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": METHOD_NAMES[method],
        "legendgroup": method,
        "line": {"color": METHOD_COLOURS[method], "dash": _LINE_STYLES[method][0], "width": 3},
    } | more


def bounded_margin_figure(
    margins: Sequence[float],
    losses: Mapping[str, Sequence[float]],
    updates: Sequence[int],
    walks: Mapping[str, Sequence[float]],
    target: float,
    theme: str = "light",
) -> go.Figure:
    """Return the losses of DPO and IPO along the margin, each in units of its value at h = 0 (left),
    and the margin over updates in a world of two actions (right).

    `losses` and `walks` hold one line for each method; `target` is 1/(2β), where IPO should stop.
    """
    data = [
        _line(
            method,
            x=np.asarray(margins),
            y=np.asarray(losses[method]),
            hovertemplate="h %{x:.1f} nats: %{y:.3f}",
        )
        for method in losses
    ]
    data += [
        _line(
            method,
            x=np.asarray(updates),
            y=np.asarray(walks[method]),
            xaxis="x2",
            yaxis="y2",
            showlegend=False,
            hovertemplate="update %{x}: h %{y:.2f} nats",
        )
        for method in walks
    ]
    return figure_from_traces(
        data, _bounded_margin_layout((min(margins), max(margins)), target, theme)
    )


def _bounded_margin_layout(
    margin_range: tuple[float, float], target: float, theme: str
) -> dict[str, Any]:
    mark = {"type": "line", "line": {"color": REFERENCE_COLOUR, "width": 1.5, "dash": "dot"}}
    shapes = [
        mark | {"xref": "x", "yref": "y domain", "x0": target, "x1": target, "y0": 0, "y1": 1},
        mark | {"xref": "x2 domain", "yref": "y2", "x0": 0, "x1": 1, "y0": target, "y1": target},
    ]
    text = {"text": f"1/(2β) = {target:.3g}", "showarrow": False}
    notes = [
        text
        | {
            "xref": "x",
            "yref": "y domain",
            "x": target,
            "y": 0.98,
            "xanchor": "left",
            "xshift": 5,
            "yanchor": "top",
        },
        text
        | {
            "xref": "x2 domain",
            "yref": "y2",
            "x": 0.98,
            "y": target,
            "xanchor": "right",
            "yanchor": "bottom",
        },
    ]
    return {
        "template": {"layout": THEMES[theme]["layout"]},
        "height": 430,
        "margin": {"l": 60, "r": 10, "t": 40, "b": 50},
        "shapes": shapes,
        "annotations": notes,
        "legend": {"x": 0} | LEGEND_ABOVE,
        "xaxis": {
            "domain": [0, 0.46],
            "title": {"text": "margin h, nats"},
            "range": list(margin_range),
        },
        "yaxis": {"title": {"text": "loss, in units of its value at h = 0"}, "range": [-0.05, 2.5]},
        "xaxis2": {
            "domain": [0.56, 1],
            "anchor": "y2",
            "title": {"text": "updates (two responses, y₁ is always preferred)"},
        },
        "yaxis2": {
            "anchor": "x2",
            "title": {"text": "margin h = log-odds of y₁, nats"},
            "range": [0, 40],
        },
    }


def margins_over_steps(
    rows: Sequence[Mapping[str, Any]], target: float, theme: str = "light"
) -> go.Figure:
    """Return the margins of the pairs of each run, as mean and the middle 80 % (left), and how far the
    log-probabilities of chosen and rejected completions have moved (right).

    `rows` hold method, steps, and per step the margins, and log π − log π_ref of chosen and
    rejected, of every pair; `target` is IPO's 1/(2β).
    """
    data = [trace for row in rows for trace in _run_traces(row)]
    data += [
        {
            "type": "scatter",
            "mode": "markers",
            "x": [None],
            "y": [None],
            "xaxis": "x2",
            "yaxis": "y2",
            "name": side,
            "legend": "legend2",
            "marker": {"symbol": symbol, "size": 8, "color": REFERENCE_COLOUR},
        }
        for side, symbol in _SIDE_SYMBOLS.items()
    ]
    return figure_from_traces(data, _margins_layout(target, theme))


def _run_traces(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the band and the mean of the margins of a run, and the log-ratios of its two sides."""
    method, steps = row["method"], np.asarray(row["steps"])
    low, high = np.quantile(np.asarray(row["margins"]), (0.1, 0.9), axis=1)
    band = {
        "type": "scatter",
        "mode": "lines",
        "x": steps,
        "line": {"width": 0, "color": METHOD_COLOURS[method]},
        "hoverinfo": "skip",
        "showlegend": False,
        "legendgroup": method,
    }
    colour = METHOD_COLOURS[method]
    shade = f"rgba({int(colour[1:3], 16)},{int(colour[3:5], 16)},{int(colour[5:], 16)},0.15)"
    data = [
        band | {"y": low},
        band | {"y": high, "fill": "tonexty", "fillcolor": shade},
        _line(method, x=steps, y=np.asarray(row["margins"]).mean(1), hovertemplate="%{y:.1f} nats"),
    ]
    for side, symbol in _SIDE_SYMBOLS.items():
        log_ratios = np.asarray(row[side]).mean(1)
        data.append(
            _line(
                method,
                x=steps,
                y=log_ratios,
                xaxis="x2",
                yaxis="y2",
                mode="lines+markers",
                name=f"{METHOD_NAMES[method]}, {side}",
                showlegend=False,
                marker={"symbol": symbol, "size": 7, "maxdisplayed": 8},
                line={"color": METHOD_COLOURS[method], "dash": _LINE_STYLES[method][0], "width": 2},
                hovertemplate="%{y:.1f} nats",
            )
        )
    return data


def _margins_layout(target: float, theme: str) -> dict[str, Any]:
    goal = {
        "type": "line",
        "xref": "x domain",
        "yref": "y",
        "x0": 0,
        "x1": 1,
        "y0": target,
        "y1": target,
        "line": {"color": REFERENCE_COLOUR, "width": 1.5, "dash": "dot"},
    }
    note = {
        "text": f"IPO's target 1/(2β) = {target:g}",
        "showarrow": False,
        "xref": "x domain",
        "yref": "y",
        "x": 0.99,
        "y": target,
        "xanchor": "right",
        "yanchor": "bottom",
    }
    return {
        "template": {"layout": THEMES[theme]["layout"]},
        "height": 450,
        "margin": {"l": 60, "r": 10, "t": 40, "b": 50},
        "shapes": [goal],
        "annotations": [note],
        "legend": {"x": 0} | LEGEND_ABOVE,
        "legend2": {"x": 0.56} | LEGEND_ABOVE,
        "xaxis": {"domain": [0, 0.46], "title": {"text": "step (updates)"}},
        "yaxis": {"title": {"text": "margin h of the pairs, nats"}},
        "xaxis2": {"domain": [0.56, 1], "anchor": "y2", "title": {"text": "step (updates)"}},
        "yaxis2": {"anchor": "x2", "title": {"text": "log π − log π_ref, mean, nats"}},
    }
