import re
from functools import partial

import pytest
from support.elements import opened, sent, texts

from lab.analysis.derivation import REFERENCE_POLICY, derive
from lab.figures.derivation import policies

open_page = partial(opened, "rlhf_dpo")


@pytest.mark.parametrize("beta", [0.2, 1.0, 10.0])
def test_every_identity_of_the_derivation_holds_in_the_shown_world(beta):
    found = derive(beta)
    assert (
        max(found.errors[name] for name in ("objective", "reward", "preference")) < 1e-9
        and found.errors["dpo"] < 1e-6
    )
    assert (
        sum(found.optimal) == pytest.approx(1.0)
        and found.best_objective > found.reference_objective
    )


def test_no_number_of_the_page_is_a_rounding_error():
    app = open_page()
    said = f"{texts(app)} {sent(app, 'policies')['says']}"
    assert "up to rounding" in said and not re.search(r"\de-\d", said)
    assert not re.search(r" -\d", said)  # a minus is typographic


def test_the_page_takes_beta_from_the_address_and_keeps_it_there():
    app = open_page(beta="5")
    assert sent(app, "policies")["says"].startswith("At β = 5 ") and app.query_params["beta"] in (
        "5",
        ["5"],
    )
    assert "underbrace{5}" in app.latex[0].value


@pytest.mark.parametrize("written", ["much", "", "nan", "inf", "<b>"])
def test_an_address_that_is_no_number_is_read_as_one(written):
    assert sent(open_page(beta=written), "policies")["says"].startswith("At β = 1 ")


def test_every_value_of_the_slider_has_its_bars_and_its_sentence():
    drawn = sent(open_page(), "policies")
    (slider,), betas = drawn["sliders"], (0.2, 10.0)
    for beta, at in zip(betas, (0, -1)):
        found = derive(beta)
        assert slider["frames"][at]["traces"]["1"]["y"] == pytest.approx(found.optimal, rel=1e-5)
        assert f"At β = {beta:g} " in slider["says"][at]


def test_a_prediction_is_answered():
    app = open_page()
    app.segmented_control(key="guess").set_value("further from it").run()
    assert "The opposite is true." in texts(app)
    app.segmented_control(key="guess").set_value("nearer to the reference").run()
    assert "Right." in texts(app)


def test_the_figure_shows_reference_optimum_and_descent():
    found = derive(1.0)
    figure = policies("abcde", REFERENCE_POLICY, found.optimal, found.dpo)
    assert [list(trace.y) for trace in figure.data] == [
        list(REFERENCE_POLICY),
        found.optimal,
        found.dpo,
    ]
    assert figure.layout.yaxis.title.text == "probability π(y|x)"
