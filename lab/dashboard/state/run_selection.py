"""Which runs a page shows: the choice that the pages Train, Runs and Talk share, and its place in the URL."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import streamlit as st

from lab.dashboard.state.run_cache import Snapshot, run_record
from lab.dashboard.state.shipped_runs import EARLIER_NAMES, SHIPPED_RUNS_FOLDER, SHIPPED_TITLES
from lab.figures.run_curves import RunCurves, run_labels
from lab.figures.sweep_style import sweep_places
from lab.runs.catalogue import list_runs, newest_first

SHIPPED_PREFIX = "recorded:"  # of the name of a run that the lab ships

MAX_SHOWN_RUNS = 8


def read_run_names(runs: dict[str, Path]) -> None:
    """Read the names of the shown runs from the URL (?run=a&run=b or ?run=a,b) if the URL was changed
    from outside or another page was visited; add the runs that were just started. Names that are
    not in `runs` are ignored.
    """
    names_in_url = [
        _present_name(name) for value in st.query_params.get_all("run") for name in value.split(",")
    ]
    if names_in_url != st.session_state.get("url", []) or "run" not in st.session_state:
        st.session_state["url"] = st.session_state["run"] = names_in_url
    names = st.session_state.get("run", []) + st.session_state.pop("add", [])
    st.session_state["run"] = [name for name in dict.fromkeys(names) if name in runs][
        -MAX_SHOWN_RUNS:
    ]


def _present_name(name: str) -> str:
    """The name of a run whose folder had another name when the address was written."""
    folder = name.removeprefix(SHIPPED_PREFIX)
    return SHIPPED_PREFIX + EARLIER_NAMES.get(folder, folder) if folder != name else name


def available_runs(root: Path) -> dict[str, Path]:
    """Every run that can be shown, by name: the runs of the folder `root`, newest first, then the
    shipped runs.
    """
    user_runs = newest_first(list_runs(root))
    shipped_runs = list_runs(SHIPPED_RUNS_FOLDER) if SHIPPED_RUNS_FOLDER.is_dir() else []
    return {run.path.name: run.path for run in user_runs} | {
        SHIPPED_PREFIX + run.path.name: run.path for run in shipped_runs
    }


def sweep_labels(configs: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """By name, the value of every shown run if they are a sweep, such as "β 0.2"; empty otherwise."""
    return {name: place.text for name, place in sweep_places(configs).items()}


def run_picker(runs: dict[str, Path]) -> list[str]:
    """A widget that picks the shown runs; returns their names and writes them into the URL."""
    shown = [name for name in st.session_state["run"] if name in runs]
    labels = sweep_labels({name: run_record(str(runs[name])).snapshot().started for name in shown})
    names = st.multiselect(
        "Runs shown",
        list(runs),
        key="run",
        max_selections=MAX_SHOWN_RUNS,
        label_visibility="collapsed",
        format_func=lambda name: labels.get(name) or display_name(name),
        placeholder=f"Pick up to {MAX_SHOWN_RUNS} runs to look at or to compare",
    )
    if names != st.session_state.get("url", []):
        st.query_params["run"] = st.session_state["url"] = names
    return names


def display_name(name: str) -> str:
    """A run's name as a page shows it: "grpo (recorded)" for a run that the lab ships, and the title
    of its preset, if it has one, in place of its folder's name.
    """
    if not name.startswith(SHIPPED_PREFIX):
        return name
    folder = name.removeprefix(SHIPPED_PREFIX)
    return f"{SHIPPED_TITLES.get(folder, folder)} (recorded)"


def snapshot_curves(snapshots: dict[str, Snapshot], along: str = "step") -> list[RunCurves]:
    """The curves of the snapshots, against step, tokens or seconds (`along`). Runs of one method are
    numbered, so that their lines differ; the runs of a sweep have the colours of their values.
    """
    configs = {name: s.started for name, s in snapshots.items()}
    labels, places = run_labels(configs), sweep_places(configs)
    runs_of_style: Counter[tuple[str, str]] = Counter()
    curves = []
    for name, s in snapshots.items():
        label, place = labels[name], places.get(name)
        if name.startswith(SHIPPED_PREFIX):
            folder = name.removeprefix(SHIPPED_PREFIX)
            label = f"{SHIPPED_TITLES.get(folder) or label.removeprefix(SHIPPED_PREFIX)} (recorded)"
        style = s.config["method"], place.colour if place else ""
        curves.append(
            RunCurves(
                name,
                s.config["method"],
                f"{place.text} ({display_name(name)})" if place else label,
                s.columns,
                s.events,
                runs_of_style[style],
                s.config["steps"],
                s.clock.get(along),
                style[1],
                place.text.partition(",")[0] if place else "",
            )
        )
        runs_of_style[style] += 1
    return curves
