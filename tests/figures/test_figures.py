import math

import pytest

from lab.config.methods import METHODS
from lab.config.number_text import number_text
from lab.figures.curve_points import decimate, points_json
from lab.figures.events import event_marks, event_text
from lab.figures.palette import DASHES, METHOD_COLOURS, METHOD_NAMES, THEMES
from lab.figures.panel_layout import METRIC_SYMBOLS
from lab.figures.run_curves import METRIC_PANELS, RunCurves, run_labels, x_axis_end
from lab.figures.training_curves import training_curves
from lab.runs.metrics import METRICS

OKABE_ITO = {"dpo": "#0072B2", "ipo": "#56B4E9", "kto": "#E69F00", "grpo": "#009E73"}


def run(name="a", method="grpo", order=0, events=(), **columns):
    steps = list(range(5))
    return RunCurves(
        name,
        method,
        name,
        {n.replace("__", "/"): (steps, v) for n, v in columns.items()},
        events,
        order,
        4,
    )


def event(step, kind="changed", **detail):
    return {"type": "event", "step": step, "kind": kind, "detail": detail, "id": ""}


def test_every_method_has_a_colour_and_a_name_and_the_article_s_four_have_okabe_and_ito_s():
    assert set(METHOD_COLOURS) == set(METHOD_NAMES) >= set(METHODS)
    assert {m: METHOD_COLOURS[m] for m in OKABE_ITO} == OKABE_ITO
    assert len(set(DASHES)) == 8


def test_every_panel_is_a_described_metric():
    assert (
        set(METRIC_PANELS) <= set(METRICS)
        and set(METRIC_SYMBOLS) <= set(METRICS)
        and len(METRIC_PANELS) == len(set(METRIC_PANELS))
    )


@pytest.mark.parametrize("theme", THEMES)
def test_a_figure_has_a_titled_panel_for_every_metric_that_a_run_has(theme):
    figure = training_curves([run(gold__accuracy=[0.1] * 5, loss=[1.0] * 5)], theme=theme)
    assert [a.text.split("</b>")[0] for a in figure.layout.annotations] == [
        "<b>gold accuracy",
        "<b>loss",
    ]
    assert {t.yaxis for t in figure.data} == {
        "y",
        "y2",
    } and figure.layout.xaxis.title.text == "step (updates)"


def test_runs_of_one_method_share_its_colour_and_differ_in_dash_and_symbol():
    figure = training_curves(
        [run("a", gold__accuracy=[0.1] * 5), run("b", order=1, gold__accuracy=[0.2] * 5)]
    )
    first, second = figure.data
    assert first.line.color == second.line.color == METHOD_COLOURS["grpo"]
    assert first.line.dash != second.line.dash and first.marker.symbol != second.marker.symbol
    assert [t.name for t in figure.data if t.showlegend] == ["a", "b"]
    plot = figure.layout.height - figure.layout.margin.t - figure.layout.margin.b
    assert (figure.layout.legend.y - 1) * plot == pytest.approx(
        30
    ) and figure.layout.margin.t == 56  # pixels: above the panels' titles, within the figure


def test_every_change_is_a_labelled_line_on_every_panel():
    events = [
        event(0, "started"),
        event(1, knob="beta", **{"from": 0.0, "to": 0.1}),
        event(3, "paused"),
        event(4, "finished"),
    ]
    shapes, labels = event_marks([run(events=events, loss=[1.0] * 5)], ["loss", "grad_norm"])
    assert [s["x0"] for s in shapes] == [1, 1, 3, 3]
    assert [label["text"] for label in labels] == ["β 0.1", "β 0.1", "paused", "paused"]
    assert event_text(events[1]) == "β 0 → 0.1"


def test_decimation_keeps_ends_and_spikes_and_turns_what_is_not_finite_into_a_gap():
    values = [0.0] * 1000
    values[437], values[800] = 9.0, math.nan
    steps, kept = decimate(range(1000), values, 100)
    assert len(steps) <= 100 and steps[0] == 0 and steps[-1] == 999
    assert (437, 9.0) in zip(steps, kept) and steps == sorted(set(steps))
    assert decimate([1, 2], [math.inf, 1.0], 10) == ([1, 2], [None, 1.0])


def test_points_are_valid_json_with_five_digits():
    assert points_json(([0, 1], [1 / 3, math.nan]), 10) == '"x":[0, 1],"y":[0.33333,null]'


def test_labels_name_the_knobs_in_which_runs_of_a_method_differ():
    base = {"method": "dpo", "beta": 0.1, "seed": 0, "device": "auto"}
    assert run_labels(
        {"a": base, "b": base | {"beta": 0.5, "device": "cpu"}, "c": base | {"method": "kto"}}
    ) == {"a": "a, β 0.1", "b": "b, β 0.5", "c": "c"}


def test_numbers_are_short_and_the_axis_ends_at_a_round_number_within_the_plan():
    assert [number_text(v) for v in (0.0001, 2e-5, 0.0, 8, "k3")] == [
        "0.0001",
        "2e-5",
        "0",
        "8",
        "k3",
    ]
    assert (
        x_axis_end([RunCurves("a", "dpo", "a", {"loss": (range(37), [0.0] * 37)}, steps=400)]) == 50
    )
    assert (
        x_axis_end([RunCurves("a", "dpo", "a", {"loss": (range(37), [0.0] * 37)}, steps=40)]) == 40
    )
