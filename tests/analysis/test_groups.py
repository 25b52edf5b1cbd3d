"""What a group says: every number against one worked by hand, the figures against the data that
they were given.
"""

import math

import pytest

from lab.algorithms.advantages import ADVANTAGE_SCALES
from lab.analysis.group_statistics import (
    ADVANTAGE_VARIANTS,
    ARTICLE_ADVANTAGES,
    ARTICLE_REWARDS,
    advantage_error,
    advantages_by_variant,
    clip_curves,
    dead_group_share,
    expected_dead_share,
    mean_and_std,
    shuffled_indices,
    token_credit,
)
from lab.errors import LabError
from lab.figures.group_size import (
    BUDGET_TITLES,
    dead_groups_figure,
    error_and_cost_figure,
    group_size_accuracy_figure,
)
from lab.figures.groups import Group, advantage_variants_figure, group_figure
from lab.figures.palette import ABOVE, BELOW
from lab.figures.token_credit import (
    TOKENS_PER_LINE,
    clipped_surrogate_figure,
    log_ratios,
    reduction_credit_figure,
)

PRINTED = (6.0, 5.7, 5.7, 5.6, 5.5, 4.8, 4.7, 3.9)
SIZES = (2, 4, 8, 16, 32)


def test_the_article_s_advantages_come_out_of_rewards_that_round_to_those_it_prints():
    assert [round(r, 1) for r in ARTICLE_REWARDS] == list(PRINTED)
    assert [round(a, 2) for a in advantages_by_variant(ARTICLE_REWARDS, "population")] == list(
        ARTICLE_ADVANTAGES
    )
    assert round(mean_and_std(ARTICLE_REWARDS)[0], 2) == 5.23
    from_printed = [round(a, 2) for a in advantages_by_variant(PRINTED, "population")]
    assert from_printed == pytest.approx(
        [1.16, 0.70, 0.70, 0.55, 0.40, -0.66, -0.82, -2.03], abs=0.011
    ) and from_printed != list(ARTICLE_ADVANTAGES)


@pytest.mark.parametrize(
    "size, unbiased, population, centred",
    [(4, 1.5, 1.732, 0.75), (8, 2.475, 2.646, 0.875), (16, 3.75, 3.873, 0.9375)],
)
def test_one_right_of_g_has_the_advantage_that_can_be_worked_out(
    size, unbiased, population, centred
):
    rewards = [1.0] + [0.0] * (size - 1)
    found = [advantages_by_variant(rewards, name)[0] for name in ("group", "population", "none")]
    assert found == pytest.approx([unbiased, population, centred], abs=2e-3)


def test_the_batch_s_std_is_that_of_all_its_rewards():
    rewards, others = (
        [1.0, 0.0],
        [0.0, 0.0],
    )  # 1, 0, 0, 0 together: mean 1/4, unbiased std 1/2; the group's own mean is 1/2
    assert advantages_by_variant(rewards, "batch", others) == pytest.approx([1.0, -1.0], abs=1e-3)
    assert set(ADVANTAGE_VARIANTS) == {*ADVANTAGE_SCALES, "population"}
    with pytest.raises(LabError, match="variant"):
        advantages_by_variant(rewards, "rank")


def test_mean_and_both_stds():
    assert mean_and_std([1, 0, 0, 0]) == (0.25, 0.5)
    assert mean_and_std([1, 0, 0, 0], population=True) == pytest.approx((0.25, math.sqrt(3) / 4))


def test_a_draw_is_an_order_that_comes_again_and_its_groups_lie_within_each_other():
    assert sorted(shuffled_indices(64, 3)) == list(range(64)) and shuffled_indices(
        64, 3
    ) == shuffled_indices(64, 3) != shuffled_indices(64, 4)


def test_the_error_of_an_advantage_halves_when_the_group_is_four_times_as_large():
    pool = [1.0] * 32 + [0.0] * 32
    assert advantage_error(pool, 8) / advantage_error(pool, 32) == pytest.approx(2, rel=0.15)
    assert math.isnan(advantage_error([1.0] * 64, 8))


