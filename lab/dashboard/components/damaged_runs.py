"""The runs that are damaged: each with its reason, where runs are listed."""

from pathlib import Path

import streamlit as st

from lab.dashboard.components.layout import plain
from lab.runs.damage import damaged_runs

SHOWN = 5


def say_damaged(root: Path) -> None:
    """A line for each damaged run; nothing while there is none. The others are not touched by it."""
    found = damaged_runs(root)
    lines = [
        f"`{name}` is damaged: {plain(reason)}" for name, reason in list(found.items())[:SHOWN]
    ]
    more = [f"And {len(found) - SHOWN} more: python -m lab runs"] if len(found) > SHOWN else []
    if found:
        st.warning("  \n".join(lines + more))
