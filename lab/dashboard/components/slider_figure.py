"""A figure that stays mounted, and sliders that redraw it in the browser at every move.

Streamlit's slider reports a move to Python only when it is released, and Streamlit's chart remounts
at every change. Here Python draws the figure at every value of a slider and sends the differences;
the browser redraws from them, and reports the value when the slider comes to rest.
"""

import base64
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
import streamlit as st

from lab.config.number_text import number_text
from lab.dashboard.components.config_widgets import nearest
from lab.dashboard.components.js_component import js_component, plotly_url
from lab.figures.palette import THEMES

FRAME_DIGITS = 6  # of the numbers that are sent; a screen shows three

_slider_figure_element = js_component("slider_figure")


@dataclass(frozen=True)
class Slider:
    """A quantity that the reader changes.

    name: its name in the URL
    values: all its values, in order
    presets: values with a button under the slider
    play: whether a button runs through all values, for a slider over time
    """

    name: str
    label: str
    values: tuple[float, ...]
    start: float
    presets: tuple[float, ...] = ()
    play: bool = False

    def value(self, key: str) -> float:
        """The slider's value in the figure `key`: the value that this session moved it to, else the
        value in the URL, else `start`.
        """
        value = st.session_state.get(f"{key}.{self.name}")
        if value is None:
            value = _finite_number(st.query_params.get(self.name, ""), self.start)
        return nearest(self.values, value)


def _finite_number(text: str, default: float) -> float:
    try:
        value = float(text)
    except ValueError:
        return default
    return value if math.isfinite(value) else default


def slider_figure(
    draw: go.Figure | Callable[..., go.Figure],
    *,
    key: str,
    alt: str,
    sliders: Sequence[Slider] = (),
    sentence: Callable[..., str] | None = None,
    arguments: tuple[Any, ...] = (),
    narrow: dict[str, Any] | None = None,
) -> dict[str, float]:
    """Show a figure with sliders above it and a sentence under it; returns the sliders' values by
    name, which are also in the URL.

    draw: `draw(*values, *arguments)` returns the figure at values of the sliders. It may be the
        figure itself if there are no sliders. Between values, traces and layout may change, but
        not the number of traces.
    sentence: `sentence(*values, *arguments)` returns the sentence. Both functions must be functions
        of a module and depend on their arguments alone, because their results are cached.
    alt: describes the figure for screen readers
    narrow: the part of the layout that differs on a telephone

    Each slider is drawn at all its values, with the other sliders at their present values.
    """
    values = tuple(slider.value(key) for slider in sliders)
    _slider_figure_element(
        key=key,
        data=slider_figure_data(
            draw,
            values,
            key=key,
            alt=alt,
            sliders=sliders,
            sentence=sentence,
            arguments=arguments,
            narrow=narrow,
        ),
        on_values_change=lambda: _keep_slider_values(key, sliders),
        on_dark_change=lambda: None,
    )
    for slider, value in zip(sliders, values):
        if st.query_params.get(slider.name) != number_text(value):
            st.query_params[slider.name] = number_text(value)
    return {slider.name: value for slider, value in zip(sliders, values)}


