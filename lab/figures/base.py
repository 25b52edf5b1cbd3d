"""How every figure starts: empty with a theme, or complete from plain traces."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from lab.analysis.statistics import Interval, Range
from lab.figures.palette import THEMES


def empty_figure(theme: str, **layout: Any) -> go.Figure:
    """Return a figure with a theme and a layout, and no traces. To set the layout first takes a
    twentieth of the time of `update_layout` at the end.
    """
    return go.Figure(layout={"template": {"layout": THEMES[theme]["layout"]}} | layout)


def figure_from_traces(data: Sequence[Mapping[str, Any]], layout: Mapping[str, Any]) -> go.Figure:
    """Return a figure of these traces and this layout, without plotly's validation: it would take five
    sixths of the time of a figure that is redrawn while a slider moves. The tests validate each of
    them.
    """
    return go.Figure(data, layout, _validate=False)


def interval_bars(intervals: Sequence[Interval], possible: Range) -> dict[str, Any]:
    """Return plotly's error bars of intervals, cut at the possible range of their measure."""
    bars = [interval.bar(possible) for interval in intervals]
    return {
        "symmetric": False,
        "array": [above for _, above in bars],
        "arrayminus": [below for below, _ in bars],
    }


def axis_name(name: str, number: int) -> str:
    """Return plotly's name ("x", "x2", …) for the axis of panel `number`, from 1."""
    return name if number == 1 else f"{name}{number}"


def log_ticks() -> dict[str, Any]:
    """Return the ticks of a logarithmic axis: 1, 2 and 5 of each decade, each with its whole number.
    plotly alone writes "2" where it means 0.02.
    """
    values = [digit * 10.0**exponent for exponent in range(-4, 5) for digit in (1, 2, 5)]
    return {"tickvals": values, "ticktext": [f"{value:g}" for value in values]}
