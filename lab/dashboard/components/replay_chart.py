"""Curves with a slider over the steps; the browser draws the curves up to the slider's step."""

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
    """Draw the curves of `runs` up to a step and return the step, which is in the URL unless it is the
    last one.

    `bands`: by run name, the traces that lie under the run's curves. `alt` describes the figure for
    screen readers.
    """
    end = max(s.step for s in snapshots.values())
    step = st.session_state.get("replay", parse_step(st.query_params.get("step", "")))
    step = end if step is None else min(step, end)
    if step < end:
        st.query_params["step"] = str(step)
    elif "step" in st.query_params:
        del st.query_params["step"]
    data = live_chart.payload(runs, snapshots, panels, alt)
    for run in data["runs"]:
        if run_bands := bands.get(run["name"]):
            band_traces = ",".join(map(json.dumps, run_bands))
            run["traces"] = f"[{band_traces},{run['traces'][1:]}"
    live_chart.live_chart_element(
        key="replay-curves",
        data=data | {"replay": {"until": step, "end": end}},
        on_until_change=keep_replay_step,
    )
    return step


def keep_replay_step() -> None:
    """Callback: store the step that the browser reports; None if the report is not a step."""
    st.session_state["replay"] = parse_step(str(st.session_state["replay-curves"].get("until")))


def parse_step(text: str) -> int | None:
    """The whole number in `text` if it has at most nine digits, None for any other text."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None
