"""The article's curves with one panel: plotly takes them, and they show the numbers they are given."""

import math

import plotly.graph_objects as go
import pytest

from lab.dashboard.pages.story import curves
from lab.figures import article


def shown(figure):
    """The traces of the figure by name; plotly accepts the figure."""
    go.Figure(figure.to_dict())
    return {trace.name: trace for trace in figure.data}


def test_the_loss_falls_along_the_margin_as_its_formula_says():
    figure = curves.draw_loss(0.2)
    traces = shown(figure)
    h, loss = traces["β = 0.2"].x, traces["β = 0.2"].y
    expected = [math.log1p(math.exp(-0.2 * x)) for x in h]  # −log σ(βh)
    assert list(loss) == pytest.approx(expected, rel=1e-5)
    pair = traces["one pair"]
    assert pair.x[0] == 5.0 and pair.y[0] == pytest.approx(math.log1p(math.exp(-1.0)), rel=1e-5)
    assert [trace.name for trace in figure.data[:4]] == [f"β = {b}" for b in (0.05, 0.1, 0.2, 0.5)]
    assert "β = 0.2 a pair with margin 0 has the loss 0.69" in curves.loss_sentence(0.2)


def test_the_margin_of_ipo_ends_at_its_target_and_that_of_dpo_beyond():
    traces = shown(curves.draw_margins(0.1))
    assert traces["IPO"].y[-1] == pytest.approx(5.0, rel=1e-3)  # gradient descent nears 1/(2β)
    assert traces["DPO"].y[-1] > 10
    figure = article.margins_over_updates([0, 1], {"dpo": [0.0, 1.0], "ipo": [0.0, 0.5]}, 2.5)
    assert figure.layout.annotations[0].text == "1/(2β) = 2.5"


def test_kto_values_mirror_each_other_at_the_reference_point():
    traces = shown(curves.draw_kto(5))
    good, bad = traces["good (thumb up)"], traces["bad (thumb down)"]
    at = list(good.x).index(5)
    assert good.y[at] == pytest.approx(0.5, rel=1e-5) == bad.y[at]
    one_more = 1 / (1 + math.exp(-0.1))  # σ(β·1), one nat above z
    assert good.y[list(good.x).index(6)] == pytest.approx(one_more, rel=1e-5)
    assert bad.y[list(bad.x).index(6)] == pytest.approx(1 - one_more, rel=1e-5)


def test_each_panel_of_the_resources_is_a_figure_of_its_own():
    keys = [figure.data["key"] for figure in curves.resource_figures("dark")]
    assert keys == ["story-models", "story-memory", "story-time"]
