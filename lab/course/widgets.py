"""Figures and sliders in a notebook, and the predictions that are asked there."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ipywidgets
import plotly.graph_objects as go
from IPython.display import display

from lab.course.predictions import WIDGET_MIME, outcome, predict

__all__ = [
    "PLOTLY_MIME",
    "WIDGET_MIME",
    "bundle",
    "explore",
    "on_paper",
    "outcome",
    "predict",
    "show",
    "with_sliders",
]

PLOTLY_MIME = "application/vnd.plotly.v1+json"
_KNOB_TITLES = {
    "beta": "β",
    "group_size": "G",
    "lam": "λ",
    "epsilon": "ε",
    "pass_rate": "p",
    "learning_rate": "learning rate",
}


def on_paper(figure: go.Figure) -> go.Figure:
    """Return the figure on white, since the theme of the notebook is unknown, and as wide as it."""
    return go.Figure(figure).update_layout(paper_bgcolor="white", plot_bgcolor="white", width=None)


def bundle(figure: go.Figure, alt: str) -> dict[str, Any]:
    """Return what is displayed: the figure, and its description for viewers that cannot draw it.
    `make notebooks` adds an image.
    """
    plotly_json = json.loads(on_paper(figure).to_json())
    return {
        PLOTLY_MIME: plotly_json | {"config": {"displayModeBar": False, "responsive": True}},
        "text/plain": alt,
    }


def show(figure: go.Figure, alt: str) -> None:
    """Display a figure; `alt` describes it in words."""
    display(bundle(figure, alt), raw=True)


def explore(draw: Callable[..., go.Figure], alt: str, **knobs: Sequence[Any]) -> None:
    """Display a figure with a slider for each knob: `explore(loss_curve, "…", beta=(0.05, 0.1, 0.5))`
    redraws `draw(beta=…)` while the slider is dragged.

    Each slider starts at its middle value. Without a kernel the figure stays as it was first drawn.
    """
    first = draw(**{name: values[len(values) // 2] for name, values in knobs.items()})
    display(
        bundle(first, alt)
        | {WIDGET_MIME: with_sliders(draw, knobs)._repr_mimebundle_()[WIDGET_MIME]},
        raw=True,
    )


def with_sliders(
    draw: Callable[..., go.Figure], knobs: Mapping[str, Sequence[Any]]
) -> ipywidgets.VBox:
    """Return one slider for each knob above the figure that they redraw. `draw` must return equally
    many lines for all values.
    """
    sliders = {
        name: ipywidgets.SelectionSlider(
            options=[(f"{v:g}" if isinstance(v, float) else str(v), v) for v in values],
            value=values[len(values) // 2],
            description=_KNOB_TITLES.get(name, name),
            continuous_update=True,
            style={"description_width": "initial"},
            layout={"width": "420px"},
        )
        for name, values in knobs.items()
    }

    def current_figure() -> go.Figure:
        return on_paper(draw(**{name: slider.value for name, slider in sliders.items()}))

    widget = go.FigureWidget(current_figure())

    def redraw(_: Any) -> None:
        new = current_figure()
        with widget.batch_update():
            for old, trace in zip(widget.data, new.data, strict=True):
                old.update(trace.to_plotly_json(), overwrite=True)
            widget.layout.update(new.layout.to_plotly_json(), overwrite=True)

    for slider in sliders.values():
        slider.observe(redraw, "value")
    return ipywidgets.VBox([*sliders.values(), widget])
