import math

import plotly.graph_objects as go
import pytest

from lab.dashboard.components.slider_figure import figure_json
from lab.figures.base import figure_from_traces
from lab.figures.beta_sweep import BETA_MEASURES, beta_sweep_figure
from lab.figures.dpo import MAX_LOSS, MIN_PUSH, join_with_gaps, loss_and_pairs
from lab.figures.ipo import bounded_margin_figure, margins_over_steps
from lab.figures.kto import kto_value_figure
from lab.figures.palette import METHOD_COLOURS

CURVE = ((-1.0, 0.0, 1.0), (1.3, 0.7, 0.3), (0.7, 0.5, 0.3))
LOOKS = [0, 10, 400]


def beta_row(method="dpo", beta=0.1, at=(0.0, 1.0, 2.0)):
    line = {"mean": list(at), "half": [0.0, 0.1, 0.2]}
    return {"method": method, "beta": beta, "steps": LOOKS, **dict.fromkeys(BETA_MEASURES, line)}


def test_many_curves_are_one_line_with_gaps():
    found = join_with_gaps([CURVE, CURVE], 1).tolist()
    assert (
        found[:3] == found[4:7] == list(CURVE[1]) and math.isnan(found[3]) and math.isnan(found[7])
    )


def test_pairs_lie_on_the_curve_and_those_beyond_the_axes_stand_at_the_edge_as_triangles():
    pairs = ((-9.0, 0.5), (MAX_LOSS + 5, 0.5), (0.9, MIN_PUSH / 10))
    figure = loss_and_pairs(
        CURVE, [CURVE], pairs, {"chosen": [0, -1], "rejected": [0, -2]}, [0, 50], 50, 0.1, "others"
    )
    loss, push = (trace for trace in figure.data if trace.mode == "markers")
    assert (
        list(loss.y) == [MAX_LOSS, 0.5]
        and list(loss.marker.symbol) == ["triangle-up", "circle"]
        and list(loss.customdata) == [MAX_LOSS + 5, 0.5]
    )
    assert list(push.y) == [0.9, MIN_PUSH] and list(push.marker.symbol) == [
        "circle",
        "triangle-down",
    ]


def test_chosen_and_rejected_differ_in_dash_and_symbol_and_the_step_is_marked():
    figure = loss_and_pairs(
        CURVE, [CURVE], CURVE, {"chosen": [0, -1], "rejected": [0, -2]}, [0, 50], 50, 0.1, "others"
    )
    chosen, rejected = figure.data[-2:]
    assert (
        (chosen.name, rejected.name) == ("chosen", "rejected")
        and chosen.line.dash != rejected.line.dash
        and chosen.marker.symbol != rejected.marker.symbol
    )
    assert figure.layout.shapes[-1].x0 == 50 and "nats" in figure.layout.yaxis3.title.text


def test_runs_stand_over_their_beta_at_the_asked_step_with_their_interval():
    figure = beta_sweep_figure([beta_row(beta=1.0, at=(0, 3, 4)), beta_row(beta=0.1)], 400)
    kl = figure.data[0]
    assert (
        list(kl.x) == [0.1, 1.0]
        and list(kl.y) == [2.0, 4.0]
        and list(kl.error_y.array) == [0.2, 0.2]
        and len(figure.data) == len(BETA_MEASURES)
    )


def test_an_axis_ends_where_its_measure_ends_though_an_interval_goes_on():
    figure = beta_sweep_figure([beta_row(at=(0.0, 0.9, 0.95))], 400)
    assert (
        figure.layout.yaxis.range[0] > -0.1
        and figure.layout.yaxis2.range[1] < 1.1
        and figure.layout.yaxis3.range[1] > 1.1
    )


def test_an_interval_much_longer_than_the_curve_does_not_press_it_flat():
    row = beta_row(at=(0.0, 1.0, 2.0))
    row |= dict.fromkeys(BETA_MEASURES, {"mean": [0.0, 1.0, 2.0], "half": [0.0, 0.1, 90.0]})
    assert beta_sweep_figure([row], 400).layout.yaxis.range[1] == pytest.approx(
        4.2
    )  # 2 + 2, and a twentieth of the height of 4


def test_own_runs_are_stars_and_their_number_of_traces_does_not_depend_on_what_they_measured():
    own = [{"name": "mine", "method": "dpo", "beta": 0.3, "kl": 1.5}]
    figure = beta_sweep_figure([beta_row()], 10, own)
    stars = [trace for trace in figure.data if trace.marker.symbol == "star-open"]
    assert [list(star.x) for star in stars] == [[0.3], [], [], []] and len(figure.data) == 2 * len(
        BETA_MEASURES
    )


def test_the_target_is_marked_in_both_panels():
    lines = {"dpo": [2.0, 1.0, 0.5], "ipo": [4.0, 1.0, 0.0]}
    figure = bounded_margin_figure((-1, 0, 1), lines, (0, 1, 2), lines, 0.5)
    assert [shape.x0 for shape in figure.layout.shapes[:1]] == [0.5] and figure.layout.shapes[
        1
    ].y0 == 0.5
    assert {trace.line.color for trace in figure.data} == {
        METHOD_COLOURS["dpo"],
        METHOD_COLOURS["ipo"],
    }


def test_the_band_of_margins_holds_the_middle_four_fifths():
    margins = [list(range(11)), [2 * h for h in range(11)]]
    figure = margins_over_steps(
        [
            {
                "method": "ipo",
                "steps": [0, 5],
                "margins": margins,
                "chosen": margins,
                "rejected": margins,
            }
        ],
        5.0,
    )
    low, high, mean = figure.data[:3]
    assert (
        list(low.y) == pytest.approx([1, 2])
        and list(high.y) == pytest.approx([9, 18])
        and list(mean.y) == pytest.approx([5, 10])
    )


def test_the_balance_stands_beside_its_rule():
    figure = kto_value_figure((-1, 1), (0.4, 0.6), (0.6, 0.4), 2.0, 0.25)
    rule = figure.layout.shapes[1]
    assert (
        (rule.x0, rule.x1) == (1.0, pytest.approx(4 / 3))
        and list(figure.data[2].x) == [0.25]
        and figure.layout.shapes[0].x0 == 2.0
    )


@pytest.mark.parametrize(
    "figure",
    [
        loss_and_pairs(
            CURVE,
            [CURVE],
            CURVE,
            {"chosen": [0, -1], "rejected": [0, -2]},
            [0, 50],
            50,
            0.1,
            "others",
        ),
        beta_sweep_figure([beta_row()], 10),
        bounded_margin_figure(
            (-1, 0, 1), {"dpo": [2.0, 1.0, 0.5]}, (0, 1, 2), {"dpo": [0.0, 1.0, 2.0]}, 0.5
        ),
        kto_value_figure((-1, 1), (0.4, 0.6), (0.6, 0.4), 2.0, 0.25),
        margins_over_steps(
            [
                {
                    "method": "ipo",
                    "steps": [0, 5],
                    **dict.fromkeys(("margins", "chosen", "rejected"), [[0, 1], [1, 2]]),
                }
            ],
            5.0,
        ),
    ],
    ids=["loss and pairs", "over beta", "bounded", "kto values", "margins"],
)
def test_plotly_finds_nothing_wrong_in_a_figure_that_it_has_not_checked_and_would_draw_the_same(
    figure,
):
    assert figure_json(go.Figure(figure.to_dict())) == figure_json(figure)
    with pytest.raises(ValueError):
        go.Figure(figure_from_traces([{"type": "scatter", "mode": "dots"}], {}).to_dict())
