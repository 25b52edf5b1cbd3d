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
    """A column per reward model: above what the task says of the rollouts, below what the reward
    model says of the same ones.

    `table` is that of the overoptimisation experiment. `across` is distance (√KL, as in arXiv
    2210.10760, on a logarithmic axis, since methods go very differently far) or step; `models` are
    the reward models to draw, all of them when empty. An open symbol marks each method's best gold
    accuracy.
    """
    models = list(models or dict.fromkeys(row["reward_model"] for row in table["rows"]))
    methods = list(dict.fromkeys(row["method"] for row in table["rows"]))
    count = len(models)
    axes: dict[str, Any] = {}
    notes: list[dict[str, Any]] = []
    for column, model in enumerate(models):
        domain = [column / count + 0.02, (column + 1) / count - 0.01]
        for place, low, high in ((column + 1, 0.55, 1.0), (count + column + 1, 0.0, 0.45)):
            axes[axis_name("xaxis", place)] = {
                "domain": domain,
                "anchor": axis_name("y", place),
                "matches": "x",
            } | (
                {"type": "log", "tickvals": [0.5, 1, 2, 5, 10, 20]}
                if across == "distance"
                else {"rangemode": "tozero"}
            )
            axes[axis_name("yaxis", place)] = {
                "domain": [low, high],
                "anchor": axis_name("x", place),
            }
        axes[axis_name("yaxis", column + 1)] |= {"range": [-0.03, 1.03]}
        axes[axis_name("xaxis", count + column + 1)]["title"] = {"text": _X_TITLES[across]}
        notes.append(
            {
                "text": f"<b>{model}</b>",
                "x": sum(domain) / 2,
                "y": 1.0,
                "xref": "paper",
                "yref": "paper",
                "xanchor": "center",
                "yanchor": "bottom",
                "showarrow": False,
            }
        )
    axes["yaxis"]["title"] = {"text": "gold accuracy, share"}
    axes[axis_name("yaxis", count + 1)]["title"] = {"text": "proxy reward, score"}
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
        column, method, curve = models.index(row["reward_model"]), row["method"], row["curve"]
        symbol = SYMBOLS[methods.index(method)]
        for place, name, word in (
            (column + 1, "gold", "gold accuracy"),
            (count + column + 1, "proxy", "proxy reward"),
        ):
            best = [
                f"{symbol}-open" if name == "gold" and step == row["best_step"] else symbol
                for step in curve["step"]
            ]
            size = [13 if mark.endswith("-open") else 6 for mark in best]
            figure.add_scatter(
                x=curve[across],
                y=curve[name],
                xaxis=axis_name("x", place),
                yaxis=axis_name("y", place),
                mode="lines+markers",
                name=METHOD_NAMES[method],
                legendgroup=method,
                showlegend=place == 1,
                line={
                    "color": METHOD_COLOURS[method],
                    "width": 2,
                    "dash": "solid" if name == "gold" else "dash",
                },
                marker={
                    "symbol": best,
                    "size": size,
                    "line": {"width": 2, "color": METHOD_COLOURS[method]},
                },
                customdata=curve["step"],
                hovertemplate=(
                    f"{METHOD_NAMES[method]}, update %{{customdata:.0f}}: {word}"
                    " %{y:.2f}<extra></extra>"
                ),
            )
    return figure


def overoptimisation_narrow_layout(table: Mapping[str, Any]) -> dict[str, Any]:
    """What of the layout of `overoptimisation` differs on a narrow screen: one reward model under
    the other.
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
        for place, low, high in ((column + 1, 0.5, 0.9), (count + column + 1, 0.14, 0.44)):
            layout[axis_name("xaxis", place)] = {"domain": [0, 1]}
            layout[axis_name("yaxis", place)] = {
                "domain": [top - slot + low * slot, top - slot + high * slot]
            }
        layout["annotations"].append(
            {
                "text": f"<b>{model}</b>",
                "x": 0,
                "y": top - 0.1 * slot,
                "xref": "paper",
                "yref": "paper",
                "xanchor": "left",
                "yanchor": "bottom",
                "showarrow": False,
            }
        )
    return layout
