"""How figures of the lab begin: empty in its look, or whole from plain traces."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from lab.figures.palette import THEMES


def empty_figure(theme: str, **layout: Any) -> go.Figure:
    """A figure of that theme with its layout and no traces yet. Laying it out first takes a
    twentieth of the time of `update_layout` at the end.
    """
    return go.Figure(layout={"template": {"layout": THEMES[theme]["layout"]}} | layout)


def figure_from_traces(data: Sequence[Mapping[str, Any]], layout: Mapping[str, Any]) -> go.Figure:
    """A figure of these traces and this layout, which plotly does not check property by property:
    that takes five sixths of the time of a figure that is drawn at every value of a slider. Tests
    let plotly check each of them.
    """
    return go.Figure(data, layout, _validate=False)


def axis_name(name: str, place: int) -> str:
    """Plotly's name for the axis of a panel; the first carries no number."""
    return name if place == 1 else f"{name}{place}"
