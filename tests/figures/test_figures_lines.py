"""Curves over one axis."""

from lab.figures.lines import line_figure
from lab.figures.palette import METHOD_COLOURS


def test_curves_of_one_method_share_a_colour_and_differ_in_dash_and_symbol():
    figure = line_figure(
        [0, 1],
        {"a": ("dpo", [1, 2]), "b": ("dpo", [3, 4]), "c": ("ipo", [5, 6])},
        "h, nats",
        "loss",
        points=True,
    )
    a, b, c = figure.data
    assert (a.line.color, b.line.color, c.line.color) == (
        METHOD_COLOURS["dpo"],
        METHOD_COLOURS["dpo"],
        METHOD_COLOURS["ipo"],
    )
    assert (
        a.line.dash != b.line.dash
        and a.marker.symbol != b.marker.symbol
        and a.line.dash == c.line.dash
    )
    assert (list(b.y), b.name, figure.layout.xaxis.title.text, figure.layout.yaxis.title.text) == (
        [3, 4],
        "b",
        "h, nats",
        "loss",
    )


def test_a_mark_is_a_labelled_line_and_the_range_stands_still():
    figure = line_figure(
        [0, 10], {"a": ("ipo", [1, 2])}, "h", "loss", y_range=(0, 5), marks={"target": 5.0}
    )
    assert (
        figure.layout.shapes[0].x0,
        figure.layout.annotations[0].text,
        figure.layout.annotations[0].x,
    ) == (5.0, "target", 5.0)
    assert tuple(figure.layout.yaxis.range) == (0, 5)
