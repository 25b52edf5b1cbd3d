"""The form that starts runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import streamlit as st

from lab.config.methods import OfflineConfig, make_config, to_dict
from lab.config.presets import PRESETS, Preset
from lab.config.sweep import VALUES, sweep, sweepable
from lab.dashboard.components import loss_formula, text
from lab.dashboard.components.config_widgets import MAIN_KNOBS, knob_fields, knob_label, knob_widget
from lab.dashboard.components.layout import escape_markdown
from lab.dashboard.pages.train.upload import upload_widget
from lab.dashboard.state import actions, error_text
from lab.dashboard.state.url import DEFAULT_METHOD, MAX_SEEDS_IN_FORM, fill_form, write_form
from lab.errors import LabError
from lab.runs.queue import free_slots

METHODS_IN_FORM = ("dpo", "ipo", "kto", "online_dpo", "grpo", "ppo", "sft", "reward_model")
MAX_OVERLAID_RUNS = 8  # runs overlaid


def new_run_form(root: Path) -> None:
    """Experiments, method, knobs and Start; starting adds the new runs to the shown ones and runs
    the page again.
    """
    st.session_state.setdefault("method", DEFAULT_METHOD)
    preset_buttons(root)
    method = st.segmented_control(
        "Method",
        METHODS_IN_FORM,
        format_func=text.method_title,
        required=True,
        key="method",
        persist_state="page",
        width="stretch",
    )
    knobs = main_knobs_row(method)
    row = st.container(horizontal=True, vertical_alignment="bottom", gap="medium")
    with row:
        over = seeds_and_sweep(method)
        more = st.toggle("All other knobs", key="all-knobs", persist_state="page")
        st.button(
            "Defaults",
            type="tertiary",
            key="defaults",
            on_click=fill_form,
            args=(method, {}),
            help="Set every knob of this method back.",
        )
    if more:
        other_knobs_grid(root, method, knobs)
    else:
        knobs |= {
            name: st.session_state[f"{method}.{name}"]
            for name in knob_fields(method)
            if name not in knobs and f"{method}.{name}" in st.session_state
        }
    try:
        config = to_dict(make_config(method, knobs))
        made = requested_runs(method, knobs, over)
    except LabError as error:
        st.error(escape_markdown(str(error)))
        return
    write_form(config, *over)
    start_row(root, method, config, made)


def preset_buttons(root: Path) -> None:
    """A button for every preset: one click fills the form and starts it."""
    st.markdown("**Experiments, one click each**")
    with st.container(horizontal=True, gap="small", key="experiments"):
        for preset in PRESETS:
            if st.button(
                f"{text.method_dot(preset.method)} {preset.name}",
                key=f"preset.{preset.name}",
                help=preset.shows,
            ):
                fill_form(preset.method, preset.knobs)
                start_and_show(root, preset.method, [dict(preset.knobs)])


def preset_of(config: Mapping[str, Any]) -> Preset | None:
    """The preset that a run was started from, whatever its seed."""
    return next(
        (
            p
            for p in PRESETS
            if to_dict(make_config(p.method, p.knobs)) | {"seed": 0} == dict(config) | {"seed": 0}
        ),
        None,
    )


def main_knobs_row(method: str) -> dict[str, Any]:
    """The knobs that the page is about, in one row; returns their values."""
    fields, knobs = knob_fields(method), {}
    batch_size = st.session_state.get(f"{method}.batch_size", fields["batch_size"].default)
    first = [name for name in MAIN_KNOBS if name in fields]
    widths = [3 if fields[name].metadata["log"] or name == "group_size" else 2 for name in first]
    for name, place in zip(first, st.columns(widths, vertical_alignment="bottom")):
        with place:
            knobs[name] = knob_widget(method, fields[name], batch_size)
    return knobs


def other_knobs_grid(root: Path, method: str, knobs: dict[str, Any]) -> None:
    """Every other knob, and for methods that learn from a file a place for the user's own; adds the
    values to `knobs`.
    """
    if isinstance(make_config(method), OfflineConfig):
        upload_widget(root, method)
    grid = st.columns(4)
    for at, (name, field) in enumerate(
        (n, f) for n, f in knob_fields(method).items() if n not in MAIN_KNOBS
    ):
        with grid[at % 4]:
            knobs[name] = knob_widget(method, field)


def seeds_and_sweep(method: str) -> tuple[int, str | None, str]:
    """Seeds, the knob of a sweep if there is to be one, and its values as text."""
    seeds = st.number_input(
        "seeds",
        1,
        MAX_SEEDS_IN_FORM,
        key="seeds",
        persist_state="page",
        width=110,
        help="Runs of each setting, alike but for their seed.",
    )
    options = [name for name in MAIN_KNOBS if name in sweepable(method)]
    if st.session_state.get("sweep") not in options:
        st.session_state["sweep"] = None
    knob = st.pills(
        "Sweep over",
        options,
        format_func=knob_label,
        key="sweep",
        persist_state="page",
        help="One run for each of several values, every other knob alike.",
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
    method: str, knobs: Mapping[str, Any], over: tuple[int, str | None, str]
) -> list[dict[str, Any]]:
    """The knobs of every run that the form asks for."""
    seeds, knob, values = over
    if knob:
        return sweep(method, knobs, knob, values, seeds)
    return [dict(knobs) | {"seed": knobs.get("seed", 0) + i} for i in range(seeds)]


def start_row(
    root: Path, method: str, config: Mapping[str, Any], made: list[dict[str, Any]]
) -> None:
    """Start, how many runs that is, and the formula with the numbers of the form."""
    row = st.container(horizontal=True, vertical_alignment="center", gap="medium")
    pressed = row.button("Start", type="primary", key="start", width=140)
    if len(made) > 1:
        now = min(free_slots(root), len(made))
        row.caption(
            f"{len(made)} runs; {now} start now, {len(made) - now} wait for a free core.",
            width="content",
        )
    with st.container(
        key="formula-new", horizontal=True, vertical_alignment="center", gap="medium"
    ):
        for part in loss_formula.loss_formula(method, config):
            st.latex(part, width="content")
    preset = preset_of(config)
    st.caption(preset.shows if preset else text.METHOD_SUMMARIES[method])
    if pressed:
        start_and_show(root, method, made)


def start_and_show(root: Path, method: str, made: list[dict[str, Any]]) -> None:
    """Put the runs into the queue, which starts as many as fit, and show the first of them."""
    try:
        names = actions.start_runs(root, method, made)
    except (LabError, OSError) as error:
        st.error(escape_markdown(error_text.visible_error(str(error), made[0])))
        return
    st.session_state["add"], st.session_state["setup"] = names[:MAX_OVERLAID_RUNS], False
    if len(names) > MAX_OVERLAID_RUNS:
        st.session_state["notice"] = (
            f"{len(names)} runs are on their way. Here are the first {MAX_OVERLAID_RUNS}; the page Runs has them all."
        )
    st.rerun()
