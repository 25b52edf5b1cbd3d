"""The tables of live figures: together they give back the figure and the sentence of every
combination of the sliders.
"""

import itertools
import json
import random
from dataclasses import replace

import plotly.graph_objects as go
import pytest

from lab.dashboard.components.slider_figure import Slider, figure_json
from lab.errors import LabError
from lab.site.explorers import explorer_pages, thinned
from lab.site.live_figure import MAX_COMBINATIONS, LiveFigure, dependent_values, live_figure_tables
from lab.site.made_files import explorer_markdown, with_descriptions

SLIDERS = (
    Slider("a", "a", (1.0, 2.0, 3.0), 2.0),
    Slider("b", "b", (10, 20), 10, presets=(10,)),
    Slider("c", "c", (0.5, 1.5), 0.5),
)
NAMES = (
    "rlhf-policies",
    "dpo-loss",
    "dpo-runs",
    "ipo-margin",
    "kto-value",
    "grpo-group",
    "grpo-clipping",
    "grpo-thinking",
)


@pytest.fixture(scope="module")
def figures():
    return {live.name: live for page in explorer_pages() for live in page.figures}


def draw(a, b, c, *extra):
    figure = go.Figure()
    figure.add_scatter(x=[1, 2], y=[a, a + b], name="both")
    figure.add_scatter(x=[1, 2], y=[c, c], name=f"c = {c}")
    figure.add_scatter(x=[0], y=[7], name="always the same")
    return figure.update_layout(title=f"b is {b}", height=300)


def sentence(a, b, c, *extra):
    return f"Here a is {a} and" + (" b is ten" if b == 10 else "") + f" c {c} ."


LIVE = LiveFigure("three", "Three sliders", "made up", draw, sentence, SLIDERS, "three lines")


def at(table, sizes, places):
    index = 0
    for axis in table["axes"]:
        index = index * sizes[axis] + places[axis]
    return table["values"][table["at"][index]]


def figure_at(tables, places):
    figure = json.loads(json.dumps(tables["figure"]))
    for table in tables["attributes"]:
        part = figure["layout"] if table["trace"] is None else figure["data"][table["trace"]]
        part[table["name"]] = at(table, tables["sizes"], places)
    return figure


def sentence_at(tables, places):
    phrases = [at(table, tables["sizes"], places) for table in tables["phrases"]]
    return " ".join(phrase for phrase in phrases if phrase)


def without_empty(figure):
    """The figure as JSON gives it back, without attributes that are None."""
    figure = json.loads(json.dumps(figure))
    drop = lambda part: {k: v for k, v in part.items() if v is not None}  # noqa: E731
    return {"data": [drop(trace) for trace in figure["data"]], "layout": drop(figure["layout"])}


def test_values_are_kept_for_the_sliders_that_change_them():
    values = [a * c for a in (1, 2, 3) for _ in range(2) for c in (5, 10)]
    table = dependent_values(values, [3, 2, 2])
    assert table["axes"] == [0, 2]
    assert [table["values"][place] for place in table["at"]] == [5, 10, 10, 20, 15, 30]
    assert len(table["values"]) == 5, "10 is there once"


def test_a_value_that_no_slider_changes_is_there_once():
    assert dependent_values(["x"] * 6, [3, 2]) == {"axes": [], "at": [0], "values": ["x"]}


def test_tables_give_back_every_figure_and_sentence():
    tables = live_figure_tables(LIVE)
    for places in itertools.product(range(3), range(2), range(2)):
        call = [slider.values[place] for slider, place in zip(SLIDERS, places)]
        expected = without_empty(figure_json(draw(*call)))
        assert without_empty(figure_at(tables, places)) == expected
        assert sentence_at(tables, places) == sentence(*call)


def test_an_attribute_is_stored_for_its_own_sliders_alone():
    axes = {
        (table["trace"], table["name"]): table["axes"]
        for table in live_figure_tables(LIVE)["attributes"]
    }
    assert axes == {(0, "y"): [0, 1], (1, "y"): [2], (1, "name"): [2], (None, "title"): [1]}


def test_sliders_start_where_the_dashboard_starts_them():
    assert [slider["at"] for slider in live_figure_tables(LIVE)["data"]["sliders"]] == [1, 0, 0]


def test_too_many_combinations_are_refused():
    long = Slider("long", "long", tuple(range(MAX_COMBINATIONS)), 0)
    with pytest.raises(ValueError, match="three have 4,000 combinations"):
        live_figure_tables(replace(LIVE, sliders=(long, SLIDERS[1])))


def test_figures_with_different_numbers_of_traces_are_refused():
    def more_lines(a, b, c):
        return go.Figure([go.Scatter()] * int(a))

    with pytest.raises(ValueError, match="different numbers of traces"):
        live_figure_tables(replace(LIVE, draw=more_lines))


def test_a_thinned_slider_keeps_its_start_and_its_presets():
    slider = Slider("s", "s", tuple(range(10)), start=1, presets=(5,))
    assert thinned(slider, 4).values == (0, 1, 4, 5, 8)


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_of_the_site_is_that_of_the_dashboard(figures, name):
    """With at most three values of each slider, so that it takes seconds."""
    live, few = figures[name], random.Random(0)
    sliders = tuple(
        replace(
            slider, values=tuple(sorted({slider.start, *few.sample(slider.values, 2)})), presets=()
        )
        for slider in live.sliders
    )
    tables = live_figure_tables(replace(live, sliders=sliders))
    places = tuple(few.randrange(len(slider.values)) for slider in sliders)
    call = [slider.values[place] for slider, place in zip(sliders, places)]
    expected = without_empty(figure_json(live.draw(*call, *live.arguments)))
    assert without_empty(figure_at(tables, places)) == expected
    assert sentence_at(tables, places) == live.sentence(*call, *live.arguments)


def test_the_site_has_these_figures_in_this_order(figures):
    assert tuple(figures) == NAMES


def test_a_page_describes_its_figures_for_readers_without_javascript():
    page = explorer_pages()[0]
    text = with_descriptions(explorer_markdown(page), "live/rlhf.md")
    assert page.question in text
    assert f"<noscript>{page.figures[0].alt}" in text


def test_a_page_that_asks_for_an_unknown_figure_is_told_the_names():
    with pytest.raises(LabError, match="index.md shows the live figure “dpo-los”.*dpo-loss"):
        with_descriptions('<div class="lab-live" data-figure="dpo-los"></div>', "index.md")
