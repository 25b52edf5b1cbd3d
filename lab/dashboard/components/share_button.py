"""The button that saves a run as one HTML file."""

from functools import partial
from pathlib import Path

import streamlit as st

from lab.dashboard.state.run_cache import Snapshot
from lab.dashboard.state.run_selection import display_name
from lab.runs.folder import RunFolder
from lab.serving.share import share_page

HELP = (
    "One HTML file: the curves, your changes, the completions, and a button that replays the run. It"
    " opens in a browser without Python and without a network."
)


def share_button(name: str, path: Path, run: Snapshot, label: str = "Share") -> None:
    """Show the button that saves the run `name` in the folder `path`; `run` is its present state."""
    file_name = f"{path.name}.html"
    st.download_button(
        label,
        partial(share_page, RunFolder(path), display_name(name)),
        file_name,
        "text/html",
        key=f"share {name}",
        on_click="ignore",
        disabled=not run.columns,
        help=HELP if run.columns else "This run has not measured anything yet.",
        icon=":material/share:",
    )


def share_buttons(paths: dict[str, Path], snapshots: dict[str, Snapshot]) -> None:
    """Show one button per run; with several runs each is labelled with its name."""
    with st.container(horizontal=True, gap="small", key="share"):
        for name, path in paths.items():
            label = "Share" if len(paths) == 1 else f"Share {display_name(name)}"
            share_button(name, path, snapshots[name], label)
