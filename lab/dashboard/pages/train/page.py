"""Page Train: start runs, watch them, and change them while they train."""

from pathlib import Path

import streamlit as st

from lab.analysis.diagnose import diagnose
from lab.config.methods import METHODS
from lab.dashboard.components import text as words
from lab.dashboard.components.damaged_runs import damaged_runs_warning
from lab.dashboard.components.layout import ask_prediction, escape_markdown, page_heading, page_link
from lab.dashboard.components.live_chart import live_curves
from lab.dashboard.components.sample_table import sample_tables
from lab.dashboard.components.share_button import share_button
from lab.dashboard.pages.train.details import details
from lab.dashboard.pages.train.live_controls import live_controls
from lab.dashboard.pages.train.new_run_form import new_run_form, preset_of
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
    if not refusal and (not names or st.session_state.get("setup")):
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
                    "You have not selected a run. Press **Start** or a prepared experiment: a run"
                    " starts on this computer, and its curves appear here."
                )
            )
            + (" Until then, the page shows a recorded run." if names else "")
        )
    if names:
        records = {name: run_record(str(runs[name])) for name in names}
        training = any(r.state() in ACTIVE_STATES + WAITING_STATES for r in records.values())
        st.fragment(live_view, run_every=REFRESH_SECONDS if training else None)(
            root, records, training
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


def live_view(root: Path, records: dict[str, RunRecord], training: bool) -> None:
    """Show the part of the page that changes while a run trains. It refreshes every second until
    every shown run has ended.
    """
    states = {name: r.state() for name, r in records.items()}
    if training and not any(state in ACTIVE_STATES + WAITING_STATES for state in states.values()):
        st.rerun()
    snapshots = {name: r.snapshot() for name, r in records.items()}
    focus = focus_picker(states)
    run, state = snapshots[focus], states[focus]
    left, right = st.columns([2, 3], vertical_alignment="center")
    left.markdown(
        words.state_line(
            focus.removeprefix(SHIPPED_PREFIX), state, run, focus.startswith(SHIPPED_PREFIX)
        )
    )
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
    if preset := preset_of(run.started):
        st.markdown(f"**{preset.title}.** {preset.shows}")
    length_prediction(run, state)
    curves_with_controls(snapshots, focus)
    sample_tables(records[focus].samples(), run)
    if state not in ACTIVE_STATES + WAITING_STATES:
        share_button(focus, records[focus].folder.path, run)


def curves_with_controls(snapshots: dict[str, Snapshot], focus: str) -> None:
    """Show the curves with the controls of their axis and their smoothing, then captions of all
    runs and findings about the run in focus.
    """
    curves = snapshot_curves(snapshots)
    panels = default_panels(curves)
    texts = {display_name(name): words.run_caption(s) for name, s in snapshots.items()}
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
        "  \n".join(f"`{name}` {text}" for name, text in texts.items())
        if len(texts) > 1
        else texts[display_name(focus)]
    )
    run = snapshots[focus]
    if findings := diagnose(run.config, run.columns, run.events):
        st.markdown("\n".join(f"- {finding}" for finding in findings))


def length_prediction(run: Snapshot, state: str) -> None:
    """Ask how the length of the completions changes and show the measured change; nothing for a run
    that does not measure it.
    """
    if not run.config["task"]:
        return
    guess = ask_prediction(
        "Before you look: how does the length of the completions change?", words.LENGTH_CHANGES
    )
    if guess:
        st.markdown(words.length_verdict(guess, run, state not in ACTIVE_STATES + WAITING_STATES))


def focus_picker(states: dict[str, str]) -> str:
    """A widget that picks the run of the controls, formula and samples: by default the newest run
    that trains. Returns its name.
    """
    names = list(states)
    if len(names) == 1:
        return names[0]
    default = next((n for n in reversed(names) if states[n] in ACTIVE_STATES), names[-1])
    if st.session_state.get("focus") not in names:
        st.session_state["focus"] = (
            st.query_params.get("focus") if st.query_params.get("focus") in names else default
        )
    focus = st.segmented_control(
        "Show controls, formula and samples of",
        names,
        key="focus",
        required=True,
        format_func=display_name,
    )
    assert focus is not None  # required=True
    if st.query_params.get("focus", default) != focus:
        st.query_params["focus"] = focus
    return focus