def test_the_error_with_two_is_what_counting_gives():
    # p = 1/2, truth ±1: half of the pairs are dead and miss by 1, the other half say ±0.7071 and
    # miss by 0.2929
    assert advantage_error([1.0, 0.0], 2, draws=20_000) == pytest.approx(
        math.sqrt((1 + 0.2929**2) / 2), abs=0.01
    )


def test_dead_groups_are_counted_in_the_order_of_sampling_and_a_rest_is_left_out():
    assert dead_group_share([[1, 1, 0, 1, 1.0]], 2) == 0.5
    assert dead_group_share([[1, 1, 0, 0.0], [1, 0, 1, 0.0]], 2) == 0.5
    assert expected_dead_share([0.5, 1.0], 2) == pytest.approx((0.5 + 1) / 2)


def test_credit_of_a_token_is_worked_by_hand_for_every_reduction():
    given = ([1.0, -1.0], [2, 8])
    assert token_credit(*given, "sequence_mean", 10) == pytest.approx([1 / 4, -1 / 16])
    assert token_credit(*given, "token_mean", 10) == pytest.approx([0.1, -0.1])
    assert token_credit(*given, "fixed_length", 10) == pytest.approx([0.05, -0.05])
    with pytest.raises(LabError, match="reduction"):
        token_credit(*given, "sum", 10)


def test_the_clip_is_flat_on_the_side_that_would_go_on_and_nowhere_else():
    found = clip_curves(0.2, 0.28, [0.5, 1.0, 1.25, 1.5])
    assert [-v for v in found["above"]["loss"]] == pytest.approx([0.5, 1.0, 1.25, 1.28])
    assert [-v for v in found["below"]["loss"]] == pytest.approx([-0.8, -1.0, -1.25, -1.5])
    assert found["above"]["pull"] == pytest.approx([0.5, 1.0, 1.25, 0.0]) and found["below"][
        "pull"
    ] == pytest.approx([0.0, -1.0, -1.25, -1.5])
    assert (found["above"]["clipped"], found["below"]["clipped"]) == ([0, 0, 0, 1], [1, 0, 0, 0])


FOUND = Group(
    ["45", "…45", "47"],
    ["45", "<think>1</think>45", "<b>47</b>"],
    [1.0, 1.0, 0.0],
    [0.577, 0.577, -1.156],
    2 / 3,
    0.577,
)


def bars(figure):
    return [trace for trace in figure.data if trace.type == "bar"]


def test_a_group_is_drawn_green_and_solid_above_its_mean_and_red_and_hatched_below():
    above, below, at = bars(group_figure(FOUND))
    assert list(above.y) == [0.577, 0.577] and list(below.y) == [-1.156] and not at.y
    assert (
        above.marker.color,
        above.marker.pattern.shape,
        below.marker.color,
        below.marker.pattern.shape,
    ) == (ABOVE, "", BELOW, "/")
    numbers = {
        t.textposition: list(t.text)
        for t in group_figure(FOUND).data
        if t.type == "scatter" and t.yaxis == "y2" and t.text
    }
    assert numbers == {"top center": ["+0.58", "+0.58"], "bottom center": ["−1.16"]}
    symbols = [
        t.marker.symbol
        for t in group_figure(FOUND).data
        if t.type == "scatter" and t.mode == "markers"
    ]
    assert len(set(symbols)) == 3


def test_groups_of_every_size_have_the_same_traces_and_axes_that_hold_all_of_them():
    dull = Group(["1"] * 32, ["1"] * 32, [1.0] * 32, [0.0] * 32, 1.0, 0.0)
    first, second = group_figure(FOUND, [FOUND, dull]), group_figure(dull, [FOUND, dull])
    assert len(first.data) == len(second.data)
    assert (
        first.layout.yaxis.range == second.layout.yaxis.range
        and first.layout.yaxis2.range[0] < -1.156 < 0.577 < first.layout.yaxis2.range[1]
    )
    assert list(bars(second)[2].y) == [0.0] * 32


