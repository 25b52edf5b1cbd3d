"""The figures of overoptimisation and sensitivity, on tables small enough to read."""

import pytest

from lab.figures.overoptimisation import overoptimisation_figure
from lab.figures.palette import METHOD_COLOURS, THEMES
from lab.figures.sensitivity import knob_name, sensitivity_figure


def row(method, model, gold, best_step):
    curve = {
        "step": [3.0, 8.0, 13.0],
        "proxy": [0.0, 1.0, 2.0],
        "gold": gold,
        "kl": [0.0, 1.0, 4.0],
        "distance": [0.0, 1.0, 2.0],
    }
    return {
        "method": method,
        "reward_model": model,
        "curve": curve,
        "best_gold": max(gold),
        "best_step": best_step,
    }


OPTIMISED = {
    "rows": [
        row("ppo", "100 pairs", [0.4, 0.7, 0.3], 8.0),
        row("grpo", "100 pairs", [0.4, 0.5, 0.6], 13.0),
        row("ppo", "500 pairs", [0.5, 0.6, 0.7], 13.0),
        row("grpo", "500 pairs", [0.5, 0.6, 0.4], 8.0),
    ]
}


def cells(low, centre, high):
    return {
        word: {"mean": mean, "half": 0.05}
        for word, mean in (("low", low), ("centre", centre), ("high", high))
    }


SENSITIVE = {
    "factor": 4.0,
    "rows": [
        {"method": "ppo", "knob": "critic_learning_rate"} | cells(0.5, 0.7, 0.9),
        {"method": "dpo", "knob": "beta"} | cells(0.8, 0.6, 0.3),
    ],
}


@pytest.mark.parametrize("theme", THEMES)
def test_every_reward_model_has_a_column_with_gold_above_proxy(theme):
    figure = overoptimisation_figure(OPTIMISED, theme)
    assert len(figure.data) == 8 and [note.text for note in figure.layout.annotations] == [
        "<b>100 pairs</b>",
        "<b>500 pairs</b>",
    ]
    gold = {trace.yaxis: list(trace.y) for trace in figure.data if trace.name == "PPO"}
    assert gold == {
        "y": [0.4, 0.7, 0.3],
        "y2": [0.5, 0.6, 0.7],
        "y3": [0.0, 1.0, 2.0],
        "y4": [0.0, 1.0, 2.0],
    }
    assert (
        figure.layout.yaxis.domain[0] > figure.layout.yaxis3.domain[1]
        and figure.layout.xaxis.domain[1] < figure.layout.xaxis2.domain[0]
    )
    assert [(t.name, t.line.color) for t in figure.data if t.showlegend] == [
        ("PPO", METHOD_COLOURS["ppo"]),
        ("GRPO", METHOD_COLOURS["grpo"]),
    ]


def test_the_best_gold_accuracy_is_marked_and_only_there():
    gold = next(
        t for t in overoptimisation_figure(OPTIMISED).data if t.yaxis == "y" and t.name == "PPO"
    )
    proxy = next(
        t for t in overoptimisation_figure(OPTIMISED).data if t.yaxis == "y3" and t.name == "PPO"
    )
    assert gold.marker.symbol == ("circle", "circle-open", "circle") and set(
        proxy.marker.symbol
    ) == {"circle"}
    assert (gold.line.dash, proxy.line.dash) == ("solid", "dash")


def test_one_reward_model_over_updates_is_two_panels():
    figure = overoptimisation_figure(OPTIMISED, across="step", models=["500 pairs"])
    assert {t.yaxis for t in figure.data} == {"y", "y2"} and list(figure.data[0].x) == [
        3.0,
        8.0,
        13.0,
    ]
    assert figure.layout.xaxis2.title.text == "step (updates)" and list(figure.data[0].y) == [
        0.5,
        0.6,
        0.7,
    ]


@pytest.mark.parametrize("theme", THEMES)
def test_each_knob_has_a_row_with_its_three_settings_and_their_intervals(theme):
    figure = sensitivity_figure(SENSITIVE, theme)
    low, centre, high = (
        trace for trace in figure.data if trace.mode == "markers" and trace.x[0] is not None
    )
    assert [list(t.x) for t in (low, centre, high)] == [
        [0.5, 0.8],
        [0.7, 0.6],
        [0.9, 0.3],
    ] and list(low.error_x.array) == [0.05, 0.05]
    assert len({t.marker.symbol for t in (low, centre, high)}) == 3 and list(
        centre.marker.color
    ) == [METHOD_COLOURS["ppo"], METHOD_COLOURS["dpo"]]
    assert [t.name for t in figure.data if t.showlegend is None and t.mode == "markers"] == [
        "÷ 4",
        "default",
        "× 4",
    ]
    assert [list(t.x) for t in figure.data if t.mode == "lines"] == [[0.5, 0.9], [0.3, 0.8]]
    assert list(figure.layout.yaxis.ticktext) == ["PPO, critic learning rate", "DPO, β"]


def test_a_knob_without_a_name_of_its_own_is_called_as_in_the_config():
    assert knob_name({"method": "ipo", "knob": "max_grad_norm"}) == "IPO, max grad norm"
