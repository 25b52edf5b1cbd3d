"""Comparisons over methods and seeds: what the article draws beside what was measured, and what
each method reached at which KL.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from lab.figures.base import empty_figure
from lab.figures.palette import METHOD_COLOURS, REFERENCE_COLOUR, SYMBOLS

ARTICLE_CLAIMS: dict[str, dict[str, float]] = {
    "models": {"ppo": 4, "dpo": 2, "grpo": 2},
    "memory": {"ppo": 100, "dpo": 40, "grpo": 60},
    "time": {"ppo": 100, "dpo": 30, "grpo": 60},
}
"""The article's chart: concurrent models; memory and training time in percent of RLHF's."""

COST_PANELS = {
    "models": "models in the algorithm",
    "memory": "peak memory, % of RLHF",
    "time": "training time, % of RLHF",
}


def article_beside_measured(
    measured: Mapping[str, Mapping[str, Mapping[str, float]]],
    titles: Mapping[str, str],
    theme: str = "light",
) -> go.Figure:
    """Three groups of bars: the article's figure (hatched) beside the measured one (filled, with
    its interval).

    `measured` maps models, memory and time to method → {"mean", "half"} in the units of `ARTICLE`;
    a panel without measurements is left out. `titles` names the methods ppo, dpo and grpo.
    """
    panels = [name for name in COST_PANELS if name in measured]
    width = 1 / len(panels)
    axes: dict[str, Any] = {}
    for place, panel in enumerate(panels, start=1):
        axis = "" if place == 1 else str(place)
        axes[f"xaxis{axis}"] = {
            "domain": [(place - 1) * width + 0.05, place * width - 0.01],
            "anchor": f"y{axis}",
        }
        axes[f"yaxis{axis}"] = {
            "anchor": f"x{axis}",
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
    for place, panel in enumerate(panels, start=1):
        axis = "" if place == 1 else str(place)
        for method, claimed in ARTICLE_CLAIMS[panel].items():
            found = measured[panel][method]
            common = {
                "x": [titles[method]],
                "xaxis": f"x{axis}",
                "yaxis": f"y{axis}",
                "marker_line": {"color": METHOD_COLOURS[method], "width": 1.5},
            }
            figure.add_bar(
                y=[claimed],
                name="article",
                legendgroup="article",
                offsetgroup="article",
                showlegend=place == 1 and method == "ppo",
                marker={
                    "color": "rgba(0,0,0,0)",
                    "pattern": {"shape": "/", "fgcolor": METHOD_COLOURS[method]},
                },
                text=[f"{claimed:g}"],
                textposition="outside",
                cliponaxis=False,
                hovertemplate="article: %{y:g}<extra></extra>",
                **common,
            )
            figure.add_bar(
                y=[found["mean"]],
                name="measured",
                legendgroup="measured",
                offsetgroup="measured",
                showlegend=place == 1 and method == "ppo",
                marker={"color": METHOD_COLOURS[method]},
                text=[f"{found['mean']:.0f}"],
                textposition="inside",
                insidetextanchor="start",
                error_y={"array": [found["half"]], "color": REFERENCE_COLOUR},
                hovertemplate="measured: %{y:.3g} ± %{error_y.array:.2g}<extra></extra>",
                **common,
            )
    return figure


def comparison_narrow_layout(panels: int) -> dict[str, Any]:
    """What of the layout of `article_beside_measured` differs on a narrow screen: its panels stand
    under each other.
    """
    axes: dict[str, Any] = {"height": 300 * panels, "legend": {"y": 1.0, "yanchor": "bottom"}}
    for place in range(1, panels + 1):
        axis, low = "" if place == 1 else str(place), 1 - place / panels
        axes[f"xaxis{axis}"] = {"domain": [0, 1]}
        axes[f"yaxis{axis}"] = {
            "domain": [low + (0.14 / panels if place < panels else 0), low + 0.86 / panels]
        }
    return axes


def gold_against_kl(
    rows: Sequence[Mapping[str, Any]], base: Mapping[str, float], theme: str = "light"
) -> go.Figure:
    """Each method as a point with its intervals: how far it moved from the reference, and how often
    it is right.

    `rows` are the methods of a comparison's table.json, `base` the policy before training. Colour
    and symbol are the method's; its second arm is open.
    """
    figure = empty_figure(
        theme,
        height=430,
        margin={"l": 60, "r": 10, "t": 10, "b": 50},
        xaxis={
            "title": {"text": "KL(π‖π_ref) on held-out prompts, nats per completion (log scale)"},
            "type": "log",
        },
        yaxis={"title": {"text": "gold accuracy, share"}, "range": [-0.03, 1.03]},
    )
    figure.add_hline(
        y=base["gold/accuracy"],
        line={"color": REFERENCE_COLOUR, "dash": "dash", "width": 1.5},
        annotation={"text": "before training"},
        annotation_position="bottom right",
    )
    seen: list[str] = []
    for row in rows:
        method = row["method"].partition("@")[0]
        again = "-open" if method in seen else ""
        seen += [] if again else [method]
        gold, kl = row["gold/accuracy"], row["kl"]
        figure.add_scatter(
            x=[kl["mean"]],
            y=[gold["mean"]],
            mode="markers",
            name=row["title"],
            marker={
                "color": METHOD_COLOURS[method],
                "symbol": SYMBOLS[seen.index(method)] + again,
                "size": 11,
            },
            error_x={"array": [kl["half"]]},
            error_y={"array": [gold["half"]]},
            hovertemplate=(
                f"{row['title']}: gold %{{y:.2f}} ± {gold['half']:.2f}, KL %{{x:.1f}} ±"
                f" {kl['half']:.1f}<extra></extra>"
            ),
        )
    return figure
