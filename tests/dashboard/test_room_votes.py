"""The votes of a room: one for each visitor, closed by the presenter alone, apart from other rooms."""

import pytest
from support.elements import opened

from lab.dashboard.components import present
from lab.dashboard.state import room_votes
from lab.dashboard.state.room_votes import MAX_QUESTIONS, MAX_ROOMS, MAX_VOTERS, Rooms, is_code

OPTIONS = ("more", "less")


@pytest.fixture
def rooms():
    rooms = Rooms()
    assert rooms.open("ABCD", "presenter") == "ABCD"
    return rooms


def counts(rooms, code="ABCD", question="How much?"):
    return rooms.counts(code, question, OPTIONS)


def test_a_visitor_has_one_vote_which_can_change_and_be_taken_back(rooms):
    for option in ("more", "more", "less"):
        rooms.vote("ABCD", "How much?", "a", option)
    rooms.vote("ABCD", "How much?", "b", "less")
    assert counts(rooms) == [0, 2]
    rooms.vote("ABCD", "How much?", "b", None)
    assert counts(rooms) == [0, 1]


def test_the_presenter_has_no_vote_and_alone_reveals_and_begins_again(rooms):
    rooms.vote("ABCD", "How much?", "presenter", "more")
    rooms.vote("ABCD", "How much?", "a", "more")
    rooms.reveal("ABCD", "How much?", "a")
    assert counts(rooms) == [1, 0] and not rooms.is_revealed("ABCD", "How much?")
    rooms.reveal("ABCD", "How much?", "presenter")
    rooms.vote("ABCD", "How much?", "b", "less")
    rooms.vote("ABCD", "How much?", "a", "less")
    assert counts(rooms) == [1, 0] and rooms.is_revealed("ABCD", "How much?")
    rooms.reset("ABCD", "How much?", "a")
    assert rooms.is_revealed("ABCD", "How much?")
    rooms.reset("ABCD", "How much?", "presenter")
    assert counts(rooms) == [0, 0] and not rooms.is_revealed("ABCD", "How much?")


def test_rooms_and_questions_do_not_mix(rooms):
    rooms.open("WXYZ", "other")
    rooms.vote("ABCD", "How much?", "a", "more")
    rooms.vote("WXYZ", "How much?", "a", "less")
    rooms.vote("ABCD", "How many?", "a", "less")
    rooms.reveal("WXYZ", "How much?", "other")
    assert counts(rooms) == [1, 0] and counts(rooms, "WXYZ") == [0, 1]
    assert counts(rooms, question="How many?") == [0, 1]
    assert not rooms.is_revealed("ABCD", "How much?")


def test_nobody_votes_in_a_room_that_no_presenter_has_opened(rooms):
    rooms.vote("WXYZ", "How much?", "a", "more")
    assert counts(rooms, "WXYZ") == [0, 0] and not rooms.is_open("WXYZ")


def test_an_open_room_keeps_its_presenter_and_a_code_of_the_address_is_checked(rooms):
    assert rooms.open("ABCD", "thief") == "ABCD"
    assert rooms.is_presenter("ABCD", "presenter") and not rooms.is_presenter("ABCD", "thief")
    for code in ("", "abcd", "ABCDE", "AB C", "<b>x", "A" * 10_000):
        new = rooms.open(code, "thief")
        assert is_code(new) and new != code and rooms.is_presenter(new, "thief")


def test_rooms_questions_and_voters_are_bounded():
    rooms = Rooms()
    codes = [rooms.open("", f"presenter {i}") for i in range(MAX_ROOMS + 5)]
    assert [rooms.is_open(code) for code in codes[:5]] == [False] * 5
    assert all(rooms.is_open(code) for code in codes[5:])
    code = codes[-1]
    for i in range(MAX_VOTERS + 5):
        rooms.vote(code, "How much?", f"visitor {i}", "more")
    assert counts(rooms, code) == [MAX_VOTERS, 0]
    for i in range(MAX_QUESTIONS):
        rooms.vote(code, f"question {i}", "a", "more")
    assert counts(rooms, code) == [0, 0], "the oldest question has gone"


QUIZ = """
import streamlit as st
from lab.dashboard.components.quiz import quiz
quiz("Which?", ("a", "b"), lambda guess: st.markdown(f"You said {guess}."), covers=("x",))
"""


def styles(app):
    return "".join(part.proto.body for part in app.get("html"))


def shown(app):
    return [part.value for part in app.get("markdown")]


@pytest.mark.parametrize(("visitor", "judged"), [("guest", "You said a."), ("host", "You said b.")])
def test_a_quiz_in_a_room_waits_for_the_presenter(monkeypatch, visitor, judged):
    for module in (present, room_votes):
        monkeypatch.setattr(module, "visitor_id", lambda: visitor)
    shared = room_votes.rooms()
    code = shared.open("", "host")
    for other in ("x", "y"):
        shared.vote(code, "Which?", other, "b")
    app = opened(QUIZ, room=code)
    assert "Covered until the answer is revealed" in styles(app)
    app.segmented_control(key="guess").set_value("a").run()
    assert shared.counts(code, "Which?", ("a", "b")) == [int(visitor == "guest"), 2]
    assert shown(app) == ["Which?"] and "Covered until" in styles(app)
    shared.reveal(code, "Which?", "host")
    app.run()
    assert shown(app) == ["Which?", judged] and "Covered until" not in styles(app)


def test_a_room_that_is_gone_changes_nothing():
    app = opened(QUIZ, room="QQQQ")
    app.segmented_control(key="guess").set_value("a").run()
    assert shown(app) == ["Which?", "You said a."]
