"""The queue as the page shows it: how many runs wait for a free core, and a way to take them out."""

from pathlib import Path

import streamlit as st

from lab.queue import attend, busy, cancel, waiting

TICK = 2.0  # seconds between two looks while runs wait


def queue_line(root: Path) -> None:
    """One line while runs wait, nothing otherwise. A worker that is gone, after a restart of the machine, is replaced."""
    if waiting(root):
        attend(root)
        st.fragment(_line, run_every=TICK)(root)


def _line(root: Path) -> None:
    names = [run.name for run in waiting(root)]
    if not names:
        return
    row = st.container(horizontal=True, vertical_alignment="center", gap="medium", key="queue")
    shown = ", ".join(f"`{name}`" for name in names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
    row.markdown(f"**{len(names)} waiting** for a free core while {busy(root)} train: {shown}.", width="content")
    if row.button("Take all out of the queue", key="cancel-all"):
        cancel(root, names)
        st.rerun()
