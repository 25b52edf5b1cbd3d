"""Which label set a visitor works on: its name, pool and the ways to label, all in the address of the page.

A visitor without a name in the address gets a new one, so that two visitors never share a set by accident.
The name is kept for the session too, and whoever knows a name can go on with its labels.
"""

import secrets
from dataclasses import dataclass

import streamlit as st

from lab.dashboard.components.layout import url_choice
from lab.errors import LabError
from lab.taste.labels import SET_NAME, LabelSet
from lab.taste.next_pair import Pick
from lab.taste.pools import POOLS

MODES = {"pairs": "Pairs, two keys", "thumbs": "Single answers, thumbs"}
PICKS: dict[Pick, str] = {"random": "At random", "uncertain": "Where the model is least sure"}
NAME_KEY = "taste.name"


@dataclass(frozen=True)
class Choices:
    """What a visitor has chosen on the page."""

    labels: LabelSet
    mode: str
    pick: Pick


def current_name() -> str:
    """The name of the label set: that of the address, else that of the session, else a new one."""
    in_url = st.query_params.get("set", "")
    name = in_url if SET_NAME.fullmatch(in_url) else st.session_state.get(NAME_KEY, "")
    name = name or f"set-{secrets.token_hex(4)}"
    st.session_state[NAME_KEY] = st.query_params["set"] = name
    return name


def choose_label_set() -> Choices:
    """Show the choices of pool, way to label and next pair; return them."""
    name = current_name()
    url_choice("pool", list(POOLS), "chain")
    url_choice("mode", list(MODES), "pairs")
    url_choice("pick", list(PICKS), "random")
    left, middle, right = st.columns(3)
    pool = left.segmented_control(
        "Answers to compare",
        list(POOLS),
        key="pool",
        required=True,
        format_func=lambda own: POOLS[own].title,
    )
    mode = middle.segmented_control(
        "How to label", list(MODES), key="mode", required=True, format_func=MODES.__getitem__
    )
    pick = right.segmented_control(
        "Next pair",
        list(PICKS),
        key="pick",
        required=True,
        format_func=PICKS.__getitem__,
        disabled=mode == "thumbs",
        help=(
            "At random, or the pair whose margin h of the last trained model is nearest to 0. Every"
            " fifth pair comes at random in any case, because it is held out."
        ),
    )
    return Choices(
        LabelSet(name, pool or "chain"),
        mode or "pairs",
        "uncertain" if pick == "uncertain" else "random",
    )


def name_form(labels: LabelSet) -> None:
    """Show the name of the label set, and a field that opens another set by its name."""
    st.markdown(
        f"Your labels are stored in `{labels.folder}`. The address of this page has the name of the set,"
        f" `{labels.name}`: open it again to go on."
    )
    st.text_input(
        "Go on with another set",
        key="taste.other",
        placeholder="name of a set: letters, digits, dashes",
        max_chars=40,
        on_change=_open_other,
    )
    if problem := st.session_state.pop("taste.name_problem", ""):
        st.error(problem)


def _open_other() -> None:
    """Callback: work on the set whose name was typed."""
    name = st.session_state["taste.other"].strip()
    if not name:
        return
    try:
        LabelSet(name, "chain")
    except LabError as error:
        st.session_state["taste.name_problem"] = str(error)
        return
    st.session_state[NAME_KEY] = st.query_params["set"] = name
    st.session_state["taste.other"] = ""
