"""The page Online and offline: both flows, the measured curves, the article's claim."""

from functools import partial

import pytest
from support.elements import opened, sent, texts

from lab.analysis.recorded_results import load_result
from lab.dashboard.pages.online_offline import (
    DATA_MODES,
    METHODS_OF_MODE,
    article_verdict,
    drift_table,
    percent_or_dash,
)
from lab.figures.drift import DRIFT_PANELS, drift_figure
from lab.figures.palette import METHOD_COLOURS

open_page = partial(opened, "online_offline")


def row(method, right, known):
    return {
        "method": method,
        "step": [0, 10],
        "gold/accuracy": right,
        "wrong_covered": known,
        "logps/chosen": [-1.0, -2.0],
        "logps/rejected": [-3.0, -9.0],
        "right_covered": [0.6, 0.6],
    } | {f"{name} ±": [0.1, 0.1] for panel in DRIFT_PANELS.values() for name, *_ in panel}


@pytest.mark.parametrize("mode", DATA_MODES)
def test_a_mode_shows_its_flow_and_the_curves_of_its_methods(mode):
    app = open_page(mode=mode)
    assert len(app.get("image")) == (2 if mode == "both" else 1)
    for panel in DRIFT_PANELS:
        curves = [trace for trace in sent(app, panel)["figure"]["data"] if trace["x"] != [None]]
        assert len(curves) == 2 * len(METHODS_OF_MODE[mode])
    app.segmented_control(key="mode").set_value("both").run()
    assert not app.exception and app.query_params["mode"] in ("both", ["both"])


@pytest.mark.parametrize("guess", ["most", "some", "hardly any"])
def test_a_prediction_is_answered(guess):
    app = open_page()
    app.segmented_control(key="guess").set_value(guess).run()
    assert (
        f"You said {guess}. The data contains 17 % of them before training and 0 % after 100"
        " updates." in texts(app)
    )


def test_an_address_that_names_no_mode_shows_both():
    assert len(open_page(mode="<b>", guess="x").get("image")) == 2


def test_the_figure_draws_what_it_is_given():
    figure = drift_figure(
        [row("dpo", [0.4, 0.7], [0.2, 0.0]), row("grpo", [0.4, 0.9], [0.2, 0.0])],
        ("grpo",),
        "covered",
    )
    curves, key = figure.data[:2], figure.data[2:]
    assert [list(t.y) for t in curves] == [[0.6, 0.6], [0.2, 0.0]]
    assert {t.line.color for t in curves} == {METHOD_COLOURS["grpo"]}
    assert [t.line.dash for t in curves] == [t.line.dash for t in key] == ["solid", "dash"]
    assert [t.name for t in key] == ["right completions", "wrong completions"]
    assert not any(t.showlegend for t in curves)
    assert list(
        drift_table([row("grpo", [0.4, 0.9], [0.2, 0.0])], ("grpo",), "covered")[
            "wrong completions"
        ]
    ) == [0.2, 0.0]


def test_every_method_has_a_panel_of_its_own_with_its_name_and_the_same_height_axis():
    figure = drift_figure(
        [row("dpo", [0.4, 0.7], [0.2, 0.0]), row("grpo", [0.4, 0.9], [0.2, 0.0])],
        ("dpo", "grpo"),
        "covered",
    )
    assert [t.xaxis for t in figure.data[:4]] == ["x", "x", "x2", "x2"]
    titles = [figure.layout.xaxis.title.text, figure.layout.xaxis2.title.text]
    assert [title.partition("</b>")[0] for title in titles] == ["<b>DPO", "<b>GRPO"]
    assert figure.layout.xaxis.domain[1] < figure.layout.xaxis2.domain[0]
    assert figure.layout.yaxis2.matches == "y"


def test_the_verdict_follows_the_numbers():
    online = {
        "online_dpo": row("online_dpo", [0.4, 0.9], [0.2, 0.0]),
        "grpo": row("grpo", [0.4, 0.8], [0.2, 0.0]),
    }
    fell = article_verdict({"dpo": row("dpo", [0.4, 0.7], [0.2, 0.0]), **online})
    assert (
        fell.startswith("The measurement agrees with the first part.")
        and "0.80 or more, and that of DPO is 0.70" in fell
    )
    assert (
        article_verdict({"dpo": row("dpo", [0.4, 0.7], [0.2, 0.3]), **online})
        == "The measurement does not agree with the first part."
    )
    assert percent_or_dash(None) == "–" and percent_or_dash(0.166) == "17 %"


def test_the_shipped_table_has_what_the_page_draws():
    assert {r["method"] for r in load_result("drift")["rows"]} == set(METHODS_OF_MODE["both"])
