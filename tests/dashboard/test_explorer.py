"""What the explorer sends to the browser, without a browser."""

import math
import re
from functools import partial
from pathlib import Path

import plotly.graph_objects as go
import pytest
from plotly.offline import get_plotlyjs, get_plotlyjs_version
from support.elements import opened, sent

from lab.dashboard.components.js_component import PLOTLY_FILE_NAME
from lab.dashboard.components.slider_figure import figure_json, frame_differences

ROOT = Path(__file__).parents[2]

PAGE = """
import plotly.graph_objects as go
from lab.dashboard.components.slider_figure import Slider, slider_figure

def line(a, b, offset):
    lines = [{"x": [0, 1], "y": [offset, a], "name": "first"}, {"x": [0, 1], "y": [b, b]}]
    return go.Figure(lines, {"title": {"text": f"{a:g}"}})

def words(a, b, offset):
    return f"a is {a:g}, b is {b:g}"

line.__module__ = words.__module__ = "page_of_the_test"
sliders = [Slider("a", "α", (1.0, 2.0, 4.0), 2.0, presets=(1.0,)), Slider("b", "b", (0, 10), 0, play=True)]
found = slider_figure(line, key="lines", alt="two lines", sliders=sliders, sentence=words, arguments=(0.5,))
import streamlit as st
st.text(str(found))
"""


open_page = partial(opened, PAGE)


def test_every_slider_is_drawn_at_all_its_values_while_the_others_stand():
    data = sent(open_page(b="10"), "lines")
    a, b = data["sliders"]
    assert data["figure"]["data"][0]["y"] == [0.5, 2.0] and data["says"] == "a is 2, b is 10"
    assert [frame["traces"]["0"] for frame in a["frames"]] == [
        {"y": [0.5, value]} for value in (1.0, 2.0, 4.0)
    ]
    assert [frame["layout"]["title"]["text"] for frame in a["frames"]] == ["1", "2", "4"] and a[
        "says"
    ][2] == "a is 4, b is 10"
    assert [frame["traces"] for frame in b["frames"]] == [
        {"1": {"y": [value, value]}} for value in (0, 10)
    ]


def test_the_address_and_the_result_name_every_slider():
    app = open_page(a="3.9")
    assert app.text[0].value == "{'a': 4.0, 'b': 0}"
    assert app.query_params["a"] in ("4", ["4"]) and app.query_params["b"] in ("0", ["0"])


@pytest.mark.parametrize("written", ["x", "", "nan", "-inf", "1e999", "{}", "a" * 5000])
def test_what_is_no_number_in_the_address_is_ignored(written):
    assert open_page(a=written).text[0].value == "{'a': 2.0, 'b': 0}"


def test_a_figure_travels_without_its_theme_and_with_gaps_for_what_is_not_finite():
    plain = figure_json(
        go.Figure(go.Scatter(y=[1 / 3, math.nan, math.inf]), {"template": "plotly_dark"})
    )
    assert plain == {"data": [{"type": "scatter", "y": [0.333333, None, None]}], "layout": {}}


def test_only_what_differs_travels_again():
    figures = [{"data": [{"x": [1], "y": [y]}], "layout": {"height": 1}} for y in (1, 2)]
    assert frame_differences(figures) == [
        {"traces": {0: {"y": [1]}}, "layout": {}},
        {"traces": {0: {"y": [2]}}, "layout": {}},
    ]
    assert frame_differences([{"data": [], "layout": {"shapes": [1]}}, {"data": [], "layout": {}}])[
        1
    ] == {"traces": {}, "layout": {"shapes": None}}


def test_a_slider_that_changes_the_number_of_traces_is_refused():
    with pytest.raises(ValueError, match="different numbers of traces"):
        frame_differences([{"data": [], "layout": {}}, {"data": [{}], "layout": {}}])


def kinds_of(script):
    """The kinds of trace that a plotly.js draws."""
    return set(re.findall(r'moduleType:"trace",name:"(\w+)"', script))


def kinds_drawn(source, known):
    """The kinds of trace that a module draws: `add_bar(…)`, `go.Bar(…)`, `"type": "bar"` and
    `type="bar"`.
    """
    said = re.findall(
        r"""\.add_(\w+)\(|\bgo\.(\w+)|["']?\btype["']?\s*[:=]\s*["'](\w+)["']""", source
    )
    return {word.lower() for words in said for word in words} & known


def test_the_plotly_js_of_the_page_is_of_the_installed_version_and_draws_every_kind_of_trace_of_the_lab():
    script, known = (
        (ROOT / "static" / PLOTLY_FILE_NAME).read_text("utf-8"),
        kinds_of(get_plotlyjs()),
    )
    assert (
        f"v{get_plotlyjs_version()}\n" in script[:200]
        and get_plotlyjs_version() in PLOTLY_FILE_NAME
    )
    assert kinds_drawn(
        'go.Scattergl; f.add_bar(); {"type": "pie"}; dict(type="heatmap")', known
    ) == {"scattergl", "bar", "pie", "heatmap"}
    used = {
        kind
        for folder in ("figures", "dashboard")
        for path in (ROOT / "lab" / folder).rglob("*.py")
        for kind in kinds_drawn(path.read_text("utf-8"), known)
    }
    assert {"scatter", "bar", "heatmap"} <= used <= kinds_of(script)
