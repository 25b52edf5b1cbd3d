
import pytest
from streamlit.testing.v1 import AppTest

from lab.derivation import REFERENCE, derive
from lab.figures.derivation import policies

PAGE = "from lab.ui.derivation import page\npage()\n"


def open_page(**query):
    app = AppTest.from_string(PAGE, default_timeout=60)
    for name, value in query.items():
        app.query_params[name] = value
    app.run()
    assert not app.exception, app.exception
    return app


def texts(app):
    return " ".join(e.value for e in app.markdown)


@pytest.mark.parametrize("beta", [0.2, 1.0, 10.0])
def test_every_identity_of_the_derivation_holds_in_the_shown_world(beta):
    found = derive(beta)
    assert max(found.errors[name] for name in ("objective", "reward", "preference")) < 1e-9 and found.errors["dpo"] < 1e-6
    assert sum(found.optimal) == pytest.approx(1.0) and found.best_objective > found.reference_objective


def test_the_page_takes_beta_from_the_address_and_puts_it_there():
    app = open_page(beta="5")
    assert "At β = 5" in texts(app)
    app.select_slider(key="beta").set_value(0.2).run()
    assert "At β = 0.2" in texts(app) and app.query_params["beta"] in ("0.2", ["0.2"])


def test_an_address_that_is_no_number_is_read_as_one():
    assert "At β = 1 " in texts(open_page(beta="much"))


def test_a_prediction_is_answered():
    app = open_page()
    app.segmented_control(key="guess").set_value("further from it").run()
    assert "It is the other way round." in texts(app)
    app.segmented_control(key="guess").set_value("nearer to the reference").run()
    assert "Right." in texts(app)


def test_the_figure_shows_reference_optimum_and_descent():
    found = derive(1.0)
    figure = policies("abcde", REFERENCE, found.optimal, found.dpo)
    assert [list(trace.y) for trace in figure.data] == [list(REFERENCE), found.optimal, found.dpo]
    assert figure.layout.yaxis.title.text == "probability π(y|x)"
