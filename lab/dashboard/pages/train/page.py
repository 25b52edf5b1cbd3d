"""Page Train: start a run, watch it, steer it."""

from pathlib import Path

import streamlit as st

from lab.analysis.diagnose import diagnose
from lab.dashboard.components import text as words
from lab.dashboard.components.damaged_runs import say_damaged
from lab.dashboard.components.layout import HOME, link, opening, plain, predict
from lab.dashboard.components.live_chart import live_curves
from lab.dashboard.components.sample_table import samples
from lab.dashboard.pages.train.details import folds
from lab.dashboard.pages.train.live_controls import steer
from lab.dashboard.pages.train.new_run_form import preset_of, setup
from lab.dashboard.pages.train.queue_banner import queue_line, take_out
from lab.dashboard.state import actions, error_text
from lab.dashboard.state.run_cache import ACTIVE, RunRecord, Snapshot, record
from lab.dashboard.state.shipped_runs import FOLDER, recorded_run
from lab.dashboard.state.url import read_form, write_form
from lab.figures.training_curves import AXES, RunCurves, default_panels, run_labels
from lab.runs.catalogue import list_runs, newest_first
from lab.runs.states import WAITING_STATES, RunState
from lab.storage.paths import runs_root

# seconds between two looks at the run folders; a training run needs the cores more than the page
# does
TICK = 1.0
MARK = "recorded:"
MOST = 8  # runs overlaid
SMOOTHING = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98)


def page() -> None:
    """The page from top to bottom."""
    root = runs_root()
    opening(words.QUESTION, words.SENTENCE)
    read_form()
    there = available(root)
    read_url(there)
    names: list[str] = []
    shut = actions.refusal()
    if there:
        left, right = st.columns([6, 1], vertical_alignment="center")
        with left:
            names = pick(there)
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
            setup(root)
    else:
        write_form(None)
    queue_line(root)
    say_damaged(root)
    if notice := st.session_state.pop("notice", ""):
        st.info(notice)
    if not names:
        names = example(there)
        st.markdown(
            (
                f"No run is shown. {shut}"
                if shut
                else (
                    "No run of yours is shown. Press **Start**, or an experiment: the run trains in"
                    " its own process, and its curves appear here."
                )
            )
            + (" Until then, a recorded run." if names else "")
        )
    if names:
        records = {name: record(str(there[name])) for name in names}
        moving = any(r.state() in ACTIVE + WAITING_STATES for r in records.values())
        st.fragment(live, run_every=TICK if moving else None)(root, records, moving)
        link("runs", "Runs", "Compare, replay and take away on the page Runs", run=names)
        folds(root, {name.removeprefix(MARK): r.snapshot() for name, r in records.items()})


def lead_here() -> None:
    """What the address /train shows: this page, which stands at the address without a path, in the
    same state.
    """
    asked = {name: st.query_params.get_all(name) for name in st.query_params}
    st.switch_page(st.Page(page, title="Train", url_path=HOME, default=True), query_params=asked)


def toggle_setup() -> None:
    """Callback: open or fold the form for a new run."""
    st.session_state["setup"] = not st.session_state.get("setup", False)


def read_url(there: dict[str, Path]) -> None:
    """Take the shown runs from the URL (?run=a&run=b or ?run=a,b) when it has changed from outside,
    or another page was visited; add those just started.
    """
    asked = [name for part in st.query_params.get_all("run") for name in part.split(",")]
    if asked != st.session_state.get("url", []) or "run" not in st.session_state:
        st.session_state["url"] = st.session_state["run"] = asked
    names = st.session_state.get("run", []) + st.session_state.pop("add", [])
    st.session_state["run"] = [name for name in dict.fromkeys(names) if name in there][-MOST:]


def available(root: Path) -> dict[str, Path]:
    """Every run that can be shown, newest first: those of the runs folder, then the recorded ones."""
    own = newest_first(list_runs(root))
    recorded = list_runs(FOLDER) if FOLDER.is_dir() else []
    return {run.path.name: run.path for run in own} | {
        MARK + run.path.name: run.path for run in recorded
    }


def example(there: dict[str, Path]) -> list[str]:
    """The recorded run that stands where a run of one's own will: GRPO, which learns to think."""
    run = recorded_run("grpo")
    return [MARK + run.name] if run and MARK + run.name in there else []


