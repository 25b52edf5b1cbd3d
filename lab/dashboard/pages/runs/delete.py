"""Delete runs and restore deleted runs."""

from collections.abc import Mapping
from pathlib import Path

import streamlit as st

from lab.dashboard.components.layout import escape_markdown
from lab.dashboard.state import actions
from lab.errors import LabError
from lab.runs.damage import damaged_runs
from lab.runs.states import ACTIVE_STATES, WAITING_STATES
from lab.runs.summary import Summary
from lab.runs.trash import TRASH_FOLDER, trashed_runs


def deletion_section(root: Path, user_runs: Mapping[str, Summary]) -> None:
    """Show, folded, a form that moves one of the user's runs into the trash, if it neither trains
    nor waits, and a form that restores a run. Above it stands the result of the last action.
    """
    if reason := actions.refusal():
        st.caption(reason)
        return
    trash_names = trashed_runs(root)
    deletable = [
        name for name, s in user_runs.items() if s.state not in ACTIVE_STATES + WAITING_STATES
    ]
    deletable += [name for name in damaged_runs(root) if name not in user_runs]
    if message := st.session_state.pop("delete-said", ""):
        st.warning(message)
    last_deleted = st.session_state.get("deleted")
    if last_deleted in trash_names:
        row = st.container(horizontal=True, vertical_alignment="center")
        row.markdown(
            f"Deleted `{last_deleted}`. It is now in {root.name}/{TRASH_FOLDER}.", width="content"
        )
        row.button("Undo", key="undo", on_click=restore_deleted_run, args=(root, last_deleted))
    if not (trash_names or deletable):
        return
    with st.expander("Delete and restore runs", key="deleting"):
        left, right = st.columns(2)
        if deletable:
            name = left.selectbox(
                "Run to delete",
                deletable,
                key="delete-name",
                index=None,
                placeholder="A run of yours that does not train or wait",
            )
            left.button(
                "Delete",
                key="delete",
                disabled=name is None,
                on_click=delete_selected_run,
                args=(root, name),
            )
        if trash_names:
            trash_name = right.selectbox("Run to restore", trash_names, key="restore-name")
            right.button(
                "Restore", key="restore", on_click=restore_deleted_run, args=(root, trash_name)
            )
        st.caption(
            f"Deleted runs are moved to {root.name}/{TRASH_FOLDER}. Delete that folder yourself to"
            " free its disk space. You cannot delete recorded runs."
        )


def delete_selected_run(root: Path, name: str) -> None:
    """Callback: move a run into the trash and remove it from the shown runs."""
    try:
        st.session_state["deleted"] = actions.delete_run(root, name)
        st.session_state["run"] = [
            other for other in st.session_state.get("run", []) if other != name
        ]
    except (LabError, OSError) as error:
        st.session_state["delete-said"] = escape_markdown(str(error))


def restore_deleted_run(root: Path, trash_name: str) -> None:
    """Callback: move a run back from the trash."""
    try:
        (name,) = actions.restore_runs(root, [trash_name])
        st.session_state["deleted"] = None
        if name != trash_name.partition("~")[0]:
            st.session_state["delete-said"] = (
                f"Another run has this name now, so the restored run is called {name}."
            )
    except (LabError, OSError) as error:
        st.session_state["delete-said"] = escape_markdown(str(error))
