"""Page Runs: every run that there is; lay them over each other, replay them, take them away, delete
them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from lab.analysis.recorded_results import load_result
from lab.dashboard.components.config_widgets import knob_label
from lab.dashboard.components.damaged_runs import damaged_runs_warning
from lab.dashboard.components.layout import (
    ask_prediction,
    cannot_show,
    page_heading,
    page_link,
    source_caption,
    what_to_look_at,
)
from lab.dashboard.components.sample_table import sample_tables
from lab.dashboard.pages.runs.delete import delete_and_restore
from lab.dashboard.pages.runs.downloads import downloads
from lab.dashboard.pages.runs.overlay import overlaid_curves, runs_of_other_seeds
from lab.dashboard.pages.runs.run_table import run_table
from lab.dashboard.state.run_cache import RunRecord, Snapshot, run_record
from lab.dashboard.state.run_selection import (
    SHIPPED_PREFIX,
    display_name,
    read_run_names,
    run_picker,
)
from lab.dashboard.state.shipped_runs import SHIPPED_RUNS_FOLDER as RECORDED
from lab.figures.labels import short_number
from lab.runs.catalogue import list_runs
from lab.runs.summary import Summary, summaries, summarise
from lab.storage.paths import runs_root

QUESTION = "How do the runs compare?"
SENTENCE = "Every run that this lab has: yours are live, those that came with it are recorded. Pick some to lay them over each other and to replay them."
GUESSES = ("under 0.02", "0.02 to 0.10", "over 0.10")


def page() -> None:
    """The page from top to bottom."""
    page_heading(QUESTION, SENTENCE)
    prediction_answer(
        ask_prediction(
            "Before you look: by how much do runs differ in final gold accuracy that are alike in everything but their seed?",
            GUESSES,
        )
    )
    root = runs_root()
    damaged_runs_warning(root)
    there = all_summaries(root)
    if not there:
        st.markdown("There is no run yet. Start one on the page Train, and it is listed here.")
        delete_and_restore(root, {})
        return
    above = st.container()
    names = pick_shown_runs(there)
    with above:
        run_table(there, names)
    if names:
        records = {name: run_record(str(there[name].path)) for name in names}
        snapshots = {name: r.snapshot() for name, r in records.items()}
        samples_at_replay(
            records, snapshots, overlaid_curves(snapshots, runs_of_other_seeds(there, names))
        )
        knob_differences({display_name(name): s.started for name, s in snapshots.items()})
        downloads({name: there[name] for name in names}, snapshots)
    delete_and_restore(
        root, {name: s for name, s in there.items() if not name.startswith(SHIPPED_PREFIX)}
    )
    what_to_look_at(
        "Gold accuracy first: it is what the task says. Then what the runs differ in, in the table under the curves. A difference between two runs counts when it is larger than the band over seeds is wide. Replay a run to see what the model wrote when a curve turned."
    )
    cannot_show(
        "Runs of other machines, and how sure a difference is from one seed: start several seeds of"
        " each, which are then drawn as mean and band. The band is the 95 % interval of the mean"
        " over these seeds (Student's t): over two seeds it is wide because two say little. Runs"
        " that were steered live are alike only if they were steered alike."
    )


def all_summaries(root: Path) -> dict[str, Summary]:
    """Every run in one line: those of the runs folder, newest first, then the recorded ones."""
    return {s.name: s for s in summaries(list_runs(root))} | {
        SHIPPED_PREFIX + run.name: summarise(run) for run in list_runs(RECORDED)
    }


def pick_shown_runs(there: Mapping[str, Summary]) -> list[str]:
    """The runs to show, in the URL as ?run=a&run=b; at first, without any there, the newest two
    that have a number, or else two that are recorded.
    """
    paths, first = {name: s.path for name, s in there.items()}, "run" not in st.session_state
    read_run_names(paths)
    if first and not st.session_state["run"]:
        own = [
            name
            for name, s in there.items()
            if (s.gold or s.held_out) and not name.startswith(SHIPPED_PREFIX)
        ][:2]
        st.session_state["run"] = own or [
            name
            for name in (f"{SHIPPED_PREFIX}grpo", f"{SHIPPED_PREFIX}dpo-that-collapses")
            if name in there
        ]
    return run_picker(paths)


def samples_at_replay(
    records: Mapping[str, RunRecord], snapshots: Mapping[str, Snapshot], step: int
) -> None:
    """What the policy wrote at the replayed step, or at the latest one before it that was kept."""
    names = list(records)
    if st.session_state.get("samples-of") not in names:
        st.session_state["samples-of"] = names[0]
    focus = (
        st.segmented_control(
            "Samples of", names, key="samples-of", required=True, format_func=display_name
        )
        if len(names) > 1
        else names[0]
    )
    rows = records[focus].samples_at(step)
    if rows:
        sample_tables(rows, snapshots[focus])
    else:
        st.caption(f"{display_name(focus)} kept no samples up to step {step}.")
    if (records[focus].folder.path / "adapter" / "adapter_config.json").is_file() and snapshots[
        focus
    ].config["method"] != "reward_model":
        page_link("talk", "Talk", f"Let {display_name(focus)} answer a prompt", run=focus)


def knob_differences(configs: Mapping[str, Mapping[str, Any]]) -> None:
    """The knobs in which the shown runs differ, and no others."""
    if len(configs) < 2:
        return
    every = dict.fromkeys(k for config in configs.values() for k in config)
    odd = [k for k in every if len({str(config.get(k)) for config in configs.values()}) > 1]
    if not odd:
        st.markdown("These runs have the same knobs, the seed too.")
        return
    st.markdown("**What differs**")
    st.dataframe(
        pd.DataFrame(
            [
                {"knob": knob_label(k)}
                | {
                    name: short_number(config[k]) if k in config else "–"
                    for name, config in configs.items()
                }
                for k in odd
            ]
        ),
        hide_index=True,
        key="differences",
        alt="The knobs in which the shown runs differ",
    )


def prediction_answer(guess: str | None) -> None:
    """What the recorded comparison says of the question, once it has been guessed."""
    if not guess:
        return
    table = load_result("chain-cpu")
    apart = {
        row["title"]: max(gold) - min(gold)
        for row in table["methods"]
        if (gold := [run["gold/accuracy"] for run in table["runs"][row["method"]]])
    }
    middle = sorted(apart.values())[len(apart) // 2]
    right = GUESSES[(middle >= 0.02) + (middle > 0.10)]
    st.markdown(
        f"You said {guess}. Measured, best minus worst seed: {', '.join(f'{title} {gap:.2f}' for title, gap in apart.items())}; the middle one is {right}. A difference between two single runs of that size says nothing."
    )
    source_caption(table | {"seeds": table["plan"]["seeds"]})
