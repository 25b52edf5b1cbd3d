"""The form that starts runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import streamlit as st

from lab.config.json_format import to_dict
from lab.config.methods import METHODS, make_config
from lab.config.run_config import OfflineConfig
from lab.config.sweep import VALUES, sweep_runs, sweepable
from lab.dashboard.components import text
from lab.dashboard.components.config_widgets import (
    MAIN_KNOBS,
    full_range_toggle,
    knob_fields,
    knob_label,
    knob_widget,
)
from lab.dashboard.components.layout import escape_markdown
from lab.dashboard.pages.train.experiment_cards import experiment_cards, preset_of
from lab.dashboard.pages.train.upload import upload_widget
from lab.dashboard.state import actions, error_text
from lab.dashboard.state.run_selection import MAX_SHOWN_RUNS
from lab.dashboard.state.url import DEFAULT_METHOD, MAX_SEEDS_IN_FORM, fill_form, write_form
from lab.errors import LabError
from lab.runs.queue import free_slots


def new_run_form(root: Path) -> None:
    """Show presets, method, knobs and the Start button. Start adds the new runs to the shown runs and
    reruns the page.
    """
    st.session_state.setdefault("method", DEFAULT_METHOD)
    experiment_cards()
    method = st.segmented_control(
        "Method",
        tuple(METHODS),
        format_func=text.method_title,
        required=True,
        key="method",
        persist_state="page",
        width="stretch",
    )
    if method is None:  # Before the browser has answered, the first method is shown.
        method = DEFAULT_METHOD
    knobs = main_knobs_row(method)
    row = st.container(horizontal=True, vertical_alignment="bottom", gap="medium")
    with row:
        seeds, sweep_knob, sweep_values = seeds_and_sweep(method)
        full_range_toggle("full-range")
        show_all = st.toggle("All other settings", key="all-knobs", persist_state="page")
        st.button(
            "Defaults",
            type="tertiary",
            key="defaults",
            on_click=fill_form,
            args=(method, {}),
            help="Set all settings of this method back to their defaults.",
        )
    if show_all:
        other_knobs_grid(root, method, knobs)
    else:
        knobs |= {
            name: st.session_state[f"{method}.{name}"]
            for name in knob_fields(method)
            if name not in knobs and f"{method}.{name}" in st.session_state
        }
    try:
        config = to_dict(make_config(method, knobs))
        run_knobs = requested_runs(method, knobs, seeds, sweep_knob, sweep_values)
    except LabError as error:
        st.error(escape_markdown(str(error)))
        return
    write_form(config, seeds, sweep_knob, sweep_values)
    start_row(root, method, config, run_knobs)


def main_knobs_row(method: str) -> dict[str, Any]:
    """Show the main knobs in one row; returns their values."""
    fields, knobs = knob_fields(method), {}
    batch_size = st.session_state.get(f"{method}.batch_size", fields["batch_size"].default)
    names = [name for name in MAIN_KNOBS if name in fields]
    widths = [3 if fields[name].log or name == "group_size" else 2 for name in names]
    for name, column in zip(names, st.columns(widths, vertical_alignment="bottom")):
        with column:
            knobs[name] = knob_widget(
                method, fields[name], batch_size, st.session_state.get("full-range", False)
            )
    return knobs


def other_knobs_grid(root: Path, method: str, knobs: dict[str, Any]) -> None:
    """Show all other knobs and, for methods that learn from a file, an upload field; adds the values
    to `knobs`.
    """
    if isinstance(make_config(method), OfflineConfig):
        upload_widget(root, method)
    grid = st.columns(4)
    for at, (name, field) in enumerate(
        (n, f) for n, f in knob_fields(method).items() if n not in MAIN_KNOBS
    ):
        with grid[at % 4]:
            knobs[name] = knob_widget(
                method, field, full_range=st.session_state.get("full-range", False)
            )


def seeds_and_sweep(method: str) -> tuple[int, str | None, str]:
    """Show the fields for seeds and sweep; returns the number of seeds, the knob of the sweep (None
    without a sweep) and its values as text.
    """
    seeds = st.number_input(
        "seeds",
        1,
        MAX_SEEDS_IN_FORM,
        key="seeds",
        persist_state="page",
        width=110,
        help="Number of runs that differ only in their seed, the number that fixes all random choices.",
    )
    options = [name for name in MAIN_KNOBS if name in sweepable(method)]
    if st.session_state.get("sweep") not in options:
        st.session_state["sweep"] = None
    knob = st.pills(
        "Several values of",
        options,
        format_func=knob_label,
        key="sweep",
        persist_state="page",
        help="Starts one run for each value. All other settings stay the same.",
    )
    values = ""
    if knob:
        st.session_state.setdefault(f"values of {knob}", VALUES[knob])
        values = st.text_input(
            f"values of {knob_label(knob)}",
            key=f"values of {knob}",
            persist_state="page",
            width=240,
            max_chars=200,
        )
    return int(seeds), knob, values


def requested_runs(
    method: str, knobs: Mapping[str, Any], seeds: int, sweep_knob: str | None, sweep_values: str
) -> list[dict[str, Any]]:
    """The knobs of every run that the form asks for: one run per seed and value of the sweep."""
    if sweep_knob:
        return sweep_runs(method, knobs, sweep_knob, sweep_values, seeds)
    return [dict(knobs) | {"seed": knobs.get("seed", 0) + i} for i in range(seeds)]


def start_row(
    root: Path, method: str, config: Mapping[str, Any], run_knobs: list[dict[str, Any]]
) -> None:
    """Show the Start button, the number of runs, and the loss with the numbers of the form."""
    row = st.container(horizontal=True, vertical_alignment="center", gap="medium")
    pressed = row.button("Start", type="primary", key="start", width=140)
    if len(run_knobs) > 1:
        num_now = min(free_slots(root), len(run_knobs))
        row.caption(
            f"{len(run_knobs)} runs: {num_now} start now, {len(run_knobs) - num_now} wait for a free CPU core.",
            width="content",
        )
    with st.container(
        key="formula-new", horizontal=True, vertical_alignment="center", gap="medium"
    ):
        for formula in METHODS[method].formula(config):
            st.latex(formula, width="content")
    preset = preset_of(config)
    st.caption(preset.shows if preset else METHODS[method].summary)
    if pressed:
        start_and_show(root, method, run_knobs)


def start_and_show(root: Path, method: str, run_knobs: list[dict[str, Any]]) -> None:
    """Put runs into the queue, which starts as many as the cores allow, and show the first of them."""
    try:
        names = actions.start_runs(root, method, run_knobs)
    except (LabError, OSError) as error:
        st.error(escape_markdown(error_text.visible_error(str(error), run_knobs[0])))
        return
    st.session_state["add"], st.session_state["setup"] = names[:MAX_SHOWN_RUNS], False
    if len(names) > MAX_SHOWN_RUNS:
        st.session_state["notice"] = (
            f"{len(names)} runs start or wait. This page shows the first {MAX_SHOWN_RUNS}; the page Runs shows all."
        )
    st.rerun()
