"""Delete the selected runs, and restore deleted runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import streamlit as st

from lab.dashboard.components.layout import escape_markdown
from lab.dashboard.state import actions
from lab.errors import LabError
from lab.runs.damage import damaged_runs
from lab.runs.states import ACTIVE_STATES, WAITING_STATES
from lab.runs.summary import Summary
from lab.runs.trash import TRASH_FOLDER, trashed_runs


def delete_selected_row(root: Path, shown: Mapping[str, Summary | None]) -> None:
    """Show a button that moves the selected runs into the trash, and beside it the result of the
    last action with its Undo. `shown`: the selected runs by name; None for a recorded run.
    """
    if reason := actions.refusal():
        st.caption(reason)
        return
    deletable = [
        name for name, s in shown.items() if s and s.state not in ACTIVE_STATES + WAITING_STATES
    ]
    if message := st.session_state.pop("delete-said", ""):
        st.warning(message)
    in_trash = set(trashed_runs(root))
    deleted = [name for name in st.session_state.get("deleted", []) if name in in_trash]
    row = st.container(horizontal=True, vertical_alignment="center", gap="medium")
    if deletable:
        number = f"{len(deletable)} selected runs" if len(deletable) > 1 else "the selected run"
        row.button(
            f"Delete {number}", key="delete", on_click=delete_runs, args=(root, tuple(deletable))
        )
        if others := [name for name, s in shown.items() if s and name not in deletable]:
            row.caption(
                f"A run that trains or waits stays: {escape_markdown(', '.join(others))}.",
                width="content",
            )
    if deleted:
        names = ", ".join(f"`{name}`" for name in deleted)
        row.markdown(f"Deleted {names}.", width="content")
        row.button("Undo", key="undo", on_click=restore_deleted_runs, args=(root, tuple(deleted)))


def trash_section(root: Path) -> None:
    """Show, folded, a form that restores a deleted run, and one that deletes a damaged run, which the
    table does not list; nothing while there is neither.
    """
    trash_names, damaged = trashed_runs(root), list(damaged_runs(root))
    if actions.refusal() or not (trash_names or damaged):
        return
    with st.expander("Restore deleted runs", key="trash"):
        left, right = st.columns(2)
        if trash_names:
            trash_name = left.selectbox("Run to restore", trash_names, key="restore-name")
            left.button(
                "Restore", key="restore", on_click=restore_deleted_runs, args=(root, (trash_name,))
            )
        if damaged:
            name = right.selectbox("Damaged run", damaged, key="damaged-name")
            right.button(
                "Delete the damaged run",
                key="delete-damaged",
                on_click=delete_runs,
                args=(root, (name,)),
            )
        st.caption(
            f"Deleted runs are moved to {root.name}/{TRASH_FOLDER}. Delete that folder yourself to"
            " free its disk space. You cannot delete recorded runs."
        )


def delete_runs(root: Path, names: Sequence[str]) -> None:
    """Callback: move runs into the trash and remove them from the shown runs."""
    deleted = []
    for name in names:
        try:
            deleted.append(actions.delete_run(root, name))
        except (LabError, OSError) as error:
            st.session_state["delete-said"] = escape_markdown(str(error))
            continue
        st.session_state["run"] = [
            other for other in st.session_state.get("run", []) if other != name
        ]
    st.session_state["deleted"] = deleted


def restore_deleted_runs(root: Path, trash_names: Sequence[str]) -> None:
    """Callback: move runs back from the trash."""
    try:
        names = actions.restore_runs(root, trash_names)
    except (LabError, OSError) as error:
        st.session_state["delete-said"] = escape_markdown(str(error))
        return
    st.session_state["deleted"] = []
    renamed = [name for name, old in zip(names, trash_names) if name != old.partition("~")[0]]
    if renamed:
        st.session_state["delete-said"] = (
            "Another run has this name now, so the restored run is called"
            f" {escape_markdown(', '.join(renamed))}."
        )
