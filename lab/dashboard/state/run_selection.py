"""Which runs a page shows: the choice that the pages Train, Runs and Talk share, and its place in the URL."""

from collections import Counter
from pathlib import Path

import streamlit as st

from lab.dashboard.state.run_cache import Snapshot
from lab.dashboard.state.shipped_runs import SHIPPED_RUNS_FOLDER
from lab.figures.run_curves import RunCurves, run_labels
from lab.runs.catalogue import list_runs, newest_first

SHIPPED_PREFIX = "recorded:"  # of the name of a run that the lab ships

MAX_SHOWN_RUNS = 8


def read_run_names(runs: dict[str, Path]) -> None:
    """Read the names of the shown runs from the URL (?run=a&run=b or ?run=a,b) if the URL was changed
    from outside or another page was visited; add the runs that were just started. Names that are
    not in `runs` are ignored.
    """
    names_in_url = [name for value in st.query_params.get_all("run") for name in value.split(",")]
    if names_in_url != st.session_state.get("url", []) or "run" not in st.session_state:
        st.session_state["url"] = st.session_state["run"] = names_in_url
    names = st.session_state.get("run", []) + st.session_state.pop("add", [])
    st.session_state["run"] = [name for name in dict.fromkeys(names) if name in runs][
        -MAX_SHOWN_RUNS:
    ]


def available_runs(root: Path) -> dict[str, Path]:
    """Every run that can be shown, by name: the runs of the folder `root`, newest first, then the
    shipped runs.
    """
    user_runs = newest_first(list_runs(root))
    shipped_runs = list_runs(SHIPPED_RUNS_FOLDER) if SHIPPED_RUNS_FOLDER.is_dir() else []
    return {run.path.name: run.path for run in user_runs} | {
        SHIPPED_PREFIX + run.path.name: run.path for run in shipped_runs
    }


def run_picker(runs: dict[str, Path]) -> list[str]:
    """A widget that picks the shown runs; returns their names and writes them into the URL."""
    names = st.multiselect(
        "Runs shown",
        list(runs),
        key="run",
        max_selections=MAX_SHOWN_RUNS,
        label_visibility="collapsed",
        format_func=display_name,
        placeholder=f"Pick up to {MAX_SHOWN_RUNS} runs to look at or to compare",
    )
    if names != st.session_state.get("url", []):
        st.query_params["run"] = st.session_state["url"] = names
    return names


def display_name(name: str) -> str:
    """A run's name as a page shows it: "grpo (recorded)" for a run that the lab ships."""
    return (
        f"{name.removeprefix(SHIPPED_PREFIX)} (recorded)"
        if name.startswith(SHIPPED_PREFIX)
        else name
    )


def snapshot_curves(snapshots: dict[str, Snapshot], along: str = "step") -> list[RunCurves]:
    """The curves of the snapshots, against step, tokens or seconds (`along`). Runs of one method are
    numbered, so that their lines differ.
    """
    labels = run_labels({name: s.started for name, s in snapshots.items()})
    runs_of_method: Counter[str] = Counter()
    curves = []
    for name, s in snapshots.items():
        method = s.config["method"]
        label = labels[name].removeprefix(SHIPPED_PREFIX) + (
            " (recorded)" if name.startswith(SHIPPED_PREFIX) else ""
        )
        curves.append(
            RunCurves(
                name,
                method,
                label,
                s.columns,
                s.events,
                runs_of_method[method],
                s.config["steps"],
                s.clock.get(along),
            )
        )
        runs_of_method[method] += 1
    return curves
