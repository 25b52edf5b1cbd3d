"""Page Train: start a run, watch it, steer it."""

import os
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

import lab
from lab.diagnosis import diagnose
from lab.figures.curves import RunCurves, default_panels, panels_with_data, run_labels
from lab.metrics import METRICS
from lab.runs import list_runs
from lab.ui import words
from lab.ui.live import live_curves
from lab.ui.records import ACTIVE, RunRecord, Snapshot, record
from lab.ui.setup import setup
from lab.ui.steer import steer

TICK = 0.5  # seconds between two looks at the run folders
RECORDED = Path(lab.__file__).parent / "assets" / "recorded"
MARK = "recorded:"
MOST = 8  # runs overlaid


def page() -> None:
    """The page from top to bottom."""
    root = Path(os.environ.get("LAB_RUNS", "runs"))
    st.title(words.QUESTION, anchor=False)
    st.markdown(words.SENTENCE)
    there = available(root)
    read_url(there)
    if there:
        left, right = st.columns([6, 1], vertical_alignment="center")
        with left:
            names = pick(there)
        right.button("New run", key="new", width="stretch", on_click=toggle_setup, disabled=not names)
    else:
        names = []
    if not names or st.session_state.get("setup"):
        with st.container(border=True, key="setup-form"):
            setup(root)
    if notice := st.session_state.pop("notice", ""):
        st.warning(notice)
    if not names:
        st.markdown("No run is shown. Press **Start**: the run trains in its own process, and its curves appear here" +
                    (", or pick a run that is there already." if there else "."))
        return
    records = {name: record(str(there[name])) for name in names}
    running = any(r.state() in ACTIVE for r in records.values())
    st.fragment(live, run_every=TICK if running else None)(records, running)
    folds(root, records)


def toggle_setup() -> None:
    """Callback: open or fold the form for a new run."""
    st.session_state["setup"] = not st.session_state.get("setup", False)


def read_url(there: dict[str, Path]) -> None:
    """Take the shown runs from the URL (?run=a&run=b or ?run=a,b) when it has changed from outside; add those just started."""
    asked = [name for part in st.query_params.get_all("run") for name in part.split(",")]
    if asked != st.session_state.get("url", []):
        st.session_state["url"] = st.session_state["run"] = asked
    shown = st.session_state.get("run", []) + st.session_state.pop("add", [])
    st.session_state["run"] = [name for name in dict.fromkeys(shown) if name in there][-MOST:]


def available(root: Path) -> dict[str, Path]:
    """Every run that can be shown, newest first: those of the runs folder, then the recorded ones."""
    own = sorted(list_runs(root), key=lambda run: (run.path / "config.json").stat().st_mtime, reverse=True)
    recorded = list_runs(RECORDED) if RECORDED.is_dir() else []
    return {run.path.name: run.path for run in own} | {MARK + run.path.name: run.path for run in recorded}


def pick(there: dict[str, Path]) -> list[str]:
    """The runs to show; the URL follows."""
    names = st.multiselect("Runs shown", list(there), key="run", max_selections=MOST, label_visibility="collapsed",
                           placeholder=f"Pick up to {MOST} runs to look at or to compare")
    if names != st.session_state.get("url", []):
        st.query_params["run"] = st.session_state["url"] = names
    return names


def live(records: dict[str, RunRecord], running: bool) -> None:
    """What changes while a run trains; runs again by itself every half second until every shown run has ended."""
    states = {name: r.state() for name, r in records.items()}
    if running and not any(state in ACTIVE for state in states.values()):
        st.rerun()
    snapshots = {name: r.snapshot() for name, r in records.items()}
    focus = pick_focus(states)
    run, state = snapshots[focus], states[focus]
    left, right = st.columns([2, 3], vertical_alignment="center")
    left.markdown(words.state_line(focus, state, run))
    with right.container(key="formula", horizontal=True, horizontal_alignment="center", vertical_alignment="center", gap="medium"):
        for part in words.formula(run.config["method"], run.config):
            st.latex(part, width="content")
    if state in ACTIVE and not focus.startswith(MARK):
        steer(records[focus], run, state, left)
    shown = as_curves(snapshots)
    panels = default_panels(shown)
    texts = {name: words.caption(s) for name, s in snapshots.items()}
    if panels:
        live_curves(shown, snapshots, panels, " ".join(f"{name}: {text}" for name, text in texts.items()))
    st.markdown("  \n".join(f"`{name}` {text}" for name, text in texts.items()) if len(texts) > 1 else texts[focus])
    if found := diagnose(run.config, run.columns):
        st.markdown(" ".join(found))
    if "loss" in panels and any(s.config["method"] == "grpo" for s in snapshots.values()):
        st.caption(words.LOSS_SAYS_NOTHING)
    samples(records[focus].samples(), run)


