"""Figures, sliders and predictions in a notebook."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ipywidgets
import plotly.graph_objects as go
from IPython.display import display

from lab.course.progress import record_progress

PLOTLY_MIME, WIDGET_MIME = (
    "application/vnd.plotly.v1+json",
    "application/vnd.jupyter.widget-view+json",
)
_KNOB_TITLES = {
    "beta": "β",
    "group_size": "G",
    "lam": "λ",
    "epsilon": "ε",
    "pass_rate": "p",
    "learning_rate": "learning rate",
}


def on_paper(figure: go.Figure) -> go.Figure:
    """The figure on white, since a notebook's own theme is not known here; as wide as the notebook."""
    return go.Figure(figure).update_layout(paper_bgcolor="white", plot_bgcolor="white", width=None)


def bundle(figure: go.Figure, alt: str) -> dict[str, Any]:
    """What is displayed: the figure for viewers that draw it, its description for those that do
    not. `make notebooks` adds a picture.
    """
    drawn = json.loads(on_paper(figure).to_json())
    return {
        PLOTLY_MIME: drawn | {"config": {"displayModeBar": False, "responsive": True}},
        "text/plain": alt,
    }


def show(figure: go.Figure, alt: str) -> None:
    """Display a figure; `alt` says in words what it shows."""
    display(bundle(figure, alt), raw=True)


def explore(draw: Callable[..., go.Figure], alt: str, **knobs: Sequence[Any]) -> None:
    """A figure with a slider for each knob: `explore(loss_curve, "…", beta=(0.05, 0.1, 0.5))`
    redraws `draw(beta=…)` while the slider is dragged.

    It starts at the middle value of each. Without a kernel behind it the figure stands as it was
    drawn first.
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
    """One slider for each knob above the figure that they redraw; `draw` gives the same number of
    lines for all values.
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

    def drawn() -> go.Figure:
        return on_paper(draw(**{name: slider.value for name, slider in sliders.items()}))

    widget = go.FigureWidget(drawn())

    def redraw(_: Any) -> None:
        new = drawn()
        with widget.batch_update():
            for old, trace in zip(widget.data, new.data, strict=True):
                old.update(trace.to_plotly_json(), overwrite=True)
            widget.layout.update(new.layout.to_plotly_json(), overwrite=True)

    for slider in sliders.values():
        slider.observe(redraw, "value")
    return ipywidgets.VBox([*sliders.values(), widget])


@dataclass
class Prediction:
    """A question that was asked before the answer was known; `value` is the learner's pick, None
    until there is one.
    """

    question: str
    options: tuple[str, ...]
    value: str | None = None


def predict(question: str, options: Sequence[str]) -> Prediction:
    """Ask before a run: buttons, one of which the learner picks. Give what this returns to
    `outcome` after the run.
    """
    asked = Prediction(question, tuple(options))
    buttons = ipywidgets.ToggleButtons(
        options=list(options), value=None, style={"button_width": "auto"}
    )

    def pick(change: dict[str, Any]) -> None:
        asked.value = change["new"]
        record_progress({"prediction": question, "value": asked.value})

    buttons.observe(pick, "value")
    text = f"{question}  [{' | '.join(options)}]"
    box = ipywidgets.VBox([ipywidgets.HTML(f"<b>{question}</b>"), buttons])
    display({WIDGET_MIME: box._repr_mimebundle_()[WIDGET_MIME], "text/plain": text}, raw=True)
    return asked


def outcome(asked: Prediction, answer: str, text: str) -> None:
    """What came out, beside what was predicted; `answer` is one of the options, computed from the
    run, `text` says by which numbers.
    """
    said = f"You said: {asked.value}." if asked.value else "You made no prediction."
    verdict = (
        ""
        if asked.value is None
        else " Right."
        if asked.value == answer
        else " It came out otherwise."
    )
    print(f"{asked.question}\n{said}{verdict} Measured: {answer}. {text}")
    if asked.value is not None:
        record_progress({"outcome": asked.question, "value": asked.value, "answer": answer})
