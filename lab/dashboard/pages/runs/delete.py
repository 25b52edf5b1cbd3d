"""Delete a run, and bring it back."""

from collections.abc import Mapping
from pathlib import Path

import streamlit as st

from lab.dashboard.components.layout import escape_markdown
from lab.dashboard.state import actions
from lab.errors import LabError
from lab.runs.damage import damaged_runs
from lab.runs.folder import ACTIVE
from lab.runs.states import WAITING_STATES
from lab.runs.summary import Summary
from lab.runs.trash import TRASH_FOLDER, trashed_runs


def delete_and_restore(root: Path, own: Mapping[str, Summary]) -> None:
    """Move one of the own runs that neither train nor wait into the trash, or bring one back,
    folded; what happened stands above.
    """
    if reason := actions.refusal():
        st.caption(reason)
        return
    gone, idle = (
        trashed_runs(root),
        [name for name, s in own.items() if s.state not in ACTIVE + WAITING_STATES],
    )
    idle += [name for name in damaged_runs(root) if name not in own]
    said, place = st.session_state.pop("delete-said", ""), st.session_state.get("deleted")
    if said:
        st.warning(said)
    if place in gone:
        row = st.container(horizontal=True, vertical_alignment="center")
        row.markdown(f"Deleted `{place}`: it lies in {root.name}/{TRASH_FOLDER}.", width="content")
        row.button("Undo", key="undo", on_click=restore_deleted_run, args=(root, place))
    if not (gone or idle):
        return
    with st.expander("Delete, and bring back", key="deleting"):
        left, right = st.columns(2)
        if idle:
            name = left.selectbox(
                "Run to delete",
                idle,
                key="delete-name",
                index=None,
                placeholder="One of yours that neither trains nor waits",
            )
            left.button(
                "Delete",
                key="delete",
                disabled=name is None,
                on_click=delete_selected_run,
                args=(root, name),
            )
        if gone:
            back = right.selectbox("Run to bring back", gone, key="restore-name")
            right.button(
                "Bring back", key="restore", on_click=restore_deleted_run, args=(root, back)
            )
        st.caption(
            f"Deleted runs lie in {root.name}/{TRASH_FOLDER}; delete that folder yourself to free its space. Recorded runs belong to the lab and stay."
        )


def delete_selected_run(root: Path, name: str) -> None:
    """Callback: move a run into the trash and show it no more."""
    try:
        st.session_state["deleted"] = actions.delete_run(root, name)
        st.session_state["run"] = [
            shown for shown in st.session_state.get("run", []) if shown != name
        ]
    except (LabError, OSError) as error:
        st.session_state["delete-said"] = escape_markdown(str(error))


def restore_deleted_run(root: Path, place: str) -> None:
    """Callback: bring a run back from the trash."""
    try:
        (name,) = actions.restore_runs(root, [place])
        st.session_state["deleted"] = None
        if name != place.partition("~")[0]:
            st.session_state["delete-said"] = (
                f"The name was taken meanwhile, so the run is back as {name}."
            )
    except (LabError, OSError) as error:
        st.session_state["delete-said"] = escape_markdown(str(error))
