"""Page Train: start a run, watch it, steer it."""

from pathlib import Path

import streamlit as st

from lab.analysis.diagnose import diagnose
from lab.dashboard.components import loss_formula
from lab.dashboard.components import text as words
from lab.dashboard.components.damaged_runs import damaged_runs_warning
from lab.dashboard.components.layout import (
    DEFAULT_PAGE_URL,
    ask_prediction,
    escape_markdown,
    page_heading,
    page_link,
)
from lab.dashboard.components.live_chart import live_curves
from lab.dashboard.components.sample_table import sample_tables
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
    run_curves,
    run_picker,
)
from lab.dashboard.state.shipped_runs import shipped_run
from lab.dashboard.state.url import read_form, write_form
from lab.figures.panel_layout import X_AXIS_TITLES
from lab.figures.run_curves import default_panels
from lab.runs.folder import ACTIVE
from lab.runs.states import WAITING_STATES, RunState
from lab.storage.paths import runs_root

# seconds between two looks at the run folders; a training run needs the cores more than the page
# does
REFRESH_SECONDS = 1.0
SMOOTHING_WEIGHTS = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98)


def page() -> None:
    """The page from top to bottom."""
    root = runs_root()
    page_heading(words.QUESTION, words.SENTENCE)
    read_form()
    there = available_runs(root)
    read_run_names(there)
    names: list[str] = []
    shut = actions.refusal()
    if there:
        left, right = st.columns([6, 1], vertical_alignment="center")
        with left:
            names = run_picker(there)
        right.button(
            "New run",
            key="new",
            width="stretch",
            on_click=toggle_setup,
            disabled=not names or bool(shut),
            help=shut or None,
        )
    if not shut and (not names or st.session_state.get("setup")):
        with st.container(border=True, key="setup-form"):
            new_run_form(root)
    else:
        write_form(None)
    queue_banner(root)
    damaged_runs_warning(root)
    if notice := st.session_state.pop("notice", ""):
        st.info(notice)
    if not names:
        names = example_run(there)
        st.markdown(
            (
                f"No run is shown. {shut}"
                if shut
                else (
                    "No run of yours is shown. Press **Start**, or an experiment: the run trains in its own process, and its curves appear here."
                )
            )
            + (" Until then, a recorded run." if names else "")
        )
    if names:
        records = {name: run_record(str(there[name])) for name in names}
        moving = any(r.state() in ACTIVE + WAITING_STATES for r in records.values())
        st.fragment(live_view, run_every=REFRESH_SECONDS if moving else None)(root, records, moving)
        page_link("runs", "Runs", "Compare, replay and take away on the page Runs", run=names)
        details(
            root, {name.removeprefix(SHIPPED_PREFIX): r.snapshot() for name, r in records.items()}
        )


def redirect_to_default_page() -> None:
    """What the address /train shows: this page, which stands at the address without a path, in the
    same state.
    """
    asked = {name: st.query_params.get_all(name) for name in st.query_params}
    st.switch_page(
        st.Page(page, title="Train", url_path=DEFAULT_PAGE_URL, default=True), query_params=asked
    )


def toggle_setup() -> None:
    """Callback: open or fold the form for a new run."""
    st.session_state["setup"] = not st.session_state.get("setup", False)


def example_run(there: dict[str, Path]) -> list[str]:
    """The recorded run that stands where a run of one's own will: GRPO, which learns to think."""
    run = shipped_run("grpo")
    return [SHIPPED_PREFIX + run.name] if run and SHIPPED_PREFIX + run.name in there else []


def live_view(root: Path, records: dict[str, RunRecord], moving: bool) -> None:
    """What changes while a run trains; runs again by itself every second until every shown run has
    ended.
    """
    states = {name: r.state() for name, r in records.items()}
    if moving and not any(state in ACTIVE + WAITING_STATES for state in states.values()):
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
        for part in loss_formula.loss_formula(run.config["method"], run.config):
            st.latex(part, width="content")
    if state == RunState.FAILED:
        st.error(
            escape_markdown(
                error_text.visible_failure(records[focus].folder.status()["message"], run)
            )
        )
    if state == RunState.QUEUED:
        cancel_button(root, [focus], "Take out of the queue", "cancel")
    if state in ACTIVE and not focus.startswith(SHIPPED_PREFIX):
        live_controls(records[focus], run, state, left)
    if preset := preset_of(run.started):
        st.markdown(f"**{preset.name}.** {preset.shows}")
    length_prediction(run, state)
    curves_with_controls(snapshots, focus)
    sample_tables(records[focus].samples(), run)


def curves_with_controls(snapshots: dict[str, Snapshot], focus: str) -> None:
    """The figure with the controls of its axis and its smoothing, then in numbers what happened and
    what stands out in the run in focus.
    """
    drawn = run_curves(snapshots)
    panels = default_panels(drawn)
    texts = {display_name(name): words.run_caption(s) for name, s in snapshots.items()}
    if panels:
        row = st.container(
            horizontal=True, vertical_alignment="bottom", gap="large", key="curve-controls"
        )
        along = (
            row.segmented_control(
                "Against",
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
                "Exponential moving average: how much an earlier value counts beside the next. The raw values stay visible, faint."
            ),
        )
        if along != "step":
            drawn = run_curves(snapshots, along)
        live_curves(
            drawn,
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
    if found := diagnose(run.config, run.columns, run.events):
        st.markdown("\n".join(f"- {text}" for text in found))


def length_prediction(run: Snapshot, state: str) -> None:
    """A guess at what becomes of the completions, and what became of them; nothing where a run does
    not measure their length.
    """
    if not run.config["task"]:
        return
    guess = ask_prediction(
        "Before you look: what becomes of the length of the completions?", words.LENGTH_CHANGES
    )
    if guess:
        st.markdown(words.length_verdict(guess, run, state not in ACTIVE + WAITING_STATES))


def focus_picker(states: dict[str, str]) -> str:
    """The run that controls, formula and samples belong to: the newest that trains, unless another
    is picked.
    """
    names = list(states)
    if len(names) == 1:
        return names[0]
    first = next((n for n in reversed(names) if states[n] in ACTIVE), names[-1])
    if st.session_state.get("focus") not in names:
        st.session_state["focus"] = (
            st.query_params.get("focus") if st.query_params.get("focus") in names else first
        )
    picked = st.segmented_control(
        "Controls, formula and samples of",
        names,
        key="focus",
        required=True,
        format_func=display_name,
    )
    if st.query_params.get("focus", first) != picked:
        st.query_params["focus"] = picked
    return picked
