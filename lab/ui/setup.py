"""The form that starts runs."""

import os
from pathlib import Path
from typing import Any

import streamlit as st

from lab.config import make_config, to_dict
from lab.errors import LabError
from lab.presets import PRESETS
from lab.runs import launch, list_runs
from lab.ui import words
from lab.ui.knobs import FIRST, declared, knob_widget
from lab.ui.records import ACTIVE

METHODS = ("dpo", "ipo", "kto", "online_dpo", "grpo", "ppo", "sft", "reward_model")


def setup(root: Path) -> None:
    """Method, knobs and Start; starting adds the new runs to the shown ones and runs the page again."""
    st.session_state.setdefault("method", "grpo")
    left, right = st.columns([4, 1], vertical_alignment="bottom")
    method = left.segmented_control("Method", METHODS, format_func=words.title, required=True, key="method", persist_state="page", width="stretch",
                                    on_change=forget_preset)
    preset = right.selectbox("Preset", PRESETS, format_func=lambda preset: preset.name, index=None, placeholder="Defaults", key="preset",
                             on_change=apply_preset, help="Settings that work and settings that fail, each with what to look for.")
    st.caption(preset.shows if preset else words.ONE_LINE[method])
    fields = declared(method)
    batch_size = st.session_state.get(f"{method}.batch_size", fields["batch_size"].default)
    knobs: dict[str, Any] = {}
    first = [name for name in FIRST if name in fields]
    places = st.columns([*[3 if fields[name].metadata["log"] or name == "group_size" else 2 for name in first], 2], vertical_alignment="bottom")
    for name, place in zip(first, places):
        with place:
            knobs[name] = knob_widget(method, fields[name], batch_size)
    seeds = places[-1].number_input("seeds", 1, 8, 1, key="seeds", persist_state="page", help="How many runs to start, alike but for their seed.")
    row = st.container(horizontal=True, vertical_alignment="center", gap="medium")
    pressed = row.button("Start", type="primary", key="start", width=140)
    more = row.toggle("All other knobs", key="more", persist_state="page")
    if more:
        grid = st.columns(4)
        for at, name in enumerate(n for n in fields if n not in first):
            with grid[at % 4]:
                knobs[name] = knob_widget(method, fields[name])
    else:
        knobs |= {name: st.session_state[f"{method}.{name}"] for name in fields if name not in first and f"{method}.{name}" in st.session_state}
    try:
        config = to_dict(make_config(method, knobs))
    except LabError as error:
        st.error(str(error))
        return
    with row.container(key="formula-new", horizontal=True, horizontal_alignment="center", vertical_alignment="center", gap="medium"):
        for part in words.formula(method, config):
            st.latex(part, width="content")
    if pressed:
        start(root, method, config, int(seeds))


def forget_preset() -> None:
    """Callback: another method was picked, so the preset's words no longer apply."""
    st.session_state["preset"] = None


def apply_preset() -> None:
    """Callback: fill the form with the preset's method and knobs, or with defaults when the preset was taken away."""
    preset = st.session_state["preset"]
    if preset:
        st.session_state["method"] = preset.method
    method, knobs = st.session_state["method"], preset.knobs if preset else {}
    for name, field in declared(method).items():
        st.session_state[f"{method}.{name}"] = knobs.get(name, field.default)


def start(root: Path, method: str, config: dict[str, Any], seeds: int) -> None:
    """Launch one run per seed, as many as there are cores free, and show them."""
    cores = os.cpu_count() or 1
    busy = sum(run.state in ACTIVE for run in list_runs(root))
    allowed = min(seeds, cores - busy)
    if allowed < 1:
        st.warning(f"{busy} runs are training and this machine has {cores} cores: another run would slow them all down. "
                   "Stop one, or wait until one has finished.")
        return
    started = []
    knobs = {k: v for k, v in config.items() if k != "method"}
    try:
        for i in range(allowed):
            started.append(launch(method, knobs | {"seed": knobs["seed"] + i}, free_name(root, method), root).path.name)
    except LabError as error:
        st.session_state["notice"] = str(error)
    if started and allowed < seeds:
        st.session_state["notice"] = (f"Started {allowed} of {seeds} seeds: this machine has {cores} cores, and a run takes one. "
                                      "Start the others when these have ended.")
    st.session_state["add"] = started
    st.session_state["setup"] = not started
    st.rerun()


def free_name(root: Path, method: str) -> str:
    """The first of METHOD-1, METHOD-2, … that no folder has."""
    number = 1
    while (root / f"{method}-{number}").exists():
        number += 1
    return f"{method}-{number}"
