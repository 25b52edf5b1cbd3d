"""The queue as the page shows it: how many runs wait for a free core, and a way to take them out
and to put them back.
"""

from collections.abc import Sequence
from pathlib import Path

import streamlit as st

from lab.dashboard.components.layout import escape_markdown
from lab.dashboard.state import actions
from lab.errors import LabError
from lab.runs.queue import count_running, waiting_runs
from lab.runs.trash import trashed_runs

REFRESH_SECONDS = 2.0  # seconds between two looks while runs wait


def queue_banner(root: Path) -> None:
    """One line while runs wait, and one after they were taken out. A worker that is gone, after a
    restart of the machine, is replaced.
    """
    if said := st.session_state.pop("queue-said", ""):
        st.error(escape_markdown(said))
    taken = st.session_state.get("taken-out", [])
    if places := [place for place in taken if place in trashed_runs(root)] if taken else []:
        row = st.container(
            horizontal=True, vertical_alignment="center", gap="medium", key="taken-out-line"
        )
        row.markdown(f"Taken out of the queue: {_names_text(places)}.", width="content")
        row.button("Undo", key="undo-cancel", on_click=_restore_runs, args=(root, places))
    if waiting_runs(root):
        actions.ensure_queue_worker(root)
        st.fragment(_waiting_line, run_every=REFRESH_SECONDS)(root)


def cancel_button(root: Path, names: Sequence[str], label: str, key: str) -> None:
    """A button that takes runs out of the queue, where they then can be put back."""
    if reason := actions.refusal():
        st.caption(reason)
    elif st.button(label, key=key):
        try:
            st.session_state["taken-out"] = actions.cancel_queued_runs(root, names)
        except (LabError, OSError) as error:
            st.session_state["queue-said"] = str(error)
        st.rerun()


def _waiting_line(root: Path) -> None:
    names = [run.name for run in waiting_runs(root)]
    if not names:
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="medium", key="queue"):
        st.markdown(
            f"**{len(names)} waiting** for a free core while {count_running(root)} train: {_names_text(names)}.",
            width="content",
        )
        cancel_button(root, names, "Take all out of the queue", "cancel-all")


def _names_text(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names[:6]) + (
        f" and {len(names) - 6} more" if len(names) > 6 else ""
    )


def _restore_runs(root: Path, places: Sequence[str]) -> None:
    """Callback: bring runs back into the queue."""
    try:
        actions.restore_runs(root, places)
    except (LabError, OSError) as error:
        st.session_state["queue-said"] = str(error)
