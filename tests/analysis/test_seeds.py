"""Mean and band over seeds, by hand."""

import math

import plotly.graph_objects as go
import pytest

from lab.analysis.statistics import half_width
from lab.analysis.student_t import t_quantile
from lab.config.json_format import to_dict
from lab.config.methods import make_config
from lab.errors import LabError
from lab.figures.run_curves import RunCurves
from lab.figures.seed_bands import band_traces, group_by_seed, mean_band, seed_groups
from lab.figures.training_curves import training_curves


def run(name, values, method="grpo", events=(), steps=(0, 5, 10)):
    return RunCurves(name, method, name, {"gold/accuracy": (list(steps), values)}, events, 0, 10)


def config(method="grpo", **knobs):
    return to_dict(make_config(method, knobs))


def changed(step, to):
    return {
        "type": "event",
        "step": step,
        "kind": "changed",
        "detail": {"knob": "beta", "from": 0.0, "to": to},
        "id": "",
    }


def seed_bands(runs, configs, panels):
    lines, around = group_by_seed(runs, configs)
    figure = training_curves(lines, panels)
    bands = [
        trace for line in lines for trace in band_traces(line, around.get(line.name, {}), panels)
    ]
    return go.Figure(
        {
            "data": [*bands, *(trace.to_plotly_json() for trace in figure.data)],
            "layout": figure.layout,
        }
    )


def test_one_two_three_have_mean_two_and_a_half_width_of_2_484():
    steps, means, halves = mean_band([([0], [1.0]), ([0], [2.0]), ([0], [3.0])])
    assert (steps, means) == ([0], [2.0]) and halves == [pytest.approx(4.302653 / math.sqrt(3))]
    assert half_width(2) == pytest.approx(12.706205 / math.sqrt(2))
    for count in (0, 1):
        with pytest.raises(LabError, match="seeds"):
            half_width(count)


@pytest.mark.parametrize(
    ("degrees", "published"),
    [(1, 12.706), (20, 2.086), (21, 2.080), (25, 2.060), (30, 2.042), (60, 2.000), (120, 1.980)],
)
def test_student_s_t_is_that_of_published_tables(degrees, published):
    assert t_quantile(degrees) == pytest.approx(published, abs=5e-4)


def test_student_s_t_falls_towards_the_normal_quantile():
    quantiles = [t_quantile(degrees) for degrees in range(1, 2000)]
    assert quantiles == sorted(quantiles, reverse=True)
    assert quantiles[-1] == pytest.approx(1.959964, abs=2e-3)
    with pytest.raises(LabError, match="positive number of degrees"):
        t_quantile(0)


def test_a_band_stands_where_every_run_has_a_finite_value():
    steps, means, _ = mean_band(
        [([0, 5, 10], [1.0, 1.0, math.nan]), ([0, 2, 5, 10], [3.0, 9.0, 5.0, 1.0])]
    )
    assert (steps, means) == ([0, 5], [2.0, 3.0])


def test_runs_are_grouped_when_they_differ_in_nothing_but_seed_and_device():
    configs = {
        "a": config(seed=0),
        "b": config(seed=1, device="cpu"),
        "c": config(seed=1, beta=0.1),
        "d": config("dpo"),
        "e": config(seed=2),
    }
    none = dict.fromkeys(configs, ())
    assert seed_groups(configs, none) == [["a", "b", "e"], ["c"], ["d"]]
    assert seed_groups(configs, none | {"e": [changed(3, 0.2)]}) == [
        ["a", "b"],
        ["c"],
        ["d"],
        ["e"],
    ]


def test_a_second_run_of_the_same_seed_is_not_counted_as_one_more():
    configs = {"a": config(seed=0), "copy": config(seed=0), "b": config(seed=1)}
    assert seed_groups(configs, dict.fromkeys(configs, ())) == [["a", "b"], ["copy"]]


def test_a_group_is_one_line_with_its_band_and_a_run_alone_keeps_its_line():
    runs = [run("a", [0.4, 0.5, 0.6]), run("b", [0.6, 0.7, 0.8]), run("c", [0.1, 0.1, 0.1], "dpo")]
    lines, around = group_by_seed(
        runs, {"a": config(seed=0), "b": config(seed=1), "c": config("dpo")}
    )
    assert [line.label for line in lines] == ["2 seeds of a", "c"]
    assert lines[0].columns["gold/accuracy"][1] == pytest.approx([0.5, 0.6, 0.7]) and set(
        around
    ) == {"a"}
    assert lines[1].columns is runs[2].columns


def test_the_figure_draws_the_band_as_a_closed_shape_under_the_mean():
    runs = [run("a", [0.4, 0.5, 0.6]), run("b", [0.6, 0.7, 0.8])]
    figure = seed_bands(runs, {"a": config(seed=0), "b": config(seed=1)}, ["gold/accuracy"])
    shape, line = figure.data
    half = 12.706205 * math.sqrt(0.02) / math.sqrt(2)
    assert shape.fill == "toself" and list(shape.x) == [0, 5, 10, 10, 5, 0]
    assert list(shape.y) == pytest.approx(
        [0.5 + half, 0.6 + half, 0.7 + half, 0.7 - half, 0.6 - half, 0.5 - half]
    )
    assert list(line.y) == pytest.approx([0.5, 0.6, 0.7]) and line.name == "2 seeds of a"
