"""A page with a question covers the figure that answers it until a guess or a skip, and not at an address
that names a state.
"""

import pytest
from streamlit.testing.v1 import AppTest
from support.elements import healthy, opened, texts

CAPTION = "is covered until you guess or skip"
COVERED = {"dpo": "loss", "ipo_kto": "bounded", "rlhf_dpo": "policies", "choose": "article"}
SCRIPT = """
import streamlit as st
from lab.dashboard.components.quiz import quiz
quiz("Which?", ("a", "b"), lambda guess: st.markdown(f"You said {guess}."), covers=("x", "y-z"))
"""


def style(app):
    return " ".join(e.proto.body for e in app.get("html") if "visibility: hidden" in e.proto.body)


@pytest.mark.parametrize("page", COVERED)
def test_a_page_covers_the_figure_that_answers_its_question(page):
    app = opened(page)
    assert CAPTION in texts(app) and f".st-key-{COVERED[page]} " in style(app)
    keys = [part for e in app.get("bidi_component") for part in e.proto.id.split("-")]
    assert COVERED[page] in keys, "the covered figure is on the page"
    assert CAPTION not in texts(app.segmented_control(key="guess").set_value("Skip").run())
    assert style(app) == ""


def test_on_the_presenter_s_screen_the_cover_names_the_reveal_from_the_first_view_on():
    app = opened("dpo", present="1")
    assert "is covered until the answer is revealed" in texts(app) and CAPTION not in texts(app)


def test_a_guess_is_answered_where_it_was_made_and_uncovers_for_the_whole_session():
    app = AppTest.from_string(SCRIPT).run()
    assert CAPTION in texts(app) and ".st-key-x " in style(app) and ".st-key-y-z " in style(app)
    app.segmented_control(key="guess").set_value("b").run()
    assert "You said b." in texts(healthy(app)) and CAPTION not in texts(app)
    app.segmented_control(key="guess").set_value(None).run()
    assert CAPTION not in texts(app)


def test_an_address_with_a_state_or_a_guess_covers_nothing_and_one_with_nonsense_does():
    for name, value, covered in (
        ("beta", "0.5", False), ("guess", "a", False), ("guess", "Skip", False), ("guess", "c", True),
    ):  # fmt: skip
        app = AppTest.from_string(SCRIPT)
        app.query_params[name] = value
        app.run()
        assert (CAPTION in texts(app)) is covered
        assert ("You said a." in texts(app)) is (value == "a")
