"""Figures of how far a policy leaves the data that it was taught with."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from lab.figures.palette import METHOD_COLOURS, METHOD_NAMES, THEMES

PANELS = {
    "logps": (("logps/chosen", "chosen", "solid", "circle"), ("logps/rejected", "rejected", "dash", "x")),
    "covered": (("right_covered", "right ones", "solid", "circle"), ("wrong_covered", "wrong ones", "dash", "x")),
}
AXES = {"logps": "log π of the fixed pairs, nats per completion", "covered": "own completions that stand in the data, share"}


def drift(rows: Sequence[Mapping[str, Any]], methods: Sequence[str], theme: str = "light") -> go.Figure:
    """Left the log-probability of the fixed pairs, right the share of the policy's own completions that stand in the data, over training.

    `rows` are those of the drift experiment's table, `methods` the ones to draw. Bars are 95 % intervals over seeds.
    """
    figure = go.Figure()
    for row in rows:
        if row["method"] not in methods:
            continue
        for place, lines in enumerate(PANELS.values(), start=1):
            axis = "" if place == 1 else str(place)
            for name, word, dash, symbol in lines:
                figure.add_scatter(x=row["step"], y=row[name], xaxis=f"x{axis}", yaxis=f"y{axis}", name=f"{METHOD_NAMES[row['method']]}, {word}",
                                   mode="lines+markers", line={"color": METHOD_COLOURS[row["method"]], "dash": dash, "width": 2},
                                   marker={"symbol": symbol, "size": 7}, error_y={"array": row[f"{name} ±"], "thickness": 1, "width": 2},
                                   legend=f"legend{axis}", hovertemplate="%{y:.2f}")
    axes = {"xaxis": {"domain": [0, 0.46], "anchor": "y", "title": {"text": "step (updates)"}},
            "xaxis2": {"domain": [0.55, 1], "anchor": "y2", "title": {"text": "step (updates)"}},
            "yaxis": {"anchor": "x", "title": {"text": AXES["logps"]}},
            "yaxis2": {"anchor": "x2", "title": {"text": AXES["covered"]}, "range": [-0.03, 1.03]}}
    above = {"orientation": "h", "y": 1.02, "yanchor": "bottom"}
    legends = {"legend": {"x": 0} | above, "legend2": {"x": 0.55} | above}
    return figure.update_layout(template={"layout": THEMES[theme]["layout"]}, height=430, margin={"l": 60, "r": 10, "t": 60, "b": 50}, hovermode="x", **axes,
                                **legends)
