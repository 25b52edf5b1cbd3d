"""A figure that stays mounted, and sliders that redraw it in the browser at every move.

Streamlit's slider tells Python of a move when it is released, and its chart remounts at every
change. Here Python draws the figure at every value that a slider can take and sends what differs;
the browser redraws from that, and reports the value when the slider comes to rest.
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
from lab.dashboard.components.js_component import element, plotly_address
from lab.figures.palette import THEMES

DIGITS = 6  # significant digits that are sent; a screen shows three

_element = element("slider_figure")


@dataclass(frozen=True)
class Slider:
    """A quantity that the reader moves. `name` is its name in the page's address, `values` all that
    it can take, in order.

    `presets` are marked under it as buttons; `play` adds a button that runs through the values, for
    time.
    """

    name: str
    label: str
    values: tuple[float, ...]
    start: float
    presets: tuple[float, ...] = ()
    play: bool = False

    def value(self, key: str) -> float:
        """Where it stands in the figure `key`: as moved in this session, else as the address says,
        else at its start.
        """
        moved = st.session_state.get(f"{key}.{self.name}")
        return nearest(
            self.values,
            _number(st.query_params.get(self.name), self.start) if moved is None else moved,
        )


def _number(text: str | None, otherwise: float) -> float:
    try:
        value = float(text)
    except (TypeError, ValueError):
        return otherwise
    return value if math.isfinite(value) else otherwise


def explore(
    draw: go.Figure | Callable[..., go.Figure],
    *,
    key: str,
    alt: str,
    sliders: Sequence[Slider] = (),
    says: Callable[..., str] | None = None,
    given: tuple = (),
    narrow: dict[str, Any] | None = None,
) -> dict[str, float]:
    """Show a figure with its sliders above it and a sentence under it; returns the sliders' values
    by name.

    `draw(*values, *given)` gives the figure and `says(*values, *given)` the sentence at values of
    the sliders; both are functions of a module and of their arguments alone, for what they give is
    kept. Traces may change in all but their number, the layout in anything. Each slider is drawn at
    all its values, the others standing where they are. `alt` says what is drawn to those who do not
    see it; `narrow` is what of the layout differs on a telephone. Without sliders `draw` may be the
    figure itself.
    """
    values = tuple(slider.value(key) for slider in sliders)
    if isinstance(draw, go.Figure):
        drawing, words = _text(figure_of(draw), []), ""
    else:
        names = tuple(f"{f.__module__}.{f.__qualname__}" for f in (draw, says) if f)
        moves = [
            _frames(
                names, slider, values[:place], values[place + 1 :], given, _draw=draw, _says=says
            )
            for place, slider in enumerate(sliders)
        ]
        drawing, words = (
            _text(figure_of(draw(*values, *given)), moves),
            says(*values, *given) if says else "",
        )
    sent = [
        {
            "name": s.name,
            "label": s.label,
            "values": s.values,
            "texts": [number_text(v) for v in s.values],
            "at": s.values.index(v),
            "play": s.play,
            "presets": [s.values.index(p) for p in s.presets],
        }
        for s, v in zip(sliders, values)
    ]
    _element(
        key=key,
        data={
            "key": key,
            "alt": alt,
            "says": words,
            "drawing": drawing,
            "sliders": sent,
            "narrow": narrow or {},
            "themes": {name: theme["layout"] for name, theme in THEMES.items()},
            "plotly": plotly_address(),
        },
        on_values_change=lambda: _moved(key, sliders),
        on_dark_change=lambda: None,
    )
    found = {s.name: v for s, v in zip(sliders, values)}
    for name, value in found.items():
        if st.query_params.get(name) != number_text(value):
            st.query_params[name] = number_text(value)
    return found


def _moved(key: str, sliders: Sequence[Slider]) -> None:
    """Callback: keep what the browser reports, if the sliders can stand there."""
    reported = st.session_state[key].get("values")
    for slider in sliders:
        value = reported.get(slider.name) if isinstance(reported, dict) else None
        if value in slider.values:
            st.session_state[f"{key}.{slider.name}"] = value


@st.cache_data(show_spinner="Drawing …", max_entries=100)
def _frames(
    names: tuple[str, ...],
    slider: Slider,
    before: tuple,
    after: tuple,
    given: tuple,
    _draw: Callable[..., go.Figure],
    _says: Callable[..., str] | None,
) -> str:
    """What differs at each value of a slider, as JSON text; `names` stand for the functions,
    `before` and `after` are the values of the other sliders.
    """
    at = [(*before, value, *after, *given) for value in slider.values]
    return json.dumps(
        {
            "frames": differences([figure_of(_draw(*arguments)) for arguments in at]),
            "says": [_says(*arguments) if _says else "" for arguments in at],
        },
        ensure_ascii=False,
        separators=(",", ":"),
    )


def figure_of(figure: go.Figure) -> dict[str, Any]:
    """The figure as plain JSON without its theme, which the browser adds. Numbers are rounded,
    those of arrays to 32 bits; of a list, those that are not finite become gaps.
    """
    plain = figure.to_plotly_json()
    plain["layout"].pop("template", None)
    return _rounded(plain)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        if value.get("dtype") == "f8":  # plotly's way to write an array
            numbers = np.frombuffer(base64.b64decode(value["bdata"]), "f8").astype("f4")
            return value | {"dtype": "f4", "bdata": base64.b64encode(numbers.tobytes()).decode()}
        return {name: _rounded(inner) for name, inner in value.items()}
    return [_rounded(inner) for inner in value] if isinstance(value, list | tuple) else value


def differences(figures: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each figure the attributes, by trace and of the layout, that are not the same in all of
    them.
    """
    if len({len(figure["data"]) for figure in figures}) > 1:
        raise ValueError(
            "A slider may change what a trace is, but not how many there are: draw the others with"
            " no points."
        )
    traces = {
        index: _differing([figure["data"][index] for figure in figures])
        for index in range(len(figures[0]["data"]))
    }
    layouts = _differing([figure["layout"] for figure in figures])
    return [
        {
            "traces": {index: changed[at] for index, changed in traces.items() if changed[at]},
            "layout": layouts[at],
        }
        for at in range(len(figures))
    ]


def _differing(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    names = [
        name
        for name in dict.fromkeys(name for row in rows for name in row)
        if any(row.get(name) != rows[0].get(name) for row in rows)
    ]
    return [{name: row.get(name) for name in names} for row in rows]


def _text(figure: dict[str, Any], moves: Sequence[str]) -> str:
    return f'{{"figure":{json.dumps(figure, ensure_ascii=False, separators=(",", ":"))},"sliders":[{",".join(moves)}]}}'
