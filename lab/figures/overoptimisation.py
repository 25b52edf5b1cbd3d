"""Figures of the experiments behind RLHF's claims: what optimising a reward model does, and how
much each knob matters.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from lab.figures.base import frame
from lab.figures.palette import METHOD_COLOURS, METHOD_NAMES, REFERENCE, SYMBOLS, THEMES
from lab.figures.training_curves import axis

ACROSS = {"distance": "√KL(π‖π_ref), √nats", "step": "step (updates)"}
KNOB_NAMES = {
    "learning_rate": "learning rate",
    "critic_learning_rate": "critic learning rate",
    "epsilon": "ε",
    "beta": "β",
}
PLACES = {
    "low": ("÷", -0.22, "triangle-left"),
    "centre": ("", 0.0, "circle"),
    "high": ("×", 0.22, "triangle-right"),
}
"""Per setting of a knob the sign before the factor, how far above its row it stands, and its
symbol.
"""


def overoptimisation(
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
            axes[axis("xaxis", place)] = {
                "domain": domain,
                "anchor": axis("y", place),
                "matches": "x",
            } | (
                {"type": "log", "tickvals": [0.5, 1, 2, 5, 10, 20]}
                if across == "distance"
                else {"rangemode": "tozero"}
            )
            axes[axis("yaxis", place)] = {"domain": [low, high], "anchor": axis("x", place)}
        axes[axis("yaxis", column + 1)] |= {"range": [-0.03, 1.03]}
        axes[axis("xaxis", count + column + 1)]["title"] = {"text": ACROSS[across]}
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
    axes[axis("yaxis", count + 1)]["title"] = {"text": "proxy reward, score"}
    figure = frame(
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
                xaxis=axis("x", place),
                yaxis=axis("y", place),
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


def stacked_models(table: Mapping[str, Any]) -> dict[str, Any]:
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
            layout[axis("xaxis", place)] = {"domain": [0, 1]}
            layout[axis("yaxis", place)] = {
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


def sensitivity(table: Mapping[str, Any], theme: str = "light") -> go.Figure:
    """A row per knob: gold accuracy with the knob divided, as it is and multiplied by the table's
    factor, each with its interval.

    `table` is that of the sensitivity experiment; the rows stand in its order, from the top.
    """
    rows, factor = table["rows"], f"{table['factor']:g}"
    figure = frame(
        theme,
        height=90 + 44 * len(rows),
        margin={"l": 10, "r": 10, "t": 40, "b": 50},
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0},
        xaxis={"title": {"text": "gold accuracy, share"}, "range": [-0.03, 1.03]},
        yaxis={
            "tickvals": list(range(len(rows))),
            "ticktext": [knob_name(row) for row in rows],
            "autorange": "reversed",
            "automargin": True,
            "zeroline": False,
        },
    )
    for number, row in enumerate(rows):
        colour = METHOD_COLOURS[row["method"]]
        means = [row[word]["mean"] for word in PLACES]
        figure.add_scatter(
            x=[min(means), max(means)],
            y=[number, number],
            mode="lines",
            line={"color": colour, "width": 1, "dash": "dot"},
            showlegend=False,
            hoverinfo="skip",
        )
    for word, (sign, above, symbol) in PLACES.items():
        title = f"{sign} {factor}" if sign else "as it is"
        figure.add_scatter(
            x=[None],
            y=[None],
            mode="markers",
            name=title,
            marker={"symbol": symbol, "size": 11, "color": THEMES[theme]["muted"]},
        )
        figure.add_scatter(
            x=[row[word]["mean"] for row in rows],
            y=[number + above for number in range(len(rows))],
            mode="markers",
            name=title,
            showlegend=False,
            marker={
                "symbol": symbol,
                "size": 11,
                "color": [METHOD_COLOURS[row["method"]] for row in rows],
            },
            error_x={
                "array": [row[word]["half"] for row in rows],
                "color": REFERENCE,
                "thickness": 1.5,
                "width": 3,
            },
            customdata=[knob_name(row) for row in rows],
            hovertemplate=(
                f"%{{customdata}} {title}: gold %{{x:.2f}} ± %{{error_x.array:.2f}}<extra></extra>"
            ),
        )
    return figure


def knob_name(row: Mapping[str, Any]) -> str:
    """Method and knob of a row in words."""
    return f"{METHOD_NAMES[row['method']]}, {knob_word(row)}"


def knob_word(row: Mapping[str, Any]) -> str:
    """The knob of a row in words."""
    return KNOB_NAMES.get(row["knob"], row["knob"].replace("_", " "))
