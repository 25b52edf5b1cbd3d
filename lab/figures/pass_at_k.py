"""Figure of pass@k: the base and every method on default and on longer chains."""

from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go

from lab.analysis.pass_at_k import BASE, CURVES, SET_TITLES, rows_of, set_title
from lab.analysis.statistics import SHARE, Interval
from lab.figures.base import axis_name, empty_figure, interval_bars
from lab.figures.palette import DASHES, METHOD_COLOURS, REFERENCE_COLOUR, SYMBOLS

SHOWN = (BASE, "sft", "dpo", "grpo", "grpo.longer", "ppo")
"""The arms that are drawn at first; the legend shows the others."""
_CURVE_TITLES = {"pass": "right answer", "worked": "every step written"}
_PANELS = [(name, curve) for curve in CURVES for name in SET_TITLES]
"""Sets of chains side by side, curves one below the other."""


def pass_at_k_figure(table: Mapping[str, Any], theme: str = "light") -> go.Figure:
    """Return four panels over k: on the left default chains, on the right longer ones; above the share of
    chains with a right answer among k completions, below the share with a right one that writes every
    step. Bars are 95 % intervals over seeds and chains.
    """
    axes: dict[str, Any] = {}
    for number in range(1, len(_PANELS) + 1):
        axes |= _axes(table, number)
    figure = empty_figure(
        theme,
        height=600,
        margin={"l": 54, "r": 12, "t": 90, "b": 50},
        legend={"orientation": "h", "y": 1.08, "yanchor": "bottom", "x": 0},
        annotations=[_title(table, number) for number in range(1, len(_PANELS) + 1)],
        **axes,
    )
    for number, (name, curve) in enumerate(_PANELS, 1):
        for order, row in enumerate(rows_of(table, name)):
            figure.add_scatter(
                xaxis=axis_name("x", number),
                yaxis=axis_name("y", number),
                showlegend=number == 1,
                **_curve(table, row, curve, order),
            )
    return figure


def _axes(table: Mapping[str, Any], number: int) -> dict[str, Any]:
    """Return the axes of a panel; those of the bottom row have the title of k."""
    left, upper = number % 2 == 1, number <= 2
    ks = table["plan"]["ks"]
    return {
        axis_name("xaxis", number): {
            "domain": [0, 0.47] if left else [0.53, 1],
            "anchor": axis_name("y", number),
            "type": "log",
            "tickvals": ks,
            "ticktext": [str(k) for k in ks],
            "title": {"text": "" if upper else "k, completions of a chain", "standoff": 6},
        },
        axis_name("yaxis", number): {
            "domain": [0.56, 1] if upper else [0, 0.44],
            "anchor": axis_name("x", number),
            "range": [-0.03, 1.03],
            "title": {"text": "pass@k, share of chains" if left else ""},
        },
    }


def _title(table: Mapping[str, Any], number: int) -> dict[str, Any]:
    """Return the annotation above a panel: its chains and its curve."""
    name, curve = _PANELS[number - 1]
    return {
        "text": f"<b>{set_title(table, name)}</b>, {_CURVE_TITLES[curve]}",
        "xref": f"{axis_name('x', number)} domain",
        "yref": f"{axis_name('y', number)} domain",
        "x": 0,
        "y": 1,
        "xanchor": "left",
        "yanchor": "bottom",
        "showarrow": False,
        "bgcolor": "rgba(0,0,0,0)",
    }


def _curve(
    table: Mapping[str, Any], row: Mapping[str, Any], curve: str, order: int
) -> dict[str, Any]:
    """Return the line of a policy; a method keeps its colour, and its arms differ in dash and symbol."""
    method, _, variant = row["arm"].partition(".")
    is_base = row["arm"] == BASE
    intervals = [Interval(*point) for point in zip(row[curve]["mean"], row[curve]["half"])]
    return {
        "x": table["plan"]["ks"],
        "y": row[curve]["mean"],
        "mode": "lines+markers",
        "name": row["title"],
        "legendgroup": row["arm"],
        "visible": True if row["arm"] in SHOWN else "legendonly",
        "line": {
            "color": REFERENCE_COLOUR if is_base else METHOD_COLOURS[method],
            "width": 2,
            "dash": "dash" if is_base else DASHES[2 if variant else 0],
        },
        "marker": {"symbol": SYMBOLS[order % len(SYMBOLS)], "size": 7},
        "error_y": interval_bars(intervals, SHARE) | {"thickness": 1, "width": 3},
        "customdata": [interval.text(2, SHARE) for interval in intervals],
        "hovertemplate": f"{row['title']}, k = %{{x}}: %{{customdata}}<extra></extra>",
    }


def pass_at_k_narrow_layout() -> dict[str, Any]:
    """Return the changes to the layout of `pass_at_k_figure` on a phone: the panels are stacked."""
    count = len(_PANELS)
    layout: dict[str, Any] = {
        "height": 290 * count,
        "legend": {"y": 1.03, "yanchor": "bottom"},
        "margin": {"t": 150},
    }
    for number in range(1, count + 1):
        low = 1 - number / count
        layout[axis_name("xaxis", number)] = {"domain": [0, 1]}
        layout[axis_name("yaxis", number)] = {"domain": [low + 0.2 / count, low + 0.9 / count]}
    return layout
