"""The form that starts runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import streamlit as st

from lab.config.json_format import to_dict
from lab.config.methods import METHODS, make_config
from lab.config.presets import RUN_PRESETS, Preset
from lab.config.run_config import OfflineConfig
from lab.config.sweep import VALUES, sweep_runs, sweepable
from lab.dashboard.components import text
from lab.dashboard.components.config_widgets import FIRST, declared, knob_widget, label
from lab.dashboard.components.layout import plain
from lab.dashboard.pages.train.upload import upload
from lab.dashboard.state import actions, error_text
from lab.dashboard.state.url import FIRST_METHOD, MOST_SEEDS, fill, write_form
from lab.errors import LabError
from lab.runs.queue import free

SHOWN_AT_ONCE = 8  # runs overlaid


def setup(root: Path) -> None:
    """Experiments, method, knobs and Start; starting adds the new runs to the shown ones and runs
    the page again.
    """
    st.session_state.setdefault("method", FIRST_METHOD)
    experiments(root)
    method = st.segmented_control(
        "Method",
        list(METHODS),
        format_func=text.title,
        required=True,
        key="method",
        persist_state="page",
        width="stretch",
    )
    knobs = first_knobs(method)
    row = st.container(horizontal=True, vertical_alignment="bottom", gap="medium")
    with row:
        over = several(method)
        more = st.toggle("All other knobs", key="all-knobs", persist_state="page")
        st.button(
            "Defaults",
            type="tertiary",
            key="defaults",
            on_click=fill,
            args=(method, {}),
            help="Set every knob of this method back.",
        )
    if more:
        other_knobs(root, method, knobs)
    else:
        knobs |= {
            name: st.session_state[f"{method}.{name}"]
            for name in declared(method)
            if name not in knobs and f"{method}.{name}" in st.session_state
        }
    try:
        config = to_dict(make_config(method, knobs))
        made = runs_of(method, knobs, over)
    except LabError as error:
        st.error(plain(str(error)))
        return
    write_form(config, *over)
    go(root, method, config, made)


def experiments(root: Path) -> None:
    """A button for every preset: one click fills the form and starts it."""
    st.markdown("**Experiments, one click each**")
    with st.container(horizontal=True, gap="small", key="experiments"):
        for preset in RUN_PRESETS:
            if st.button(
                f"{text.mark(preset.method)} {preset.name}",
                key=f"preset.{preset.name}",
                help=preset.shows,
            ):
                fill(preset.method, preset.knobs)
                start(root, preset.method, [dict(preset.knobs)])


def preset_of(config: Mapping[str, Any]) -> Preset | None:
    """The preset that a run was started from, whatever its seed."""
    return next(
        (
            p
            for p in RUN_PRESETS
            if to_dict(make_config(p.method, p.knobs)) | {"seed": 0} == dict(config) | {"seed": 0}
        ),
        None,
    )


def first_knobs(method: str) -> dict[str, Any]:
    """The knobs that the page is about, in one row; returns their values."""
    fields, knobs = declared(method), {}
    batch_size = st.session_state.get(f"{method}.batch_size", fields["batch_size"].default)
    first = [name for name in FIRST if name in fields]
    widths = [3 if fields[name].log or name == "group_size" else 2 for name in first]
    for name, place in zip(first, st.columns(widths, vertical_alignment="bottom")):
        with place:
            knobs[name] = knob_widget(method, fields[name], batch_size)
    return knobs


def other_knobs(root: Path, method: str, knobs: dict[str, Any]) -> None:
    """Every other knob, and for methods that learn from a file a place for the user's own; adds the
    values to `knobs`.
    """
    if isinstance(make_config(method), OfflineConfig):
        upload(root, method)
    grid = st.columns(4)
    for at, (name, field) in enumerate(
        (n, f) for n, f in declared(method).items() if n not in FIRST
    ):
        with grid[at % 4]:
            knobs[name] = knob_widget(method, field)


def several(method: str) -> tuple[int, str | None, str]:
    """Seeds, the knob of a sweep if there is to be one, and its values as text."""
    seeds = st.number_input(
        "seeds",
        1,
        MOST_SEEDS,
        key="seeds",
        persist_state="page",
        width=110,
        help="Runs of each setting, alike but for their seed.",
    )
    options = [name for name in FIRST if name in sweepable(method)]
    if st.session_state.get("sweep") not in options:
        st.session_state["sweep"] = None
    knob = st.pills(
        "Sweep over",
        options,
        format_func=label,
        key="sweep",
        persist_state="page",
        help="One run for each of several values, every other knob alike.",
    )
    values = ""
    if knob:
        st.session_state.setdefault(f"values of {knob}", VALUES[knob])
        values = st.text_input(
            f"values of {label(knob)}",
            key=f"values of {knob}",
            persist_state="page",
            width=240,
            max_chars=200,
        )
    return int(seeds), knob, values


def runs_of(
    method: str, knobs: Mapping[str, Any], over: tuple[int, str | None, str]
) -> list[dict[str, Any]]:
    """The knobs of every run that the form asks for."""
    seeds, knob, values = over
    if knob:
        return sweep_runs(method, knobs, knob, values, seeds)
    return [dict(knobs) | {"seed": knobs.get("seed", 0) + i} for i in range(seeds)]


def go(root: Path, method: str, config: Mapping[str, Any], made: list[dict[str, Any]]) -> None:
    """Start, how many runs that is, and the formula with the numbers of the form."""
    row = st.container(horizontal=True, vertical_alignment="center", gap="medium")
    pressed = row.button("Start", type="primary", key="start", width=140)
    if len(made) > 1:
        now = min(free(root), len(made))
        row.caption(
            f"{len(made)} runs; {now} start now, {len(made) - now} wait for a free core.",
            width="content",
        )
    with st.container(
        key="formula-new", horizontal=True, vertical_alignment="center", gap="medium"
    ):
        for part in text.formula(method, config):
            st.latex(part, width="content")
    preset = preset_of(config)
    st.caption(preset.shows if preset else METHODS[method].summary)
    if pressed:
        start(root, method, made)


def start(root: Path, method: str, made: list[dict[str, Any]]) -> None:
    """Put the runs into the queue, which starts as many as fit, and show the first of them."""
    try:
        names = actions.start(root, method, made)
    except (LabError, OSError) as error:
        st.error(plain(error_text.error(str(error), made[0])))
        return
    st.session_state["add"], st.session_state["setup"] = names[:SHOWN_AT_ONCE], False
    if len(names) > SHOWN_AT_ONCE:
        st.session_state["notice"] = (
            f"{len(names)} runs are on their way. Here are the first {SHOWN_AT_ONCE}; the page Runs"
            " has them all."
        )
    st.rerun()
