"""Page Runs: all runs in a table; compare, replay, download and delete them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import streamlit as st

from lab.analysis.recorded_results import load_result
from lab.config.number_text import number_text
from lab.dashboard.components.config_widgets import knob_label
from lab.dashboard.components.damaged_runs import damaged_runs_warning
from lab.dashboard.components.layout import (
    cannot_show,
    page_heading,
    page_link,
    source_caption,
    what_to_look_at,
)
from lab.dashboard.components.quiz import quiz
from lab.dashboard.components.sample_table import sample_tables
from lab.dashboard.components.share_button import share_buttons
from lab.dashboard.pages.runs.delete import delete_selected_row, trash_section
from lab.dashboard.pages.runs.downloads import downloads
from lab.dashboard.pages.runs.overlay import overlaid_curves, runs_of_other_seeds
from lab.dashboard.pages.runs.run_table import run_table
from lab.dashboard.state.run_cache import RunRecord, Snapshot, run_record
from lab.dashboard.state.run_selection import (
    SHIPPED_PREFIX,
    display_name,
    read_run_names,
    run_picker,
    sweep_labels,
)
from lab.dashboard.state.shipped_runs import SHIPPED_RUNS_FOLDER, preset_order
from lab.runs.catalogue import list_runs
from lab.runs.summary import Summary, summaries, summarise
from lab.storage.paths import runs_root
from lab.storage.policy_folder import policy_config_file

QUESTION = "How do the runs compare?"
SENTENCE = (
    "The table lists all runs: your own and those that came with the lab (recorded)."
    " Select some of them. Their curves are drawn in one figure, and you can replay them step by"
    " step."
)
WORDS = (
    "policy",
    "reference",
    "completion",
    "gold accuracy",
    "held-out",
    "scratchpad",
    "KL",
    "nat",
    "dead group",
    "entropy",
    "adapter",
    "update",
    "seed",
    "interval",
)
GUESSES = ("under 0.02", "0.02 to 0.10", "over 0.10")


def page() -> None:
    """Show the page."""
    page_heading(QUESTION, SENTENCE, WORDS)
    quiz(
        "Before you look: some runs differ only in their seed. How far apart are their final gold"
        " accuracies?",
        GUESSES,
        prediction_answer,
    )
    root = runs_root()
    damaged_runs_warning(root)
    runs = all_summaries(root)
    if not runs:
        st.markdown("There is no run yet. Start one on the page Train; then this page lists it.")
        trash_section(root)
        return
    above = st.container()
    names = pick_shown_runs(runs)
    with above:
        run_table(runs, names)
        delete_selected_row(
            root, {name: None if name.startswith(SHIPPED_PREFIX) else runs[name] for name in names}
        )
    if names:
        records = {name: run_record(str(runs[name].path)) for name in names}
        snapshots = {name: r.snapshot() for name, r in records.items()}
        samples_at_replay(
            records, snapshots, overlaid_curves(snapshots, runs_of_other_seeds(runs, names))
        )
        share_buttons({name: runs[name].path for name in names}, snapshots)
        knob_differences({display_name(name): s.started for name, s in snapshots.items()})
        downloads({name: runs[name] for name in names}, snapshots)
    trash_section(root)
    what_to_look_at(
        "Look first at gold accuracy: it measures the task itself. Then read the table under the"
        " curves: it shows in which settings the runs differ. Compare a difference between two runs"
        " with the width of the band over seeds. Replay a run to read its completions at the step"
        " where a curve turns."
    )
    cannot_show(
        "The page shows only the runs of this computer. One run of each kind does not show whether"
        " a difference is chance: start several seeds of each. The page then draws their mean and a"
        " band. The band is the 95 % interval of the mean over these seeds (Student's t). With two"
        " seeds it is wide, because two values say little. Runs that you changed during training"
        " count as equal only if you changed them in the same way."
    )


def all_summaries(root: Path) -> dict[str, Summary]:
    """By name, the summaries of all runs: those of the folder `root`, newest first, then the
    shipped runs, those of the presets first, so that the runs of the first visit are in view.
    """
    shipped_runs = sorted(list_runs(SHIPPED_RUNS_FOLDER), key=lambda run: preset_order(run.name))
    return {s.name: s for s in summaries(list_runs(root))} | {
        SHIPPED_PREFIX + run.name: summarise(run) for run in shipped_runs
    }


def pick_shown_runs(runs: Mapping[str, Summary]) -> list[str]:
    """Show the widget that picks the shown runs and return their names, which are in the URL as
    ?run=a&run=b. If the session starts without runs in the URL, the two newest runs with a
    measurement are picked, or two shipped runs if there are none.
    """
    paths = {name: s.path for name, s in runs.items()}
    is_new_session = "run" not in st.session_state
    read_run_names(paths)
    if is_new_session and not st.session_state["run"]:
        newest = [
            name
            for name, s in runs.items()
            if (s.gold or s.held_out) and not name.startswith(SHIPPED_PREFIX)
        ][:2]
        st.session_state["run"] = newest or [
            name
            for name in (f"{SHIPPED_PREFIX}grpo", f"{SHIPPED_PREFIX}dpo-that-collapses")
            if name in runs
        ]
    return run_picker(paths)


def samples_at_replay(
    records: Mapping[str, RunRecord], snapshots: Mapping[str, Snapshot], step: int
) -> None:
    """Show the completions at the replayed step, or at the latest earlier step with recorded
    samples.
    """
    names = list(records)
    if st.session_state.get("samples-of") not in names:
        st.session_state["samples-of"] = names[0]
    labels = sweep_labels({name: s.started for name, s in snapshots.items()})
    focus = (
        st.segmented_control(
            "Completions of",
            names,
            key="samples-of",
            required=True,
            format_func=lambda name: labels.get(name) or display_name(name),
        )
        if len(names) > 1
        else names[0]
    )
    assert focus is not None  # required=True
    rows = records[focus].samples_at(step)
    if rows:
        sample_tables(rows, snapshots[focus])
    else:
        st.caption(f"{display_name(focus)} has recorded no completions up to step {step}.")
    has_policy = policy_config_file(records[focus].folder.path) is not None
    if has_policy and snapshots[focus].config["method"] != "reward_model":
        page_link("talk", "Talk", f"Let {display_name(focus)} answer a prompt", run=focus)


def knob_differences(configs: Mapping[str, Mapping[str, Any]]) -> None:
    """Show the knobs in which the shown runs differ. `configs`: by run, its config."""
    import pandas as pd

    if len(configs) < 2:
        return
    knobs = dict.fromkeys(knob for config in configs.values() for knob in config)
    differing = [
        knob for knob in knobs if len({str(config.get(knob)) for config in configs.values()}) > 1
    ]
    if not differing:
        st.markdown("These runs have the same settings and the same seed.")
        return
    st.markdown("**Settings in which these runs differ**")
    st.dataframe(
        pd.DataFrame(
            [
                {"setting": knob_label(knob)}
                | {
                    name: number_text(config[knob]) if knob in config else "–"
                    for name, config in configs.items()
                }
                for knob in differing
            ]
        ),
        hide_index=True,
        key="differences",
        alt="The settings in which the shown runs differ",
    )


def prediction_answer(guess: str) -> None:
    """Show, after a guess, the spread over seeds in the recorded comparison at default settings."""
    table = load_result("tuned")
    spreads = {
        row["title"]: row["highest"] - row["lowest"]
        for row in table["rows"]
        if row["view"] == "defaults"
    }
    middle = sorted(spreads.values())[len(spreads) // 2]
    right = GUESSES[(middle >= 0.02) + (middle > 0.10)]
    st.markdown(
        f"You said {guess}. The measured difference between the best and the worst seed is"
        f" {', '.join(f'{gap:.2f} for {title}' for title, gap in spreads.items())}. The middle one"
        f" of these is {right}. Two single runs that differ by so little can differ by chance."
    )
    source_caption(table)
