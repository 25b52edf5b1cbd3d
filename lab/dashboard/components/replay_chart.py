"""Curves with a slider over the steps: the browser draws them up to where it stands."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from lab.dashboard.components import live_chart
from lab.dashboard.state.run_cache import Snapshot
from lab.figures.run_curves import RunCurves


def replay_curves(
    runs: Sequence[RunCurves],
    snapshots: Mapping[str, Snapshot],
    panels: Sequence[str],
    alt: str,
    bands: Mapping[str, Sequence[dict[str, Any]]],
) -> int:
    """Draw the curves of `runs` up to a step; returns the step, which is in the URL unless it is
    the last.

    `bands` are traces by the name of the run that they lie under; `alt` is what a screen reader
    says of the whole.
    """
    end = max(s.step for s in snapshots.values())
    step = st.session_state.get("replay", parse_step(st.query_params.get("step", "")))
    step = end if step is None else min(step, end)
    if step < end:
        st.query_params["step"] = str(step)
    elif "step" in st.query_params:
        del st.query_params["step"]
    data = live_chart.payload(runs, snapshots, panels, alt)
    for sent in data["runs"]:
        sent["traces"] = (
            ",".join(["[" + ",".join(map(json.dumps, bands[sent["name"]])), sent["traces"][1:]])
            if bands.get(sent["name"])
            else sent["traces"]
        )
    live_chart.live_chart_element(
        key="replay-curves",
        data=data | {"replay": {"until": step, "end": end}},
        on_until_change=keep_replay_step,
    )
    return step


def keep_replay_step() -> None:
    """Callback: keep the step that the browser reports, if it is one."""
    st.session_state["replay"] = parse_step(str(st.session_state["replay-curves"].get("until")))


def parse_step(text: str) -> int | None:
    """A whole number of at most nine digits, None for anything else."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None