def pick_focus(states: dict[str, str]) -> str:
    """The run that controls, formula and samples belong to: the newest that trains, unless another is picked."""
    names = list(states)
    if len(names) == 1:
        return names[0]
    first = next((n for n in reversed(names) if states[n] in ACTIVE), names[-1])
    if st.session_state.get("focus") not in names:
        st.session_state["focus"] = first
    return st.segmented_control("Controls, formula and samples of", names, key="focus", required=True)


def as_curves(snapshots: dict[str, Snapshot]) -> list[RunCurves]:
    """The snapshots as the figure wants them."""
    labels = run_labels({name: s.started for name, s in snapshots.items()})
    counted: dict[str, int] = {}
    out = []
    for name, s in snapshots.items():
        method = s.config["method"]
        counted[method] = counted.get(method, -1) + 1
        out.append(RunCurves(name, method, labels[name], s.columns, s.events, counted[method], s.config["steps"]))
    return out


def samples(rows: list[dict[str, Any]], run: Snapshot) -> None:
    """The latest completions: a group (PPO: of several prompts) with rewards and advantages, then held-out prompts with the gold answer."""
    group = [row for row in rows if not row.get("held_out") and "completion" in row]
    held_out = [row for row in rows if row.get("held_out") and "completion" in row]
    if not (group or held_out):
        return
    places = iter(st.columns(2 if group and held_out else 1, gap="medium"))
    if group:
        several = len({r["prompt"] for r in group}) > 1
        heading = "the first of the rollout, one completion each" if several else f"one prompt, G = {len(group)} completions:   {group[0]['prompt']}"
        table(next(places), f"Step {group[0]['step']}, {heading}", "group",
              ({"prompt": [r["prompt"] for r in group]} if several else {})
              | {"completion": [r["completion"] for r in group], "reward r": [r.get("reward") for r in group]}
              | ({"advantage A": [r["advantage"] for r in group]} if "advantage" in group[0] else {}))
    if held_out:
        table(next(places), f"Step {held_out[0]['step']}, held-out prompts, one completion each", "held-out",
              {"prompt": [r["prompt"] for r in held_out], "completion": [r["completion"] for r in held_out],
               "gold": [r.get("answer", "") for r in held_out], "right": [bool(r.get("gold")) for r in held_out]})


def table(place: Any, heading: str, key: str, columns: dict[str, list[Any]]) -> None:
    """A heading and a table, both of which show text as text, whatever it says."""
    place.text(heading)
    place.dataframe(pd.DataFrame(columns), hide_index=True, key=key, column_config={
        "prompt": st.column_config.TextColumn(width=115), "completion": st.column_config.TextColumn(width=330),
        "gold": st.column_config.Column(width=50), "right": st.column_config.Column(width=50),
        "reward r": st.column_config.NumberColumn(format="%.2f", width=75), "advantage A": st.column_config.NumberColumn(format="%+.2f", width=95)})


def folds(root: Path, records: dict[str, RunRecord]) -> None:
    """What is there for those who want it: what to look at, what the page cannot show, the same run from the command line."""
    snapshots = {name: r.snapshot() for name, r in records.items()}
    with st.expander("What to look at"):
        for name in panels_with_data(as_curves(snapshots))[:9]:
            st.markdown(f"**{METRICS[name].label}** ({METRICS[name].unit}). {METRICS[name].meaning} {METRICS[name].look_for}")
    with st.expander("What this cannot show"):
        st.markdown(words.CANNOT_SHOW)
    with st.expander("The same from the command line"):
        for name, s in snapshots.items():
            st.code(words.command(s.started, f"{root.name}/{name.removeprefix(MARK)}"), language="bash", wrap_lines=True)
