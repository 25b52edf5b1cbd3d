"""Present mode, ?present=1: one figure of the page fills the screen, with large type, a QR code to the
page, and the votes of the room on the page's question.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import streamlit as st

from lab.dashboard.components.js_component import js_component
from lab.dashboard.state.room_votes import current_room, rooms, visitor_id
from lab.dashboard.state.visitor_address import shown_address

KEY = "present"
PRESENT_PARAMETERS = ("present", "figure", "room")
"""What present mode and its room write into the address."""
REFRESH_SECONDS = 1.0  # between two counts of the votes
WAIT_SECONDS = 2.0  # between two looks of a visitor whether the answer is revealed
PANELS = 4  # of a run's curves
WAITING = "Your vote counts. The answer comes when the presenter reveals it."
_QUESTION = "question of the page"  # session key

_present_element = js_component("present")


def is_presented() -> bool:
    """Whether the address asks for present mode."""
    return st.query_params.get("present") == "1"


def presented_panels(panels: Sequence[str]) -> Sequence[str]:
    """The panels of a run's curves that a screen shows: all, or in present mode the first few."""
    return panels[:PANELS] if is_presented() else panels


def room_guess(
    question: str, options: Sequence[str], guess: str | None
) -> tuple[str | None, bool | None]:
    """Record a visitor's answer as a vote if the visitor is in a room. Returns the answer that the page may
    judge, and whether the room still waits for the presenter to reveal it.

    Outside of a room these are `guess` and None. In a room the answer is None while the room waits.
    The presenter has no vote; afterwards the presenter's answer is the one with the most votes.
    """
    st.session_state[_QUESTION] = (question, tuple(options))
    if not (room := current_room()):
        return guess, None
    votes, visitor = rooms(), visitor_id()
    votes.vote(room, question, visitor, guess if guess in options else None)
    presents = votes.is_presenter(room, visitor)
    if votes.is_revealed(room, question):
        counts = votes.counts(room, question, options)
        answer = options[counts.index(max(counts))] if any(counts) else None
        return (answer if presents else guess), False
    if not presents:
        text = WAITING if guess in options else ""
        st.fragment(_wait_for_answer, run_every=WAIT_SECONDS)(room, question, text)
    return None, True


def _wait_for_answer(room: str, question: str, text: str) -> None:
    st.caption(text)
    if rooms().is_revealed(room, question) or not rooms().is_open(room):
        st.rerun()


def forget_question() -> None:
    """Forget the question of the page that was shown before; called before a page runs."""
    st.session_state.pop(_QUESTION, None)


def present_link() -> None:
    """Show the link to present mode; called before a page runs. As the first element of its kind on the
    page it also lets the browser load what draws all elements of the lab before the first figure comes.
    """
    if not is_presented():
        current_room()
        st.fragment(_link)()


def _link() -> None:
    if is_presented():
        st.rerun()
    _present_element(key=KEY, data={"presented": False}, on_command_change=_obey)


def present_page() -> None:
    """Show present mode where the address asks for it; called after a page has run."""
    if not is_presented():
        return
    st.session_state["room"] = st.query_params["room"] = rooms().open(
        st.query_params.get("room") or st.session_state.get("room", ""), visitor_id()
    )
    st.fragment(_show, run_every=REFRESH_SECONDS)(st.session_state.get(_QUESTION))


def _show(question: tuple[str, tuple[str, ...]] | None) -> None:
    if not is_presented() or st.session_state.pop("page changes", False):
        st.rerun()
    room = st.session_state["room"]
    address, hint = shown_address(room)
    size, path = qr_path(address)
    _present_element(
        key=KEY,
        data={
            "presented": True,
            "address": address,
            "hint": hint,
            "qr": {"size": size, "path": path},
            "room": room,
            "figure": st.query_params.get("figure", ""),
            "ballot": ballot_data(room, *question) if question else None,
        },
        on_command_change=_obey,
        on_figure_change=_keep_figure,
    )


def ballot_data(room: str, question: str, options: Sequence[str]) -> dict[str, Any]:
    """The votes on a question as the browser shows them. Before the answer is revealed the browser gets
    their number alone.
    """
    votes = rooms()
    counts, revealed = votes.counts(room, question, options), votes.is_revealed(room, question)
    return {
        "question": question,
        "options": list(options),
        "total": sum(counts),
        "counts": counts if revealed else None,
        "mine": votes.is_presenter(room, visitor_id()),
    }


@lru_cache(maxsize=64)
def qr_path(address: str) -> tuple[int, str]:
    """The QR code of an address: its modules on a side, and its dark modules as an SVG path."""
    import segno  # only present mode needs it

    rows = segno.make(address, error="m", micro=False).matrix
    runs = []
    for y, row in enumerate(rows):
        x = 0
        while x < len(row):
            length = 1
            while x + length < len(row) and row[x + length] == row[x]:
                length += 1
            if row[x]:
                runs.append(f"M{x} {y}h{length}v1h-{length}z")
            x += length
    return len(rows), "".join(runs)


def _obey() -> None:
    """Callback: enter or leave present mode, reveal an answer, or begin its vote again."""
    command = st.session_state[KEY].get("command")
    action = command.get("action") if isinstance(command, Mapping) else None
    room, shown = st.session_state.get("room", ""), st.session_state.get(_QUESTION)
    if action == "present":
        st.query_params["present"] = "1"
    elif action == "leave":
        for name in ("present", "figure"):
            st.query_params.pop(name, None)
    elif action == "reveal" and shown:
        rooms().reveal(room, shown[0], visitor_id())
        st.session_state["page changes"] = True
    elif action == "again" and shown:
        rooms().reset(room, shown[0], visitor_id())
        st.session_state["page changes"] = True


def _keep_figure() -> None:
    """Callback: keep the number of the figure on the screen in the address."""
    figure = st.session_state[KEY].get("figure")
    if type(figure) is int and 0 < figure < 100:
        st.query_params["figure"] = str(figure)
