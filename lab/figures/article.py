"""The article's curves, one panel each: the DPO loss, the margins of DPO and IPO, KTO's values."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from lab.figures.base import figure_from_traces
from lab.figures.palette import METHOD_COLOURS, METHOD_NAMES, REFERENCE_COLOUR, THEMES

MAX_LOSS = 4.0
_LEGEND = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}
Points = tuple[Sequence[float], Sequence[float]]
"""The x and the y of a curve."""


def loss_along_margin(
    curve: Points, others: Mapping[float, Points], beta: float, pair: tuple[float, float]
) -> go.Figure:
    """Return the DPO loss along the margin at `beta`, thin at the β of `others`, and one pair on it.
    `pair` is its margin and its loss.
    """
    thin = [
        _line(x, y, f"β = {other:g}", REFERENCE_COLOUR, "dot", 1) | {"showlegend": False}
        for other, (x, y) in others.items()
    ]
    data = [
        *thin,
        _line(*curve, f"β = {beta:g}", METHOD_COLOURS["dpo"], "solid", 3),
        _point(*pair, "one pair", METHOD_COLOURS["dpo"]),
    ]
    low, high = min(curve[0]), max(curve[0])
    notes = [
        _note("rejected is likelier than<br>under the reference", low, "left"),
        _note("chosen is likelier than<br>under the reference", high, "right"),
    ]
    return _figure(
        data,
        x="margin h, nats",
        y="loss",
        shapes=[_mark("x", 0)],
        annotations=notes,
        ranges=((low, high), (0, MAX_LOSS)),
    )


def margins_over_updates(
    updates: Sequence[int], walks: Mapping[str, Sequence[float]], target: float
) -> go.Figure:
    """Return the margin of each method of `walks` over updates, with IPO's `target` 1/(2β)."""
    dashes = {"dpo": "solid", "ipo": "dash"}
    data = [
        _line(updates, walk, METHOD_NAMES[method], METHOD_COLOURS[method], dashes[method], 3)
        for method, walk in walks.items()
    ]
    note = {"text": f"1/(2β) = {target:.3g}", "showarrow": False, "y": target}
    place = {"xref": "x domain", "x": 0.98, "xanchor": "right", "yanchor": "bottom"}
    return _figure(
        data,
        x="updates",
        y="margin h, nats",
        shapes=[_mark("y", target)],
        annotations=[note | place],
        ranges=((0, max(updates)), (0, 40)),
    )


def kto_values(
    ratios: Sequence[float], values: Mapping[str, Sequence[float]], z: float
) -> go.Figure:
    """Return KTO's value of a good and of a bad completion along the log-ratio. `values` maps the name
    of a line to its values; `z` is the reference point.
    """
    colour = METHOD_COLOURS["kto"]
    data = [
        _line(ratios, line, name, colour, dash, 3)
        for (name, line), dash in zip(values.items(), ("solid", "dash"), strict=True)
    ]
    note = {"text": f"z = {z:g}", "showarrow": False, "x": z, "xanchor": "left", "xshift": 5}
    return _figure(
        data,
        x="log-ratio r, nats",
        y="value λ − loss",
        shapes=[_mark("x", z)],
        annotations=[note | {"yref": "y domain", "y": 0.98, "yanchor": "top"}],
        ranges=((min(ratios), max(ratios)), (0, 1.03)),
    )


def _line(
    x: Sequence[float], y: Sequence[float], name: str, colour: str, dash: str, width: float
) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "x": np.asarray(x),
        "y": np.asarray(y),
        "name": name,
        "line": {"color": colour, "dash": dash, "width": width},
        "hovertemplate": "%{x:.3~g}: %{y:.3~g}",
    }


def _point(x: float, y: float, name: str, colour: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [x],
        "y": [y],
        "name": name,
        "marker": {"color": colour, "size": 13},
        "hovertemplate": "%{x:.3~g}: %{y:.3~g}",
    }


def _note(text: str, x: float, anchor: str) -> dict[str, Any]:
    place = {"yref": "y domain", "y": 0.98, "yanchor": "top", "x": x, "xanchor": anchor}
    return {"text": text, "showarrow": False, "align": anchor} | place


def _mark(axis: str, at: float) -> dict[str, Any]:
    """Return a dotted line across the panel at a value of `axis`."""
    line = {"type": "line", "line": {"color": REFERENCE_COLOUR, "width": 1.5, "dash": "dot"}}
    if axis == "x":
        return line | {"xref": "x", "yref": "y domain", "x0": at, "x1": at, "y0": 0, "y1": 1}
    return line | {"xref": "x domain", "yref": "y", "x0": 0, "x1": 1, "y0": at, "y1": at}


def _figure(
    data: Sequence[Mapping[str, Any]],
    *,
    x: str,
    y: str,
    shapes: Sequence[Mapping[str, Any]],
    annotations: Sequence[Mapping[str, Any]],
    ranges: tuple[tuple[float, float], tuple[float, float]],
) -> go.Figure:
    return figure_from_traces(
        data,
        {
            "template": {"layout": THEMES["light"]["layout"]},
            "height": 420,
            "margin": {"l": 55, "r": 10, "t": 40, "b": 50},
            "legend": _LEGEND,
            "shapes": list(shapes),
            "annotations": list(annotations),
            "xaxis": {"title": {"text": x}, "range": list(ranges[0])},
            "yaxis": {"title": {"text": y}, "range": list(ranges[1])},
        },
    )