def slider_figure_data(
    draw: go.Figure | Callable[..., go.Figure],
    values: tuple[float, ...],
    *,
    key: str,
    alt: str,
    sliders: Sequence[Slider] = (),
    sentence: Callable[..., str] | None = None,
    arguments: tuple[Any, ...] = (),
    narrow: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The figure of `slider_figure` as slider_figure.js takes it, with its sliders at `values`."""
    if isinstance(draw, go.Figure):
        drawing, text = _drawing_json(figure_json(draw), []), ""
    else:
        frames = [
            _slider_frames_json(
                tuple(f"{f.__module__}.{f.__qualname__}" for f in (draw, sentence) if f),
                slider,
                values[:at],
                values[at + 1 :],
                arguments,
                _draw=draw,
                _sentence=sentence,
            )
            for at, slider in enumerate(sliders)
        ]
        drawing = _drawing_json(figure_json(draw(*values, *arguments)), frames)
        text = sentence(*values, *arguments) if sentence else ""
    return {
        "key": key,
        "alt": alt,
        "says": text,
        "drawing": drawing,
        "sliders": [slider_data(s, v) for s, v in zip(sliders, values)],
        "narrow": narrow or {},
        "themes": {name: theme["layout"] for name, theme in THEMES.items()},
        "plotly": plotly_url(),
    }


def slider_data(slider: Slider, value: float) -> dict[str, Any]:
    """The slider as slider_figure.js takes it, standing at `value`, which is one of its values."""
    return {
        "name": slider.name,
        "label": slider.label,
        "values": slider.values,
        "texts": [number_text(v) for v in slider.values],
        "at": slider.values.index(value),
        "play": slider.play,
        "presets": [slider.values.index(preset) for preset in slider.presets],
    }


def _keep_slider_values(key: str, sliders: Sequence[Slider]) -> None:
    """Callback: store the values that the browser reports, if the sliders have these values."""
    reported = st.session_state[key].get("values")
    for slider in sliders:
        value = reported.get(slider.name) if isinstance(reported, dict) else None
        if value in slider.values:
            st.session_state[f"{key}.{slider.name}"] = value


@st.cache_data(show_spinner="Drawing …", max_entries=100)
def _slider_frames_json(
    names: tuple[str, ...],
    slider: Slider,
    before: tuple[float, ...],
    after: tuple[float, ...],
    arguments: tuple[Any, ...],
    _draw: Callable[..., go.Figure],
    _sentence: Callable[..., str] | None,
) -> str:
    """The differences between the figures at all values of a slider, and their sentences, as JSON
    text. `before` and `after` are the values of the sliders before and after this one. `names`
    stand for the functions in the cache's key.
    """
    calls = [(*before, value, *after, *arguments) for value in slider.values]
    return json.dumps(
        {
            "frames": frame_differences([figure_json(_draw(*call)) for call in calls]),
            "says": [_sentence(*call) if _sentence else "" for call in calls],
        },
        ensure_ascii=False,
        separators=(",", ":"),
    )


def figure_json(figure: go.Figure) -> dict[str, Any]:
    """The figure as a dict for JSON, without its theme, which the browser adds. Numbers are
    rounded, arrays to 32 bits. Numbers of a list that are not finite become None, a gap in the
    line.
    """
    attributes = figure.to_plotly_json()
    attributes["layout"].pop("template", None)
    return _rounded(attributes)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{FRAME_DIGITS}g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        if value.get("dtype") == "f8":  # an array in plotly's JSON
            numbers = np.frombuffer(base64.b64decode(value["bdata"]), "f8").astype("f4")
            return value | {"dtype": "f4", "bdata": base64.b64encode(numbers.tobytes()).decode()}
        return {name: _rounded(item) for name, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list | tuple) else value


def frame_differences(figures: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each figure its attributes that differ between the figures: by trace, and of the layout.
    Raises `ValueError` if the figures have different numbers of traces.
    """
    if len({len(figure["data"]) for figure in figures}) > 1:
        raise ValueError(
            "The figures of a slider have different numbers of traces, and they must have equally"
            " many. Draw a trace without points instead of leaving it out."
        )
    traces = {
        index: _differing_attributes([figure["data"][index] for figure in figures])
        for index in range(len(figures[0]["data"]))
    }
    layouts = _differing_attributes([figure["layout"] for figure in figures])
    return [
        {
            "traces": {
                index: attributes[at] for index, attributes in traces.items() if attributes[at]
            },
            "layout": layouts[at],
        }
        for at in range(len(figures))
    ]


def _differing_attributes(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    names = [
        name
        for name in dict.fromkeys(name for row in rows for name in row)
        if any(row.get(name) != rows[0].get(name) for row in rows)
    ]
    return [{name: row.get(name) for name in names} for row in rows]


def _drawing_json(figure: dict[str, Any], slider_frames: Sequence[str]) -> str:
    figure_text = json.dumps(figure, ensure_ascii=False, separators=(",", ":"))
    return f'{{"figure":{figure_text},"sliders":[{",".join(slider_frames)}]}}'
