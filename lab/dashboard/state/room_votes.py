"""The votes of a room: several visitors answer the questions of the pages, and one presenter reveals the
answers. They live in the server's memory, bounded, and end with the server.
"""

import secrets
import threading
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

CODE_LETTERS = "ABCDEFGHJKLMNPRSTUVWXYZ"  # without letters that read like digits
CODE_LENGTH = 4
MAX_ROOMS, MAX_QUESTIONS, MAX_VOTERS = 50, 40, 2000
VISITOR_COOKIE = "alab_visitor"


@dataclass
class Ballot:
    """The votes on one question: by visitor, the option. `revealed` closes it."""

    votes: dict[str, str] = field(default_factory=dict)
    revealed: bool = False


@dataclass
class Room:
    """One presenter and the ballots of the questions that somebody has seen in the room."""

    presenter: str
    ballots: OrderedDict[str, Ballot] = field(default_factory=OrderedDict)


class Rooms:
    """All rooms of a server, by code. The oldest room goes when there are more than `MAX_ROOMS`."""

    def __init__(self) -> None:
        self._rooms: OrderedDict[str, Room] = OrderedDict()
        self._lock = threading.Lock()

    def open(self, code: str, visitor: str) -> str:
        """Open a room with `visitor` as its presenter and return its code: `code` if it is one, else a
        new one. A room that is open keeps its presenter.
        """
        with self._lock:
            if not is_code(code):
                code = "".join(secrets.choice(CODE_LETTERS) for _ in range(CODE_LENGTH))
            if code not in self._rooms:
                self._rooms[code] = Room(visitor)
            self._rooms.move_to_end(code)
            while len(self._rooms) > MAX_ROOMS:
                self._rooms.popitem(last=False)
            return code

    def is_open(self, code: str) -> bool:
        """Whether a presenter has opened the room on this server."""
        with self._lock:
            return code in self._rooms

    def is_presenter(self, code: str, visitor: str) -> bool:
        """Whether `visitor` presents in the room."""
        with self._lock:
            return code in self._rooms and self._rooms[code].presenter == visitor

    def vote(self, code: str, question: str, visitor: str, option: str | None) -> None:
        """Record what a visitor of an open room answers now; None takes the vote back. A visitor has
        one vote, the presenter has none, and a revealed question takes no more.
        """
        with self._lock:
            ballot = self._ballot(code, question)
            if ballot is None or ballot.revealed or self._rooms[code].presenter == visitor:
                return
            if option is None:
                ballot.votes.pop(visitor, None)
            elif visitor in ballot.votes or len(ballot.votes) < MAX_VOTERS:
                ballot.votes[visitor] = option

    def counts(self, code: str, question: str, options: Sequence[str]) -> list[int]:
        """The number of votes for each option."""
        with self._lock:
            ballot = self._ballot(code, question)
            counts = Counter(ballot.votes.values() if ballot else ())
            return [counts[option] for option in options]

    def is_revealed(self, code: str, question: str) -> bool:
        """Whether the presenter has revealed the answer."""
        with self._lock:
            ballot = self._ballot(code, question)
            return ballot is not None and ballot.revealed

    def reveal(self, code: str, question: str, visitor: str) -> None:
        """Close the votes on a question; only the presenter can."""
        with self._lock:
            ballot = self._ballot(code, question)
            if ballot is not None and self._rooms[code].presenter == visitor:
                ballot.revealed = True

    def reset(self, code: str, question: str, visitor: str) -> None:
        """Remove all votes on a question, which opens it again; only the presenter can."""
        with self._lock:
            ballot = self._ballot(code, question)
            if ballot is not None and self._rooms[code].presenter == visitor:
                del self._rooms[code].ballots[question]

    def _ballot(self, code: str, question: str) -> Ballot | None:
        if code not in self._rooms:
            return None
        ballots = self._rooms[code].ballots
        ballot = ballots.setdefault(question, Ballot())
        while len(ballots) > MAX_QUESTIONS:
            ballots.popitem(last=False)
        return ballot


def is_code(text: str) -> bool:
    """Whether `text` can be the code of a room."""
    return len(text) == CODE_LENGTH and set(text) <= {*CODE_LETTERS}


@st.cache_resource(show_spinner=False)
def rooms() -> Rooms:
    """The rooms of this server."""
    return Rooms()


def visitor_id() -> str:
    """The same text for every session of one browser, so that a reload is no second visitor. A visitor
    without cookies is a new one in every session.
    """
    if cookie := st.context.cookies.get(VISITOR_COOKIE, ""):
        return cookie[:64]
    context = get_script_run_ctx()
    return context.session_id if context else ""


def current_room() -> str:
    """The code of the open room in the address, or of this session, which then is in the address again;
    empty if there is none.
    """
    code = st.query_params.get("room") or st.session_state.get("room", "")
    if not rooms().is_open(code):
        return ""
    st.session_state["room"] = code
    if st.query_params.get("room") != code:
        st.query_params["room"] = code
    return code
