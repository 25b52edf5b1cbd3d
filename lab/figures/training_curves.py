"""Training curves of several runs: one panel per metric, every event a labelled line."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from lab.figures.base import axis_name
from lab.figures.curve_points import decimate
from lab.figures.events import event_marks
from lab.figures.panel_layout import LEGEND_HEIGHT, MARGIN_BOTTOM, MARGIN_TOP, panel_layout
from lab.figures.run_curves import TRAINING_METRIC, RunCurves, default_panels, x_axis_end


def raw_line_style(style: Mapping[str, Any]) -> dict[str, Any]:
    """Return the style of the raw values behind a smoothed line."""
    return {
        **style,
        "opacity": 0.5 * style.get("opacity", 0.6),
        "line": style["line"] | {"width": 1, "dash": "solid"},
        "hoverinfo": "skip",
        "hovertemplate": None,
    }


def smoothed_line_style(style: Mapping[str, Any]) -> dict[str, Any]:
    """Return the style of a smoothed line: without the points, which belong to the raw values."""
    return {**style, "mode": "lines"}


def trace_styles(run: RunCurves, panels: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
    """Return (metric, plotly trace without its points) for every line that `run` draws on `panels`."""
    colour, dash, symbol = run.style["colour"], run.style["dash"], run.style["symbol"]
    styles: list[tuple[str, dict[str, Any]]] = []
    for number, panel in enumerate(panels, start=1):
        base = {
            "type": "scatter",
            "xaxis": axis_name("x", number),
            "yaxis": axis_name("y", number),
            "name": run.label,
            "showlegend": False,
            "legendgroup": run.name,
            "meta": run.name,
        }
        training_metric = TRAINING_METRIC.get(panel)
        if training_metric is not None and training_metric in run.columns:
            styles.append(
                (
                    training_metric,
                    base
                    | {
                        "mode": "lines",
                        "line": {"color": colour, "dash": dash, "width": 1},
                        "opacity": 0.55,
                        "name": f"{run.label}, training batch",
                        "hovertemplate": "%{y:.4~g}",
                    },
                )
            )
        if panel in run.columns:
            held_out = panel.startswith(("gold/", "eval/"))
            marker = (
                {"marker": {"color": colour, "symbol": symbol, "size": 6, "maxdisplayed": 30}}
                if held_out
                else {}
            )
            styles.append(
                (
                    panel,
                    base
                    | marker
                    | {
                        "mode": "lines+markers" if held_out else "lines",
                        "hovertemplate": "%{y:.4~g}",
                        "line": {"color": colour, "dash": dash, "width": 2},
                    },
                )
            )
    return styles


def traces(run: RunCurves, panels: Sequence[str], limit: int = 400) -> list[dict[str, Any]]:
    """Return the plotly traces of `run` on `panels`, each of at most `limit` points."""
    return [
        style | dict(zip("xy", decimate(*run.columns[metric], limit)))
        for metric, style in trace_styles(run, panels)
    ]


def training_curves(
    runs: Sequence[RunCurves],
    panels: Sequence[str] | None = None,
    *,
    columns: int = 3,
    theme: str = "light",
) -> go.Figure:
    """Return the training curves of up to eight runs: the colour shows the method, dash and symbol
    show the run, points are held-out evaluations.

    `panels` are metric names (default: `default_panels`); `columns` 1 to 4. In a notebook the
    legend is plotly's own.
    """
    panels = list(panels) if panels is not None else default_panels(runs)
    data = [trace for run in runs for trace in traces(run, panels)]
    named: set[str] = set()
    for trace in data:
        trace["showlegend"] = trace["meta"] not in named and "training batch" not in trace["name"]
        if trace["showlegend"]:
            named.add(trace["meta"])
    shapes, labels = event_marks(runs, panels)
    spec = panel_layout(panels, columns, x_axis_end(runs), theme)
    spec |= {
        "shapes": shapes,
        "annotations": spec["annotations"] + labels,
        "showlegend": len(runs) > 1,
        "legend": {
            "orientation": "h",
            "yanchor": "bottom",
            "y": 1 + MARGIN_TOP / (spec["height"] - MARGIN_TOP - MARGIN_BOTTOM),
            "x": 0,
        },
    }
    if len(runs) > 1:  # The legend stands above the titles of the first row.
        spec |= {
            "height": spec["height"] + LEGEND_HEIGHT,
            "margin": spec["margin"] | {"t": MARGIN_TOP + LEGEND_HEIGHT},
        }
    return go.Figure({"data": data, "layout": spec})
