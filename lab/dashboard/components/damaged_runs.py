"""A warning that names the damaged runs and the reason of each."""

import os
from pathlib import Path

import streamlit as st

from lab.dashboard.components.layout import escape_markdown
from lab.runs.damage import damaged_runs

MAX_LISTED_RUNS = 5


def damaged_runs_warning(root: Path) -> None:
    """Show one line per damaged run, nothing if no run is damaged. Intact runs stay usable."""
    reasons = damaged_runs(root)
    folder = f"{root}{os.sep}"  # A visitor need not see where the server keeps its runs.
    lines = [
        f"`{name}` is damaged: {escape_markdown(reason.replace(folder, ''))}"
        for name, reason in list(reasons.items())[:MAX_LISTED_RUNS]
    ]
    rest = (
        [
            f"{len(reasons) - MAX_LISTED_RUNS} more runs are damaged: `python -m lab runs` lists them."
        ]
        if len(reasons) > MAX_LISTED_RUNS
        else []
    )
    if reasons:
        st.warning("  \n".join(lines + rest))
