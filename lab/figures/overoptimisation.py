"""Figure of what optimising a reward model does to the gold accuracy."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from lab.figures.base import axis_name, empty_figure
from lab.figures.palette import METHOD_COLOURS, METHOD_NAMES, SYMBOLS

_X_TITLES = {"distance": "√KL(π‖π_ref), √nats", "step": "step (updates)"}


def overoptimisation_figure(
    table: Mapping[str, Any],
    theme: str = "light",
    across: str = "distance",
    models: Sequence[str] = (),
) -> go.Figure:
    """Return one column per reward model: the gold accuracy of the rollouts (above) and the score
    that the reward model gives them (below).

    `table` is that of the overoptimisation experiment. `across` is "distance" (√KL, as in arXiv
    2210.10760, on a logarithmic axis, since methods go very differently far) or "step"; `models` are
    the reward models to draw, all of them when empty. An open symbol marks the best gold accuracy
    of each method.
    """
    models = list(models or dict.fromkeys(row["reward_model"] for row in table["rows"]))
    methods = list(dict.fromkeys(row["method"] for row in table["rows"]))
    axes, notes = _columns(models, across)
    figure = empty_figure(
        theme,
        height=520,
        margin={"l": 60, "r": 10, "t": 70, "b": 50},
        legend={"orientation": "h", "y": 1.08, "yanchor": "bottom", "x": 0},
        annotations=notes,
        **axes,
    )
    for row in table["rows"]:
        if row["reward_model"] not in models:
            continue
        column, symbol = models.index(row["reward_model"]), SYMBOLS[methods.index(row["method"])]
        for number, name, title in (
            (column + 1, "gold", "gold accuracy"),
            (len(models) + column + 1, "proxy", "proxy reward"),
        ):
            figure.add_scatter(
                xaxis=axis_name("x", number),
                yaxis=axis_name("y", number),
                showlegend=number == 1,
                **_curve(row, name, title, across, symbol),
            )
    return figure


def _columns(models: Sequence[str], across: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the axes of all panels, and the name of the reward model above each column."""
    count = len(models)
    axes: dict[str, Any] = {}
    notes: list[dict[str, Any]] = []
    for column, model in enumerate(models):
        domain = [column / count + 0.02, (column + 1) / count - 0.01]
        for number, low, high in ((column + 1, 0.55, 1.0), (count + column + 1, 0.0, 0.45)):
            axes[axis_name("xaxis", number)] = {
                "domain": domain,
                "anchor": axis_name("y", number),
                "matches": "x",
            } | (
                {"type": "log", "tickvals": [0.5, 1, 2, 5, 10, 20]}
                if across == "distance"
                else {"rangemode": "tozero"}
            )
            axes[axis_name("yaxis", number)] = {
                "domain": [low, high],
                "anchor": axis_name("x", number),
            }
        axes[axis_name("yaxis", column + 1)] |= {"range": [-0.03, 1.03]}
        axes[axis_name("xaxis", count + column + 1)]["title"] = {"text": _X_TITLES[across]}
        notes.append(_note(model, sum(domain) / 2, 1.0, "center"))
    axes["yaxis"]["title"] = {"text": "gold accuracy, share"}
    axes[axis_name("yaxis", count + 1)]["title"] = {"text": "proxy reward, score"}
    return axes, notes


def _note(model: str, x: float, y: float, anchor: str) -> dict[str, Any]:
    return {
        "text": f"<b>{model}</b>",
        "x": x,
        "y": y,
        "xref": "paper",
        "yref": "paper",
        "xanchor": anchor,
        "yanchor": "bottom",
        "showarrow": False,
    }


def _curve(
    row: Mapping[str, Any], name: str, title: str, across: str, symbol: str
) -> dict[str, Any]:
    """Return one curve of a run: "gold" is solid with an open symbol at its best, "proxy" dashed."""
    method, curve = row["method"], row["curve"]
    symbols = [
        f"{symbol}-open" if name == "gold" and step == row["best_step"] else symbol
        for step in curve["step"]
    ]
    return {
        "x": curve[across],
        "y": curve[name],
        "mode": "lines+markers",
        "name": METHOD_NAMES[method],
        "legendgroup": method,
        "line": {
            "color": METHOD_COLOURS[method],
            "width": 2,
            "dash": "solid" if name == "gold" else "dash",
        },
        "marker": {
            "symbol": symbols,
            "size": [13 if symbol.endswith("-open") else 6 for symbol in symbols],
            "line": {"width": 2, "color": METHOD_COLOURS[method]},
        },
        "customdata": curve["step"],
        "hovertemplate": (
            f"{METHOD_NAMES[method]}, update %{{customdata:.0f}}: {title} %{{y:.2f}}<extra></extra>"
        ),
    }


def overoptimisation_narrow_layout(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return the changes to the layout of `overoptimisation_figure` on a narrow screen: the reward
    models are stacked.
    """
    models = list(dict.fromkeys(row["reward_model"] for row in table["rows"]))
    count = len(models)
    layout: dict[str, Any] = {
        "height": 400 * count,
        "legend": {"y": 1.0, "yanchor": "bottom"},
        "margin": {"t": 50},
        "annotations": [],
    }
    for column, model in enumerate(models):
        top, slot = 1 - column / count, 1 / count
        for number, low, high in ((column + 1, 0.5, 0.9), (count + column + 1, 0.14, 0.44)):
            layout[axis_name("xaxis", number)] = {"domain": [0, 1]}
            layout[axis_name("yaxis", number)] = {
                "domain": [top - slot + low * slot, top - slot + high * slot]
            }
        layout["annotations"].append(_note(model, 0, top - 0.1 * slot, "left"))
    return layout
