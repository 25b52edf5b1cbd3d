"""The queue as the page shows it: how many runs wait for a free core, and a way to take them out
and to put them back.
"""

from collections.abc import Sequence
from pathlib import Path

import streamlit as st

from lab.dashboard.components.layout import plain
from lab.dashboard.state import actions
from lab.errors import LabError
from lab.runs.queue import count_running, waiting_runs
from lab.runs.trash import trashed_runs

TICK = 2.0  # seconds between two looks while runs wait


def queue_line(root: Path) -> None:
    """One line while runs wait, and one after they were taken out. A worker that is gone, after a
    restart of the machine, is replaced.
    """
    if said := st.session_state.pop("queue-said", ""):
        st.error(plain(said))
    taken = st.session_state.get("taken-out", [])
    if places := [place for place in taken if place in trashed_runs(root)] if taken else []:
        row = st.container(
            horizontal=True, vertical_alignment="center", gap="medium", key="taken-out-line"
        )
        row.markdown(f"Taken out of the queue: {_shown(places)}.", width="content")
        row.button("Undo", key="undo-cancel", on_click=_put_back, args=(root, places))
    if waiting_runs(root):
        actions.attend(root)
        st.fragment(_line, run_every=TICK)(root)


def take_out(root: Path, names: Sequence[str], label: str, key: str) -> None:
    """A button that takes runs out of the queue, where they then can be put back."""
    if reason := actions.refusal():
        st.caption(reason)
    elif st.button(label, key=key):
        try:
            st.session_state["taken-out"] = actions.take_out(root, names)
        except (LabError, OSError) as error:
            st.session_state["queue-said"] = str(error)
        st.rerun()


def _line(root: Path) -> None:
    names = [run.name for run in waiting_runs(root)]
    if not names:
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="medium", key="queue"):
        st.markdown(
            f"**{len(names)} waiting** for a free core while {count_running(root)} train: {_shown(names)}.",
            width="content",
        )
        take_out(root, names, "Take all out of the queue", "cancel-all")


def _shown(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names[:6]) + (
        f" and {len(names) - 6} more" if len(names) > 6 else ""
    )


def _put_back(root: Path, places: Sequence[str]) -> None:
    """Callback: bring runs back into the queue."""
    try:
        actions.put_back(root, places)
    except (LabError, OSError) as error:
        st.session_state["queue-said"] = str(error)
