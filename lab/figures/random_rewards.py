"""Figure of GRPO with random and with true rewards, with and without the clip."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from lab.analysis.random_rewards import BASE, REWARDS, VARIANT_TITLES, arm_row, task_text
from lab.analysis.statistics import SHARE, Interval
from lab.figures.base import axis_name, empty_figure, interval_bars
from lab.figures.palette import METHOD_COLOURS, REFERENCE_COLOUR, SYMBOLS

_SHIFT = 0.08
"""How far the two rewards of one way to update stand from its tick."""


def random_rewards_figure(tables: Sequence[Mapping[str, Any]], theme: str = "light") -> go.Figure:
    """Return one panel for each table of the experiment: gold accuracy after training, by the way to
    update and by the reward, and that of the base (dashed). Bars are 95 % intervals over seeds and
    prompts.
    """
    count = len(tables)
    axes: dict[str, Any] = {}
    for number, table in enumerate(tables, 1):
        axes[axis_name("xaxis", number)] = {
            "domain": [(number - 1) / count + 0.05 * (number > 1), number / count],
            "anchor": axis_name("y", number),
            "tickvals": list(range(len(VARIANT_TITLES))),
            "ticktext": [title.replace(", ", ",<br>") for title in VARIANT_TITLES.values()],
            "range": [-0.5, len(VARIANT_TITLES) - 0.5],
            "zeroline": False,
            "title": {"text": task_text(table)},
        }
        axes[axis_name("yaxis", number)] = {
            "anchor": axis_name("x", number),
            "range": [-0.03, 1.03],
            "title": {"text": "gold accuracy, share" if number == 1 else ""},
        }
    figure = empty_figure(
        theme,
        height=400,
        margin={"l": 54, "r": 12, "t": 50, "b": 70},
        legend={"orientation": "h", "y": 1.04, "yanchor": "bottom", "x": 0},
        **axes,
    )
    for number, table in enumerate(tables, 1):
        _add_panel(figure, table, number)
    return figure


def _add_panel(figure: go.Figure, table: Mapping[str, Any], number: int) -> None:
    """Add the points of both rewards and the line of the base to panel `number`."""
    at = {
        "xaxis": axis_name("x", number),
        "yaxis": axis_name("y", number),
        "showlegend": number == 1,
    }
    base = arm_row(table, BASE)["gold/accuracy"]["mean"]
    figure.add_scatter(
        x=[-0.5, len(VARIANT_TITLES) - 0.5],
        y=[base, base],
        mode="lines",
        name="before training",
        hoverinfo="skip",
        line={"color": REFERENCE_COLOUR, "dash": "dash", "width": 1.5},
        **at,
    )
    for order, (reward, title) in enumerate(REWARDS.items()):
        rows = [arm_row(table, f"{reward}.{variant}") for variant in VARIANT_TITLES]
        intervals = [Interval(**row["gold/accuracy"]) for row in rows]
        symbol = SYMBOLS[order]
        figure.add_scatter(
            x=[place + _SHIFT * (2 * order - 1) for place in range(len(rows))],
            y=[interval.mean for interval in intervals],
            mode="markers",
            name=title,
            marker={
                "symbol": f"{symbol}-open" if reward == "random" else symbol,
                "size": 11,
                "color": METHOD_COLOURS["grpo"],
                "line": {"width": 2, "color": METHOD_COLOURS["grpo"]},
            },
            error_y=interval_bars(intervals, SHARE) | {"thickness": 1.5, "width": 5},
            customdata=[
                f"{row['title']}: {interval.text(2, SHARE)}"
                for row, interval in zip(rows, intervals)
            ],
            hovertemplate="%{customdata}<extra></extra>",
            **at,
        )


def random_rewards_narrow_layout(tables: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the changes to the layout of `random_rewards_figure` on a phone: the panels are stacked."""
    count = len(tables)
    layout: dict[str, Any] = {"height": 60 + 340 * count}
    for number in range(1, count + 1):
        low = 1 - number / count
        layout[axis_name("xaxis", number)] = {"domain": [0, 1]}
        layout[axis_name("yaxis", number)] = {
            "domain": [low + (0.25 / count if number < count else 0), low + 0.97 / count]
        }
    return layout
