"""The plotly layout of training curves: a grid with one panel per metric."""

import math
from collections.abc import Sequence
from typing import Any

from lab.figures.base import axis_name
from lab.figures.palette import THEMES
from lab.runs.metrics import METRICS

METRIC_SYMBOLS: dict[str, str] = {
    "loss": "L",
    "grad_norm": "‖∇L‖",
    "learning_rate": "η",
    "rewards/chosen": "r_w",
    "rewards/rejected": "r_l",
    "rewards/margins": "r_w − r_l",
    "rewards/accuracies": "r_w > r_l",
    "logps/chosen": "log π(y_w|x)",
    "logps/rejected": "log π(y_l|x)",
    "kto/z": "z",
    "entropy": "H(π)",
    "gold/kl": "KL(π‖π_ref)",
    "gold/mean_length": "|y|",
    "reward": "mean r",
    "reward_std": "std r",
    "frac_reward_zero_std": "std r = 0",
    "ratio": "π/π_old",
}


X_AXIS_TITLES: dict[str, str] = {
    "step": "step (updates)",
    "tokens": "completion tokens trained on",
    "seconds": "seconds of training",
}
"""Titles of the x axis, by the quantity on it."""


_SHARES = {name for name, metric in METRICS.items() if metric.unit == "share"} - {
    "value/explained_variance"
}  # Explained variance can be negative.


# All in pixels.
ROW_HEIGHT, TITLE_HEIGHT, LEGEND_HEIGHT, COLUMN_GAP = 150, 54, 26, 56
MARGIN_TOP, MARGIN_BOTTOM, MARGIN_LEFT, MARGIN_RIGHT = 30, 40, 46, 12
FIGURE_WIDTHS = {1: 360, 2: 760, 3: 1180, 4: 1600}
"""By number of columns, the width for which margins and gaps are made."""

_FROM_ZERO = ("grad_norm", "gold/kl", "gold/mean_length", "entropy", "reward_std")


def panel_layout(
    panels: Sequence[str], columns: int, end: float, theme: str = "light", along: str = "step"
) -> dict[str, Any]:
    """Return the plotly layout of `panels` in a grid of `columns`. The x axes show the quantity
    `along` (a key of `X_AXIS_TITLES`) from 0 to `end` and zoom together.
    """
    columns = min(columns, max(1, len(panels)))
    rows = math.ceil(len(panels) / columns)
    pitch = ROW_HEIGHT + TITLE_HEIGHT
    inner_width = FIGURE_WIDTHS[columns] - MARGIN_LEFT - MARGIN_RIGHT
    inner_height = rows * pitch - TITLE_HEIGHT
    panel_width = (inner_width - COLUMN_GAP * (columns - 1)) / columns
    layout: dict[str, Any] = {
        "template": {"layout": THEMES[theme]["layout"]},
        "height": inner_height + MARGIN_TOP + MARGIN_BOTTOM,
        "showlegend": False,
        "uirevision": "keep",
        "hovermode": "x",
        "dragmode": "zoom",
        "margin": {"l": MARGIN_LEFT, "r": MARGIN_RIGHT, "t": MARGIN_TOP, "b": MARGIN_BOTTOM},
        "annotations": [],
    }
    for number, name in enumerate(panels, start=1):
        row, column = divmod(number - 1, columns)
        left = column * (panel_width + COLUMN_GAP) / inner_width
        top = 1 - row * pitch / inner_height
        title = X_AXIS_TITLES[along] if number + columns > len(panels) else ""
        layout[axis_name("xaxis", number)] = {
            "domain": [left, min(1.0, left + panel_width / inner_width)],
            "anchor": axis_name("y", number),
            **_x_axis(end, along, title),
        } | ({"matches": "x"} if number > 1 else {})
        layout[axis_name("yaxis", number)] = {
            "domain": [max(0.0, top - ROW_HEIGHT / inner_height), min(1.0, top)],
            "anchor": axis_name("x", number),
            **_y_axis(name),
        }
        layout["annotations"].append(_title(name, left, top))
    return layout


def _x_axis(end: float, along: str, title: str) -> dict[str, Any]:
    return {
        "range": [-0.02 * end, end * 1.02],
        "showgrid": False,
        "ticks": "outside",
        "ticklen": 3,
        "showline": True,
        "nticks": 7,
        "hoverformat": ".4~g" if along == "seconds" else "d",
        "zeroline": False,
        "title": {"text": title, "standoff": 6},
    }


def _y_axis(name: str) -> dict[str, Any]:
    axis: dict[str, Any] = {
        "nticks": 5,
        "zeroline": True,
        "rangemode": "tozero" if name in _FROM_ZERO else "normal",
    }
    if name in _SHARES:
        axis |= {
            "range": [-0.03, 1.03],
            "tickvals": [0, 0.25, 0.5, 0.75, 1],
            "ticktext": ["0", "", "0.5", "", "1"],
        }
    return axis


def _title(name: str, left: float, top: float) -> dict[str, Any]:
    """Return the annotation above a panel: the metric, its symbol and its unit."""
    metric = METRICS[name]
    unit = f"{METRIC_SYMBOLS[name]}, {metric.unit}" if name in METRIC_SYMBOLS else metric.unit
    return {
        "text": f'<b>{metric.label}</b>  <span style="font-size:12px">{unit}</span>',
        "showarrow": False,
        "xref": "paper",
        "yref": "paper",
        "x": left,
        "y": top,
        "xanchor": "left",
        "yanchor": "bottom",
        "xshift": -6,
        "yshift": 3,
        "font": {"size": 13},
        "bgcolor": "rgba(0,0,0,0)",
    }
