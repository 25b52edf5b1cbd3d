"""The runs that the lab ships."""

from pathlib import Path

import streamlit as st

import lab
from lab.config import method_of
from lab.runs import RunFolder, list_runs

FOLDER = Path(lab.__file__).parent / "assets" / "recorded"


@st.cache_data
def recorded_paths() -> dict[str, list[str]]:
    """Folders of the recorded runs by method, in the order of their names."""
    found: dict[str, list[str]] = {}
    for run in list_runs(FOLDER):
        found.setdefault(method_of(run.config), []).append(str(run.path))
    return found


def recorded_run(method: str) -> RunFolder | None:
    """The first recorded run of a method; None while there is none."""
    paths = recorded_paths().get(method)
    return RunFolder(Path(paths[0])) if paths else None