def pick(there: dict[str, Path]) -> list[str]:
    """The runs to show; the URL follows."""
    names = st.multiselect(
        "Runs shown",
        list(there),
        key="run",
        max_selections=MOST,
        label_visibility="collapsed",
        format_func=badge,
        placeholder=f"Pick up to {MOST} runs to look at or to compare",
    )
    if names != st.session_state.get("url", []):
        st.query_params["run"] = st.session_state["url"] = names
    return names


def badge(name: str) -> str:
    """A run's name, with its origin when the lab ships it."""
    return f"{name.removeprefix(MARK)} (recorded)" if name.startswith(MARK) else name


def live(root: Path, records: dict[str, RunRecord], moving: bool) -> None:
    """What changes while a run trains; runs again by itself every second until every shown run has
    ended.
    """
    states = {name: r.state() for name, r in records.items()}
    if moving and not any(state in ACTIVE + WAITING_STATES for state in states.values()):
        st.rerun()
    snapshots = {name: r.snapshot() for name, r in records.items()}
    focus = pick_focus(states)
    run, state = snapshots[focus], states[focus]
    left, right = st.columns([2, 3], vertical_alignment="center")
    left.markdown(words.state_line(focus.removeprefix(MARK), state, run, focus.startswith(MARK)))
    with right.container(
        key="formula",
        horizontal=True,
        horizontal_alignment="center",
        vertical_alignment="center",
        gap="medium",
    ):
        for part in words.formula(run.config["method"], run.config):
            st.latex(part, width="content")
    if state == RunState.FAILED:
        st.error(plain(error_text.failure(records[focus].folder.status()["message"], run)))
    if state == RunState.QUEUED:
        take_out(root, [focus], "Take out of the queue", "cancel")
    if state in ACTIVE and not focus.startswith(MARK):
        steer(records[focus], run, state, left)
    if preset := preset_of(run.started):
        st.markdown(f"**{preset.name}.** {preset.shows}")
    predicted(run, state)
    curves(snapshots, focus)
    samples(records[focus].samples(), run)


def curves(snapshots: dict[str, Snapshot], focus: str) -> None:
    """The figure with the controls of its axis and its smoothing, then in numbers what happened and
    what stands out in the run in focus.
    """
    drawn = as_curves(snapshots)
    panels = default_panels(drawn)
    texts = {badge(name): words.caption(s) for name, s in snapshots.items()}
    if panels:
        row = st.container(
            horizontal=True, vertical_alignment="bottom", gap="large", key="curve-controls"
        )
        along = (
            row.segmented_control(
                "Against", list(AXES), key="x", default="step", required=True, bind="query-params"
            )
            or "step"
        )  # None for ?x=
        weight = row.select_slider(
            "Smoothing",
            SMOOTHING,
            key="smoothing",
            bind="query-params",
            width=260,
            format_func=lambda w: f"{w:g}",
            help=(
                "Exponential moving average: how much an earlier value counts beside the next. The"
                " raw values stay visible, faint."
            ),
        )
        if along != "step":
            drawn = as_curves(snapshots, along)
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
        else texts[badge(focus)]
    )
    run = snapshots[focus]
    if found := diagnose(run.config, run.columns, run.events):
        st.markdown("\n".join(f"- {text}" for text in found))


def predicted(run: Snapshot, state: str) -> None:
    """A guess at what becomes of the completions, and what became of them; nothing where a run does
    not measure their length.
    """
    if not run.config["task"]:
        return
    guess = predict(
        "Before you look: what becomes of the length of the completions?", words.LENGTHS
    )
    if guess:
        st.markdown(words.verdict(guess, run, state not in ACTIVE + WAITING_STATES))


def pick_focus(states: dict[str, str]) -> str:
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
        "Controls, formula and samples of", names, key="focus", required=True, format_func=badge
    )
    if st.query_params.get("focus", first) != picked:
        st.query_params["focus"] = picked
    return picked


def as_curves(snapshots: dict[str, Snapshot], along: str = "step") -> list[RunCurves]:
    """The snapshots as the figure wants them."""
    labels = run_labels({name: s.started for name, s in snapshots.items()})
    counted: dict[str, int] = {}
    out = []
    for name, s in snapshots.items():
        method = s.config["method"]
        counted[method] = counted.get(method, -1) + 1
        text = labels[name].removeprefix(MARK) + (" (recorded)" if name.startswith(MARK) else "")
        out.append(
            RunCurves(
                name,
                method,
                text,
                s.columns,
                s.events,
                counted[method],
                s.config["steps"],
                s.clock.get(along),
            )
        )
    return out
