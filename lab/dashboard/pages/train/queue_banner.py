"""A banner about the queue: how many runs wait for a free core, with buttons to take runs out and to
put them back.
"""

from collections.abc import Sequence
from pathlib import Path

import streamlit as st

from lab.dashboard.components.layout import escape_markdown
from lab.dashboard.state import actions
from lab.errors import LabError
from lab.runs.queue import count_running, waiting_runs
from lab.runs.trash import trashed_runs

REFRESH_SECONDS = 2.0  # of the banner while runs wait


def queue_banner(root: Path) -> None:
    """Show a line while runs wait, and a line after runs were taken out. A queue worker that has gone,
    for example with a restart of the machine, is replaced.
    """
    if error_message := st.session_state.pop("queue-said", ""):
        st.error(escape_markdown(error_message))
    names = st.session_state.get("taken-out", [])
    if trash_names := [name for name in names if name in trashed_runs(root)] if names else []:
        row = st.container(
            horizontal=True, vertical_alignment="center", gap="medium", key="taken-out-line"
        )
        row.markdown(f"Removed from the queue: {_names_text(trash_names)}.", width="content")
        row.button("Undo", key="undo-cancel", on_click=_restore_runs, args=(root, trash_names))
    if waiting_runs(root):
        actions.ensure_queue_worker(root)
        st.fragment(_waiting_line, run_every=REFRESH_SECONDS)(root)


def cancel_button(root: Path, names: Sequence[str], label: str, key: str) -> None:
    """Show a button that takes runs out of the queue; the banner can then put them back."""
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
            f"**{len(names)} {'run waits' if len(names) == 1 else 'runs wait'}** for a free CPU core:"
            f" {_names_text(names)}. Training now: {count_running(root)}.",
            width="content",
        )
        cancel_button(root, names, "Remove all from the queue", "cancel-all")


def _names_text(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names[:6]) + (
        f" and {len(names) - 6} more" if len(names) > 6 else ""
    )


def _restore_runs(root: Path, trash_names: Sequence[str]) -> None:
    """Callback: bring runs back into the queue."""
    try:
        actions.restore_runs(root, trash_names)
    except (LabError, OSError) as error:
        st.session_state["queue-said"] = str(error)