def test_what_a_model_wrote_is_never_read_as_a_tag():
    written = group_figure(FOUND).to_json()
    assert "<think>" not in written and "<b>47" not in written and "&lt;think&gt;" in written
    assert "<b>" not in log_ratios(["<b>", "4"], [0.1, 0.2], 3.0).to_json()


def test_scaled_variants_share_a_marker_where_they_are_equal():
    figure = advantage_variants_figure({"group": [0.5, 0.5, -1.0], "none": [0.25, 0.25, -0.5]})
    texts = [t for trace in figure.data for t in trace.text]
    assert texts == ["+0.50 × 2", "−1.00", "+0.25 × 2", "−0.50"]


def test_dead_groups_are_points_beside_the_line_of_the_formula():
    line, points = dead_groups_figure(
        SIZES, {"base": [0.5, 0.3, 0.2, 0.1, 0.0]}, {"base": [0.6, 0.3, 0.2, 0.1, 0.1]}
    ).data
    assert (
        (line.mode, points.mode) == ("lines", "markers")
        and list(points.y)[0] == 0.5
        and list(line.y)[0] == 0.6
    )


def test_error_and_cost_stand_beside_what_the_article_says_of_them():
    figure = error_and_cost_figure(
        SIZES, [0.8, 0.5, 0.4, 0.3, 0.2], [20, 40, 80, 160, 320], [1, 1.5, 2, 3, 5]
    )
    by_name = {trace.name: list(trace.y) for trace in figure.data}
    assert by_name["∝ 1/√G"] == pytest.approx([0.8, 0.8 / 2**0.5, 0.4, 0.8 / 8**0.5, 0.2])
    assert by_name["∝ G"] == by_name["tokens"] == [1, 2, 4, 8, 16] and by_name["seconds"] == [
        1,
        1.5,
        2,
        3,
        5,
    ]


def test_outcomes_carry_their_intervals_at_either_budget():
    rows = [
        {
            "budget": budget,
            "group_size": size,
            "batch_size": 8 * size,
            "final": {
                "gold/accuracy": {"mean": 0.5 + size / 100, "half": 0.02 if size < 32 else 0.3},
                "seconds": {"mean": 1.0, "half": 0.1},
            },
        }
        for budget in BUDGET_TITLES
        for size in SIZES
    ]
    figure = group_size_accuracy_figure(rows, 0.46)
    assert [list(trace.y) for trace in figure.data] == [[0.5 + size / 100 for size in SIZES]] * 2
    for trace in figure.data:  # 0.82 ± 0.3 would reach above an accuracy of 1.
        assert trace.error_y.arrayminus == (0.02, 0.02, 0.02, 0.02, 0.3)
        assert trace.error_y.array == pytest.approx((0.02, 0.02, 0.02, 0.02, 0.18))
    assert figure.layout.shapes[0].y0 == 0.46


def test_tokens_stand_in_lines_and_their_colours_end_at_the_limit():
    tokens = [str(i % 10) for i in range(TOKENS_PER_LINE + 3)]
    (heat,) = log_ratios(tokens, [0.1] * len(tokens), 3.0).data
    assert (
        [len(line) for line in heat.z] == [TOKENS_PER_LINE] * 2
        and heat.z[1][3] is None
        and (heat.zmin, heat.zmax) == (-3, 3)
    )
    assert list(heat.text[0][:2]) == ["0", "1"]


def test_credit_has_a_symbol_for_every_reduction():
    figure = reduction_credit_figure(
        ["1: 2", "2: 8"], {"sequence_mean": [0.25, -0.06], "token_mean": [0.1, -0.1]}
    )
    assert len({trace.marker.symbol for trace in figure.data}) == 2 and list(
        figure.data[0].marker.color
    ) == [ABOVE, BELOW]


def test_the_clipped_figure_shades_where_nothing_pulls():
    ratios = [0.5, 1.0, 1.5]
    figure = clipped_surrogate_figure(ratios, clip_curves(0.1, 0.3, ratios), 0.1, 0.3)
    shades = [list(trace.x) for trace in figure.data if trace.fill == "toself"]
    assert [shade[:2] for shade in shades] == [[1.3, 1.5], [0.9, 0.5]]
