"""Page Train: start runs, watch them, and change them while they train."""

from collections.abc import Mapping
from pathlib import Path

import streamlit as st

from lab.analysis.diagnose import diagnose
from lab.config.methods import METHODS
from lab.dashboard.components import text as words
from lab.dashboard.components.damaged_runs import damaged_runs_warning
from lab.dashboard.components.layout import escape_markdown, page_heading, page_link
from lab.dashboard.components.live_chart import live_curves
from lab.dashboard.components.quiz import quiz
from lab.dashboard.components.sample_table import sample_tables
from lab.dashboard.components.share_button import share_button
from lab.dashboard.pages.train.details import details
from lab.dashboard.pages.train.experiment_cards import preset_of
from lab.dashboard.pages.train.live_controls import live_controls, resume_button
from lab.dashboard.pages.train.new_run_form import new_run_form
from lab.dashboard.pages.train.queue_banner import cancel_button, queue_banner
from lab.dashboard.state import actions, error_text
from lab.dashboard.state.run_cache import RunRecord, Snapshot, run_record
from lab.dashboard.state.run_selection import (
    SHIPPED_PREFIX,
    available_runs,
    display_name,
    read_run_names,
    run_picker,
    snapshot_curves,
    sweep_labels,
)
from lab.dashboard.state.shipped_runs import shipped_run
from lab.dashboard.state.url import read_form, write_form
from lab.figures.panel_layout import X_AXIS_TITLES
from lab.figures.run_curves import default_panels
from lab.runs.states import ACTIVE_STATES, WAITING_STATES, RunState
from lab.storage.paths import runs_root

# Between two reads of the run folders. A training run needs the cores more than the page does.
REFRESH_SECONDS = 1.0
SMOOTHING_WEIGHTS = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98)


def page() -> None:
    """Show the page."""
    root = runs_root()
    page_heading(words.QUESTION, words.SENTENCE, words.WORDS)
    read_form()
    runs = available_runs(root)
    read_run_names(runs)
    names: list[str] = []
    refusal = actions.refusal()
    if runs:
        left, right = st.columns([6, 1], vertical_alignment="center")
        with left:
            names = run_picker(runs)
        right.button(
            "New run",
            key="new",
            width="stretch",
            on_click=toggle_setup,
            disabled=not names or bool(refusal),
            help=refusal or None,
        )
    is_form_open = not refusal and bool(not names or st.session_state.get("setup"))
    if is_form_open:
        with st.container(border=True, key="setup-form"):
            new_run_form(root)
    else:
        write_form(None)
    queue_banner(root)
    damaged_runs_warning(root)
    if notice := st.session_state.pop("notice", ""):
        st.info(notice)
    if not names:
        names = example_run(runs)
        st.markdown(
            (
                f"No run is selected. {refusal}"
                if refusal
                else (
                    "You have not selected a run. Press **Start**: a run starts on this computer,"
                    " and its curves appear here."
                )
            )
            + (" Until then, the page shows a recorded run." if names else "")
        )
    if names:
        records = {name: run_record(str(runs[name])) for name in names}
        training = any(r.state() in ACTIVE_STATES + WAITING_STATES for r in records.values())
        st.fragment(live_view, run_every=REFRESH_SECONDS if training else None)(
            root, records, training, not is_form_open
        )
        page_link("runs", "Runs", "Compare, replay and download on the page Runs", run=names)
        details(
            root, {name.removeprefix(SHIPPED_PREFIX): r.snapshot() for name, r in records.items()}
        )


def toggle_setup() -> None:
    """Callback: open or close the form for a new run."""
    st.session_state["setup"] = not st.session_state.get("setup", False)


def example_run(runs: dict[str, Path]) -> list[str]:
    """The name of the shipped GRPO run, which learns to think, in a list; empty if it is not in
    `runs`. It is shown until the user has a run.
    """
    run = shipped_run("grpo")
    return [SHIPPED_PREFIX + run.name] if run and SHIPPED_PREFIX + run.name in runs else []


def live_view(
    root: Path, records: dict[str, RunRecord], training: bool, is_described: bool
) -> None:
    """Show the part of the page that changes while a run trains. It refreshes every second until
    every shown run has ended. The loss with the run's numbers and the text of its preset stand in it
    unless the form, which shows both too, is open.
    """
    states = {name: r.state() for name, r in records.items()}
    if training and not any(state in ACTIVE_STATES + WAITING_STATES for state in states.values()):
        st.rerun()
    snapshots = {name: r.snapshot() for name, r in records.items()}
    labels = sweep_labels({name: s.started for name, s in snapshots.items()})
    focus = focus_picker(states, labels)
    run, state = snapshots[focus], states[focus]
    left, right = st.columns([2, 3], vertical_alignment="center")
    left.markdown(
        words.state_line(
            focus.removeprefix(SHIPPED_PREFIX), state, run, focus.startswith(SHIPPED_PREFIX)
        )
    )
    if is_described:
        with right.container(
            key="formula",
            horizontal=True,
            horizontal_alignment="center",
            vertical_alignment="center",
            gap="medium",
        ):
            for formula in METHODS[run.config["method"]].formula(run.config):
                st.latex(formula, width="content")
    if state == RunState.FAILED:
        st.error(
            escape_markdown(
                error_text.visible_failure(records[focus].folder.status()["message"], run)
            )
        )
    if state == RunState.QUEUED:
        cancel_button(root, [focus], "Remove from the queue", "cancel")
    if state in ACTIVE_STATES and not focus.startswith(SHIPPED_PREFIX):
        live_controls(records[focus], run, state, left)
    elif not focus.startswith(SHIPPED_PREFIX):
        resume_button(root, records[focus])
    if is_described and (preset := preset_of(run.started)):
        st.markdown(f"**{preset.title}.** {preset.shows}")
    length_prediction(run, state)
    curves_with_controls(snapshots, focus, labels)
    if states[focus] in ACTIVE_STATES + WAITING_STATES and not run.columns:
        curve_skeleton(state)
    sample_tables(records[focus].samples(), run)
    if state not in ACTIVE_STATES + WAITING_STATES:
        share_button(focus, records[focus].folder.path, run)


