"""The runs that are damaged: each with its reason, where runs are listed."""

from pathlib import Path

import streamlit as st

from lab.dashboard.components.layout import escape_markdown
from lab.runs.damage import damaged_runs

MAX_LISTED_RUNS = 5


def damaged_runs_warning(root: Path) -> None:
    """A line for each damaged run; nothing while there is none. The others are not touched by it."""
    found = damaged_runs(root)
    lines = [
        f"`{name}` is damaged: {escape_markdown(reason)}"
        for name, reason in list(found.items())[:MAX_LISTED_RUNS]
    ]
    more = (
        [f"And {len(found) - MAX_LISTED_RUNS} more: python -m lab runs"]
        if len(found) > MAX_LISTED_RUNS
        else []
    )
    if found:
        st.warning("  \n".join(lines + more))
