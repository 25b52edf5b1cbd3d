"""The figures of pass@k, of the length of answers and of random rewards."""

import pytest
from support.grpo_questions import KS, length_table, pass_table, random_table

from lab.figures.answer_length import answer_length_figure, answer_length_narrow_layout
from lab.figures.palette import METHOD_COLOURS, REFERENCE_COLOUR, THEMES
from lab.figures.pass_at_k import pass_at_k_figure, pass_at_k_narrow_layout
from lab.figures.random_rewards import random_rewards_figure, random_rewards_narrow_layout

PASS = pass_table(["better"] * 3, ["worse"] * 3)


@pytest.mark.parametrize("theme", THEMES)
def test_both_sets_of_chains_have_a_panel_for_each_count(theme):
    figure = pass_at_k_figure(PASS, theme)
    grpo = {trace.yaxis: list(trace.y) for trace in figure.data if trace.name == "GRPO"}
    right, worked = [0.5, 0.7, 0.9], [0.4, 0.6, 0.9]
    assert grpo == {"y": right, "y2": right, "y3": worked, "y4": worked}
    assert all(list(trace.x) == KS for trace in figure.data)
    assert [trace.name for trace in figure.data if trace.showlegend] == [
        "base",
        "DPO",
        "GRPO",
        "GRPO, longer chains",
    ]
    titles = [note.text for note in figure.layout.annotations]
    assert "<b>Chains of 7 to 9 operations</b>, every step written" in titles
    assert (
        figure.layout.xaxis4.type == "log" and "k, completions" in figure.layout.xaxis4.title.text
    )
    assert figure.layout.yaxis.title.text == "pass@k, share of chains"


def test_the_base_is_grey_and_dashed_and_arms_of_a_method_differ_in_their_dash():
    lines = {trace.name: trace.line for trace in pass_at_k_figure(PASS).data}
    assert (lines["base"].color, lines["base"].dash) == (REFERENCE_COLOUR, "dash")
    assert lines["GRPO"].color == lines["GRPO, longer chains"].color == METHOD_COLOURS["grpo"]
    assert lines["GRPO"].dash != lines["GRPO, longer chains"].dash


def test_a_bar_of_pass_at_k_ends_at_1():
    (longer,) = (
        t for t in pass_at_k_figure(PASS).data if t.yaxis == "y4" and t.name.endswith("chains")
    )
    assert list(longer.error_y.array) == pytest.approx([0.02, 0.02, 0.0])
    assert list(longer.error_y.arrayminus) == pytest.approx([0.02, 0.02, 0.02])


@pytest.mark.parametrize("theme", THEMES)
def test_right_and_wrong_lengths_have_one_scale_and_a_line_for_each_reduction(theme):
    figure = answer_length_figure(length_table("longer"), theme)
    wrong = {trace.name: list(trace.y) for trace in figure.data if trace.yaxis == "y2"}
    assert list(wrong.values()) == [[1.0, 2.0], [2.0, 3.0], [3.0, 4.0]]
    assert "sum over a constant (Dr. GRPO)" in wrong
    assert figure.layout.yaxis.range == figure.layout.yaxis2.range
    assert figure.layout.yaxis.range[1] > 4.5
    assert figure.layout.yaxis2.title.text == "wrong: tokens / full scratchpad"
    assert len({trace.line.dash for trace in figure.data}) == 3


@pytest.mark.parametrize("theme", THEMES)
def test_each_task_has_both_rewards_beside_the_base(theme):
    tables = [random_table("worse", "worse"), random_table("worse", "worse", {"model": "x"})]
    figure = random_rewards_figure(tables, theme)
    second = {trace.name: list(trace.y) for trace in figure.data if trace.yaxis == "y2"}
    assert second["before training"] == [0.3, 0.3]
    assert second["random reward"] == pytest.approx([0.4, 0.5, 0.6])
    assert second["true reward"] == pytest.approx([0.7, 0.8, 0.9])
    (true,) = (t for t in figure.data if t.yaxis == "y" and t.name == "true reward")
    assert list(true.error_y.array) == pytest.approx([0.15, 0.15, 0.1])
    assert figure.layout.xaxis.title.text == "chains"
    assert figure.layout.xaxis2.title.text == "sums with SmolLM2-135M"


def test_on_a_phone_the_panels_of_every_figure_are_stacked():
    tables = [random_table("worse", "worse")] * 2
    for figure, narrow in (
        (pass_at_k_figure(PASS), pass_at_k_narrow_layout()),
        (answer_length_figure(length_table("longer")), answer_length_narrow_layout()),
        (random_rewards_figure(tables), random_rewards_narrow_layout(tables)),
    ):
        figure.update_layout(narrow)
        for axis in figure.select_xaxes():
            assert axis.ticktext is None or len(axis.ticktext) == len(axis.tickvals)
        layout = figure.layout.to_plotly_json()
        panels = [layout[name]["domain"] for name in layout if name.startswith("yaxis")]
        assert all(below[1] < above[0] for above, below in zip(panels, panels[1:]))
        assert all(
            layout[name]["domain"] in ([0, 1], (0, 1))
            for name in layout
            if name.startswith("xaxis")
        )
