"""Figures that compare methods: the numbers of the article beside measured ones, and gold accuracy
against KL.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from lab.analysis.statistics import NOT_NEGATIVE, SHARE, Interval
from lab.figures.base import axis_name, empty_figure, interval_bars, log_ticks
from lab.figures.palette import METHOD_COLOURS, REFERENCE_COLOUR, SYMBOLS

ARTICLE_CLAIMS: dict[str, dict[str, float]] = {
    "models": {"ppo": 4, "dpo": 2, "grpo": 2},
    "memory": {"ppo": 100, "dpo": 40, "grpo": 60},
    "time": {"ppo": 100, "dpo": 30, "grpo": 60},
}
"""The article's chart: concurrent models; memory and training time in percent of RLHF's."""

_SHORTEST_ON_LOG_AXIS = 0.02
"""An interval that reaches to a KL of 0, which a logarithmic axis does not have, is drawn down to this
share of its mean.
"""
COST_PANELS = {
    "models": "models in the algorithm",
    "memory": "peak memory, % of RLHF",
    "time": "training time, % of RLHF",
}
SHORT_COST_PANELS = {"models": "models", "memory": "memory, %", "time": "time, %"}
COST_UNITS = {"models": " models", "memory": " %", "time": " %"}
"""By panel the unit that a hover writes behind a number."""


def article_beside_measured(
    measured: Mapping[str, Mapping[str, Mapping[str, float]]],
    titles: Mapping[str, str],
    theme: str = "light",
) -> go.Figure:
    """Return three groups of bars: the figure of the article (hatched) beside the measured one
    (filled, with its interval).

    `measured` maps models, memory and time to method → {"mean", "half"} in the units of
    `ARTICLE_CLAIMS`; a panel without measurements is omitted. `titles` names the methods ppo, dpo
    and grpo.
    """
    panels = [name for name in COST_PANELS if name in measured]
    width = 1 / len(panels)
    axes: dict[str, Any] = {}
    for number, panel in enumerate(panels, start=1):
        axes[axis_name("xaxis", number)] = {
            "domain": [(number - 1) * width + 0.05, number * width - 0.01],
            "anchor": axis_name("y", number),
        }
        axes[axis_name("yaxis", number)] = {
            "anchor": axis_name("x", number),
            "title": {"text": COST_PANELS[panel]},
            "rangemode": "tozero",
        }
    figure = empty_figure(
        theme,
        barmode="group",
        height=330,
        margin={"l": 50, "r": 10, "t": 40, "b": 40},
        legend={"orientation": "h", "y": 1.14, "x": 0},
        **axes,
    )
    for number, panel in enumerate(panels, start=1):
        for method, claim in ARTICLE_CLAIMS[panel].items():
            common = {
                "x": [titles[method]],
                "xaxis": axis_name("x", number),
                "yaxis": axis_name("y", number),
                "marker_line": {"color": METHOD_COLOURS[method], "width": 1.5},
                "showlegend": number == 1 and method == "ppo",
            }
            colour, unit = METHOD_COLOURS[method], COST_UNITS[panel]
            figure.add_bar(**_article_bar(claim, colour, unit), **common)
            figure.add_bar(**_measured_bar(measured[panel][method], colour, unit), **common)
    return figure


def _article_bar(claim: float, colour: str, unit: str) -> dict[str, Any]:
    """Return the hatched bar of a number that the article gives."""
    return {
        "y": [claim],
        "name": "article",
        "legendgroup": "article",
        "offsetgroup": "article",
        "marker": {"color": "rgba(0,0,0,0)", "pattern": {"shape": "/", "fgcolor": colour}},
        "text": [f"{claim:g}"],
        "textposition": "outside",
        "cliponaxis": False,
        "hovertemplate": f"article: {claim:g}{unit}<extra></extra>",
    }


def _measured_bar(value: Mapping[str, float], colour: str, unit: str) -> dict[str, Any]:
    """Return the filled bar of a measured number, with its interval if it has one."""
    interval = f" ± {value['half']:.0f}" if value["half"] else ""
    return {
        "y": [value["mean"]],
        "name": "measured",
        "legendgroup": "measured",
        "offsetgroup": "measured",
        "marker": {"color": colour},
        "text": [f"{value['mean']:.0f}"],
        "textposition": "inside",
        "insidetextanchor": "start",
        "error_y": {"array": [value["half"]], "color": REFERENCE_COLOUR},
        "hovertemplate": f"measured: {value['mean']:.0f}{interval}{unit}<extra></extra>",
    }


def comparison_narrow_layout(panels: Sequence[str]) -> dict[str, Any]:
    """Return the changes to the layout of `article_beside_measured` on a narrow screen: its panels, named
    in their order, are stacked and have short titles.
    """
    count = len(panels)
    axes: dict[str, Any] = {"height": 145 * count, "legend": {"y": 1.0, "yanchor": "bottom"}}
    for number, panel in enumerate(panels, start=1):
        low = 1 - number / count
        axes[axis_name("xaxis", number)] = {"domain": [0, 1]}
        axes[axis_name("yaxis", number)] = {
            "domain": [low + (0.14 / count if number < count else 0), low + 0.86 / count],
            "title": {"text": SHORT_COST_PANELS[panel]},
        }
    return axes


def gold_against_kl(
    rows: Sequence[Mapping[str, Any]], base: Mapping[str, float], theme: str = "light"
) -> go.Figure:
    """Return each method as a point with its intervals: its KL to the reference and its gold accuracy.

    `rows` are the methods of a comparison's table.json, `base` the policy before training. Colour
    and symbol show the method; the symbol of its second arm is open. Each point is named at the right
    edge, with a line to it.
    """
    ends = [
        (max(kl["mean"] - kl["half"], kl["mean"] * _SHORTEST_ON_LOG_AXIS), kl["mean"] + kl["half"])
        for kl in (row["kl"] for row in rows)
    ]
    left = math.log10(min(low for low, _ in ends)) - 0.1
    right = math.log10(max(high for _, high in ends)) + 0.1
    figure = empty_figure(
        theme,
        height=430,
        margin={"l": 60, "r": 190, "t": 10, "b": 50},
        showlegend=False,
        annotations=[_point_label(row, y, right) for y, row in _label_heights(rows)],
        xaxis={
            "range": [left, right],
            "title": {"text": "KL(π‖π_ref) on held-out prompts, nats per completion (log scale)"},
            "type": "log",
        }
        | log_ticks(),
        yaxis={"title": {"text": "gold accuracy, share"}, "range": [-0.03, 1.03]},
    )
    figure.add_hline(
        y=base["gold/accuracy"],
        line={"color": REFERENCE_COLOUR, "dash": "dash", "width": 1.5},
        label={"text": "base model, before training", "textposition": "start", "yanchor": "top"},
    )
    methods: list[str] = []
    for row in rows:
        method = row["method"].partition("@")[0]
        suffix = "-open" if method in methods else ""
        methods += [] if suffix else [method]
        gold, kl = (
            Interval(row[name]["mean"], row[name]["half"]) for name in ("gold/accuracy", "kl")
        )
        figure.add_scatter(
            x=[kl.mean],
            y=[gold.mean],
            mode="markers",
            name=row["title"],
            marker={
                "color": METHOD_COLOURS[method],
                "symbol": SYMBOLS[methods.index(method)] + suffix,
                "size": 11,
            },
            error_x=interval_bars([kl], (kl.mean * _SHORTEST_ON_LOG_AXIS, math.inf)),
            error_y=interval_bars([gold], SHARE),
            hovertemplate=(
                f"{row['title']}: gold {gold.text(2, SHARE)}, KL {kl.text(1, NOT_NEGATIVE)}"
                "<extra></extra>"
            ),
        )
    return figure


def _label_heights(rows: Sequence[Mapping[str, Any]]) -> list[tuple[float, Mapping[str, Any]]]:
    """Return each method with the height of its name at the right edge, on the y axis: as near to its
    point as the names below it leave room.
    """
    room = min(0.055, 1.0 / max(1, len(rows)))
    ordered = sorted(rows, key=lambda row: row["gold/accuracy"]["mean"])
    heights: list[float] = []
    for place, row in enumerate(ordered):
        highest = 0.98 - room * (len(ordered) - 1 - place)
        lowest = heights[-1] + room if heights else 0.02
        heights.append(min(max(row["gold/accuracy"]["mean"], lowest), highest))
    return list(zip(heights, ordered))


def _point_label(row: Mapping[str, Any], y: float, right: float) -> dict[str, Any]:
    """Return the name of a method at the right edge and the height `y`, with a line to its point."""
    return {
        "text": row["title"],
        "x": math.log10(row["kl"]["mean"]),
        "y": row["gold/accuracy"]["mean"],
        "xref": "x",
        "yref": "y",
        "axref": "x",
        "ayref": "y",
        "ax": right,
        "ay": y,
        "xanchor": "left",
        "arrowhead": 0,
        "arrowwidth": 0.7,
        "arrowcolor": REFERENCE_COLOUR,
        "standoff": 7,
        "bgcolor": "rgba(0,0,0,0)",
    }
