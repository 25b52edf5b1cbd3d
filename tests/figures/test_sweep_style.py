"""The look of a sweep: colours in the order of the values, visible in both themes, and labels at line ends."""

from itertools import pairwise

import pytest

from lab.config.json_format import to_dict
from lab.config.methods import make_config
from lab.figures.palette import THEMES
from lab.figures.run_curves import RunCurves
from lab.figures.sweep_style import LABEL_GAP, end_labels, sweep_colour, sweep_places


def configs(method="dpo", **runs):
    return {name: to_dict(make_config(method, knobs)) for name, knobs in runs.items()}


def luminance(colour):
    """Relative luminance of WCAG 2."""
    shares = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_colours_follow_the_value_and_not_the_order_of_the_runs():
    places = sweep_places(configs(a={"beta": 0.5}, b={"beta": 0.05}, c={"beta": 0.2}))
    assert {name: place.text for name, place in places.items()} == {
        "a": "β 0.5", "b": "β 0.05", "c": "β 0.2",
    }  # fmt: skip
    assert [places[name].colour for name in "bca"] == [sweep_colour(i, 3) for i in range(3)]
    assert places["b"].colour == "#3B6CE0" and places["a"].colour == "#A87400"


@pytest.mark.parametrize("count", range(2, 9))
def test_every_colour_has_a_contrast_of_three_in_both_themes_and_differs_from_the_next(count):
    colours = [sweep_colour(place, count) for place in range(count)]
    assert len(set(colours)) == count
    for colour in colours:
        assert contrast(colour, "#FFFFFF") >= 3 <= contrast(colour, THEMES["dark"]["surface"])
    for one, other in pairwise(colours):
        parts = [abs(int(one[i : i + 2], 16) - int(other[i : i + 2], 16)) for i in (1, 3, 5)]
        assert max(parts) > 20


def test_seeds_of_one_value_share_its_colour_and_equal_runs_are_told_apart_by_name():
    seeds = sweep_places(configs(a={"beta": 0.1}, b={"beta": 0.1, "seed": 1}, c={"beta": 0.2}))
    assert [place.text for place in seeds.values()] == [
        "β 0.1, seed 0", "β 0.1, seed 1", "β 0.2, seed 0",
    ]  # fmt: skip
    assert seeds["a"].colour == seeds["b"].colour != seeds["c"].colour
    copies = sweep_places(configs("grpo", a={"group_size": 2}, b={"group_size": 2}, c={}))
    assert copies["b"].text == "G 2, seed 0 (b)"


@pytest.mark.parametrize(
    "runs",
    [
        configs(a={"beta": 0.5}),
        configs(a={}, b={"seed": 1}),
        configs(a={"beta": 0.5}, b={"beta": 0.1, "steps": 7}),
        configs(a={"steps": 5}, b={"steps": 7}),
        configs(a={"beta": 0.5}) | configs("ipo", b={"beta": 0.1}),
    ],
)
def test_runs_that_differ_in_something_else_are_no_sweep(runs):
    assert sweep_places(runs) == {}


def curve(name, values, colour, label):
    columns = {"loss": (list(range(len(values))), values)}
    return RunCurves(name, "dpo", name, columns, colour=colour, end_label=label)


def test_a_label_stands_at_the_end_of_each_line_and_labels_keep_apart():
    runs = [
        curve("a", [1.0, 0.5], "#3B6CE0", "β 0.1"),
        curve("b", [1.0, 0.5], "#3B6CE0", "β 0.1"),  # Another seed of the same value.
        curve("c", [1.0, 0.501], "#A87400", "β 0.2"),
        curve("d", [1.0, float("nan")], "#C2429A", "β 0.5"),
    ]
    low, high = end_labels(runs, ["loss"])
    assert [label["name"] for label in (low, high)] == ["a", "c"]
    assert (low["x"], low["y"]) == (1, 0.5) and "β 0.1" in low["text"]
    # 150 pixels for 0.5 of loss: 0.001 of loss are 0.3 pixels.
    assert high["yshift"] - low["yshift"] + 0.3 == pytest.approx(LABEL_GAP)
    assert end_labels([curve("e", [1.0], "", "")], ["loss"]) == []