def curves_with_controls(
    snapshots: dict[str, Snapshot], focus: str, labels: Mapping[str, str]
) -> None:
    """Show the curves with the controls of their axis and their smoothing, then captions of all
    runs and findings about the run in focus.
    """
    curves = snapshot_curves(snapshots)
    panels = default_panels(curves)
    texts = {
        " · ".join(filter(None, (labels.get(name), display_name(name)))): words.run_caption(s)
        for name, s in snapshots.items()
    }
    if panels:
        row = st.container(
            horizontal=True, vertical_alignment="bottom", gap="large", key="curve-controls"
        )
        along = (
            row.segmented_control(
                "Horizontal axis",
                list(X_AXIS_TITLES),
                key="x",
                default="step",
                required=True,
                bind="query-params",
            )
            or "step"
        )  # None for ?x=
        weight = row.select_slider(
            "Smoothing",
            SMOOTHING_WEIGHTS,
            key="smoothing",
            bind="query-params",
            width=260,
            format_func=lambda w: f"{w:g}",
            help=(
                "Exponential moving average: the weight of the earlier values. The original values"
                " stay visible as faint lines."
            ),
        )
        if along != "step":
            curves = snapshot_curves(snapshots, along)
        live_curves(
            curves,
            snapshots,
            panels,
            " ".join(f"{name}: {text}" for name, text in texts.items()),
            along,
            weight,
        )
    st.markdown(
        "  \n".join(f"`{name}` {text}" for name, text in texts.items() if text)
        if len(texts) > 1
        else next(iter(texts.values()))
    )
    run = snapshots[focus]
    if findings := diagnose(run.config, run.columns, run.events):
        st.markdown("\n".join(f"- {finding}" for finding in findings))


SKELETON = """<style>
.lab-skeleton { display: grid; grid-template-columns: repeat(auto-fit, minmax(16rem, 1fr)); gap: 1.5rem; }
.lab-skeleton span { height: 9.5rem; border-left: 2px solid; border-bottom: 2px solid; opacity: 0.25;
  background: repeating-linear-gradient(transparent 0 2.3rem, color-mix(in srgb, currentColor 40%,
  transparent) 2.3rem calc(2.3rem + 1px)); }
</style>
<div class="lab-skeleton" aria-hidden="true"><span></span><span></span><span></span></div>"""


def curve_skeleton(state: str) -> None:
    """Show empty frames where the curves of a run will come, and when they come."""
    st.caption(
        "The curves appear here when a core is free and the run has begun."
        if state == RunState.QUEUED
        else "The curves appear here in a few seconds, after the first evaluation."
    )
    st.html(SKELETON)


def length_prediction(run: Snapshot, state: str) -> None:
    """Ask, while a run trains, how the length of the completions changes, and show the measured
    change. A run that has ended shows its curves, so it is asked about only if a guess was made.
    """
    ended = state not in ACTIVE_STATES + WAITING_STATES
    guessed = st.session_state.get("guess") or st.query_params.get("guess")
    if not run.config["task"] or (ended and guessed not in words.LENGTH_CHANGES):
        return
    quiz(
        "Before the run ends: how does the length of the completions change?",
        words.LENGTH_CHANGES,
        lambda guess: st.markdown(words.length_verdict(guess, run, ended)),
    )


def focus_picker(states: Mapping[str, str], labels: Mapping[str, str]) -> str:
    """A widget that picks the run of the controls, formula and samples. Until a visitor picks one, it
    is a run that trains, and when that has ended the next one. Returns its name.
    """
    names = list(states)
    if len(names) == 1:
        return names[0]
    in_url, now = st.query_params.get("focus"), st.session_state.get("focus")
    automatic = st.session_state.get("automatic focus")
    if in_url in names and now not in names:
        st.session_state["focus"] = in_url
    elif now not in names or (now == automatic and in_url not in names):
        if now not in names or states[now] not in ACTIVE_STATES:
            st.session_state["focus"] = st.session_state["automatic focus"] = default_focus(states)
    focus = st.segmented_control(
        "Show controls, formula and samples of",
        names,
        key="focus",
        required=True,
        format_func=lambda name: labels.get(name) or display_name(name),
    )
    assert focus is not None  # required=True
    if in_url != focus and focus != st.session_state.get("automatic focus"):
        st.query_params["focus"] = focus
    elif in_url and in_url != focus:
        del st.query_params["focus"]
    return focus


def default_focus(states: Mapping[str, str]) -> str:
    """The newest run that trains, else one that is about to, else the newest that has ended, else the
    first that waits.
    """
    for group in (ACTIVE_STATES, (RunState.STARTING,)):
        if names := [name for name, state in states.items() if state in group]:
            return names[-1]
    ended = [name for name, state in states.items() if state not in WAITING_STATES]
    return ended[-1] if ended else next(iter(states))
