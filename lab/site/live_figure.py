"""A slider figure of the dashboard as a file that a static site serves.

The dashboard's server draws the figure again after every drag. A static site has no server, so all
figures are drawn when the site is built, one for each combination of the sliders' values. Most
parts of a figure depend on few sliders. A part is therefore stored once for each combination of
the sliders that it depends on. `live_figure.js` puts the parts together and hands them to
`slider_figure.js`, the script of the dashboard.

A page of the site shows a figure where it says `<div class="lab-live" data-figure="NAME"></div>`,
on a line of its own; the functions of `lab.site.explorers` give the names.
"""

import itertools
import json
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go

from lab.dashboard.components.js_component import COMPONENTS_FOLDER, PLOTLY_FILE_NAME
from lab.dashboard.components.slider_figure import Slider, figure_json, slider_data
from lab.figures.palette import THEMES

MAX_COMBINATIONS = 2000  # of the sliders' values; drawing one takes about 10 ms


@dataclass(frozen=True)
class LiveFigure:
    """A figure of the site.

    name: its name in a page, and of its file
    title: its heading
    source: where its numbers come from, as Markdown
    draw, sentence, sliders, alt, arguments, narrow: as in
        `lab.dashboard.components.slider_figure.slider_figure`
    """

    name: str
    title: str
    source: str
    draw: Callable[..., go.Figure]
    sentence: Callable[..., str]
    sliders: tuple[Slider, ...]
    alt: str
    arguments: tuple[Any, ...] = ()
    narrow: dict[str, Any] | None = None


def live_figure_tables(live: LiveFigure) -> dict[str, Any]:
    """The figure at all values of its sliders, for `live_figure.js`.

    data: what does not change, as slider_figure.js takes it
    figure: the figure at the sliders' first places
    sizes: the number of values of each slider
    attributes: tables of `dependent_values`, each with the number of its `trace` (None stands for
        the layout) and the `name` of the attribute
    phrases: tables of `dependent_values`; their values, joined by spaces, are the sentence

    Raises `ValueError` if the sliders have more than `MAX_COMBINATIONS` combinations, or if the
    figures have different numbers of traces.
    """
    calls = list(itertools.product(*(slider.values for slider in live.sliders)))
    if len(calls) > MAX_COMBINATIONS:
        raise ValueError(
            f"The sliders of {live.name} have {len(calls):,} combinations of values, and at most"
            f" {MAX_COMBINATIONS:,} are drawn. Give the sliders fewer values."
        )
    figures = [figure_json(live.draw(*call, *live.arguments)) for call in calls]
    if len({len(figure["data"]) for figure in figures}) > 1:
        raise ValueError(f"The figures of {live.name} have different numbers of traces.")
    sizes = [len(slider.values) for slider in live.sliders]
    return {
        "data": {
            "key": live.name,
            "alt": live.alt,
            "sliders": [slider_data(slider, slider.start) for slider in live.sliders],
            "narrow": live.narrow or {},
            "themes": {name: theme["layout"] for name, theme in THEMES.items()},
        },
        "figure": figures[0],
        "sizes": sizes,
        "attributes": _attribute_tables(figures, sizes),
        "phrases": _phrase_tables([live.sentence(*call, *live.arguments) for call in calls], sizes),
    }


def dependent_values(values: Sequence[Any], sizes: Sequence[int]) -> dict[str, Any]:
    """A table of values that depend on several sliders, without the sliders that change nothing.

    values: a value for each combination of the sliders' places, the last slider's changing fastest
    sizes: the number of places of each slider

    Returns `axes`, the indices of the sliders on which the values depend; `values`, each value
    once; and `at`, the index of the value for each combination of the places of these sliders.
    """
    texts = [json.dumps(value, sort_keys=True) for value in values]
    axes, kept = _table(texts, sizes)
    distinct = list(dict.fromkeys(kept))
    index = {text: at for at, text in enumerate(distinct)}
    return {
        "axes": axes,
        "at": [index[text] for text in kept],
        "values": [json.loads(text) for text in distinct],
    }


def _table(values: Sequence[Hashable], sizes: Sequence[int]) -> tuple[list[int], list[Any]]:
    """The axes along which the values of a full table change, and the table over these axes."""
    numbers = {value: at for at, value in enumerate(dict.fromkeys(values))}
    table = np.array([numbers[value] for value in values]).reshape(sizes)
    axes = []
    for axis in range(len(sizes)):
        first = table.take([0], axis)
        if (table == first).all():
            table = first
        else:
            axes.append(axis)
    by_number = list(numbers)
    return axes, [by_number[number] for number in table.ravel()]


def _attribute_tables(
    figures: Sequence[dict[str, Any]], sizes: Sequence[int]
) -> list[dict[str, Any]]:
    """A table for each attribute of a trace or of the layout that is not the same in all figures."""
    tables = []
    for trace in (*range(len(figures[0]["data"])), None):
        parts = [figure["layout"] if trace is None else figure["data"][trace] for figure in figures]
        for name in dict.fromkeys(name for part in parts for name in part):
            table = dependent_values([part.get(name) for part in parts], sizes)
            if table["axes"]:
                tables.append({"trace": trace, "name": name} | table)
    return tables


def _phrase_tables(sentences: Sequence[str], sizes: Sequence[int]) -> list[dict[str, Any]]:
    """Tables of the sentences' phrases: words in a row that depend on the same sliders."""
    words = list(itertools.zip_longest(*(sentence.split(" ") for sentence in sentences)))
    axes_of_words = [_table(at_place, sizes)[0] for at_place in words]
    tables = []
    for _, places in itertools.groupby(range(len(words)), key=axes_of_words.__getitem__):
        phrase_words = [words[place] for place in places]
        phrases = [
            " ".join(word for word in of_sentence if word is not None)
            for of_sentence in zip(*phrase_words)
        ]
        tables.append(dependent_values(phrases, sizes))
    return tables


def live_figure_file(live: LiveFigure) -> str:
    """The script `NAME.js` that hands the tables to `live_figure.js`. It is a script and not JSON,
    because a browser reads no JSON for a page that was opened from a folder without any server.
    """
    tables = json.dumps(live_figure_tables(live), ensure_ascii=False, separators=(",", ":"))
    return f"labFigure({json.dumps(live.name)},{tables});\n"


def live_figure_script() -> str:
    """The one script of all live figures: the dashboard's scripts, and `live_figure.js`, which sees
    of them `sliderFigure` alone.
    """
    shared, quick_redraw, slider_figure, site = (
        path.read_text("utf-8")
        for path in (
            COMPONENTS_FOLDER / "js_component.js",
            COMPONENTS_FOLDER / "quick_redraw.js",
            COMPONENTS_FOLDER / "slider_figure.js",
            Path(__file__).with_name("live_figure.js"),
        )
    )
    module = (
        shared
        + quick_redraw
        + slider_figure.replace("export default function (", "return function (")
    )
    return (
        f"(() => {{\nconst PLOTLY_FILE = {json.dumps(PLOTLY_FILE_NAME)};\n"
        f"const sliderFigure = (() => {{\n{module}}})();\n{site}}})();\n"
    )


def live_figure_styles() -> str:
    """The styles of the dashboard's slider figure, with the colours of the site."""
    return (COMPONENTS_FOLDER / "slider_figure.css").read_text("utf-8") + Path(__file__).with_name(
        "live_figure.css"
    ).read_text("utf-8")
