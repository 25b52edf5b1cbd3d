"""Page Runs: every run that there is; lay them over each other, replay them, take them away, delete
them.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd
import streamlit as st

from lab.analysis.recorded_results import load_result
from lab.config.json_format import to_dict
from lab.config.methods import make_config
from lab.config.number_text import number_text
from lab.dashboard.components import text
from lab.dashboard.components.config_widgets import label
from lab.dashboard.components.damaged_runs import say_damaged
from lab.dashboard.components.layout import (
    cannot_show,
    link,
    look_at,
    opening,
    plain,
    predict,
    source,
)
from lab.dashboard.components.replay_chart import replay_curves
from lab.dashboard.components.sample_table import samples
from lab.dashboard.pages.runs.delete import delete
from lab.dashboard.pages.runs.downloads import takeaway
from lab.dashboard.pages.train.page import MARK, MOST, as_curves, badge, pick, read_url
from lab.dashboard.state.run_cache import RunRecord, Snapshot, record
from lab.dashboard.state.shipped_runs import FOLDER as RECORDED
from lab.figures.palette import METHOD_NAMES
from lab.figures.seed_bands import Band, band_traces, families, grouped
from lab.figures.training_curves import RunCurves, default_panels
from lab.runs.folder import list_runs
from lab.runs.summary import Summary, summaries, summarise
from lab.storage.paths import runs_root

QUESTION = "How do the runs compare?"
SENTENCE = (
    "Every run that this lab has: yours are live, those that came with it are recorded. Pick some"
    " to lay them over each other and to replay them."
)
NO_EVENTS: defaultdict[str, tuple] = defaultdict(tuple)
ROWS = 6  # of the table that are seen without scrolling
GUESSES = ("under 0.02", "0.02 to 0.10", "over 0.10")


def page() -> None:
    """The page from top to bottom."""
    opening(QUESTION, SENTENCE)
    answer(
        predict(
            "Before you look: by how much do runs differ in final gold accuracy that are alike in"
            " everything but their seed?",
            GUESSES,
        )
    )
    root = runs_root()
    say_damaged(root)
    there = stored(root)
    if not there:
        st.markdown("There is no run yet. Start one on the page Train, and it is listed here.")
        delete(root, {})
        return
    above = st.container()
    names = shown_runs(there)
    with above:
        listing(there, names)
    if names:
        records = {name: record(str(there[name].path)) for name in names}
        snapshots = {name: r.snapshot() for name, r in records.items()}
        replayed(records, snapshots, overlay(snapshots, other_seeds(there, names)))
        differences({badge(name): s.started for name, s in snapshots.items()})
        takeaway({name: there[name] for name in names}, snapshots)
    delete(root, {name: s for name, s in there.items() if not name.startswith(MARK)})
    look_at(
        "Gold accuracy first: it is what the task says. Then what the runs differ in, in the table"
        " under the curves. A difference between two runs counts when it is larger than the band"
        " over seeds is wide. Replay a run to see what the model wrote when a curve turned."
    )
    cannot_show(
        "Runs of other machines, and how sure a difference is from one seed: start several seeds of"
        " each, which are then drawn as mean and band. The band is the 95 % interval of the mean"
        " over these seeds (Student's t): over two seeds it is wide because two say little. Runs"
        " that were steered live are alike only if they were steered alike."
    )


def stored(root: Path) -> dict[str, Summary]:
    """Every run in one line: those of the runs folder, newest first, then the recorded ones."""
    return {s.name: s for s in summaries(list_runs(root))} | {
        MARK + run.name: summarise(run) for run in list_runs(RECORDED)
    }


def listing(there: Mapping[str, Summary], shown: list[str]) -> None:
    """The table, narrowed by the search; rows that are picked in it are shown below."""
    asked = st.text_input(
        "Search",
        key="search",
        bind="query-params",
        placeholder="Search: grpo β 0.1 finished",
        label_visibility="collapsed",
        max_chars=100,
        help="Words that a run's name, method, state or knobs contain; a run must have them all.",
    )
    rows = {name: row(s, name.startswith(MARK)) for name, s in there.items()}
    wanted = (asked or "").lower().split()
    found = [
        name
        for name, columns in rows.items()
        if all(word in " ".join(map(str, columns.values())).lower() for word in wanted)
    ]
    st.session_state["listed"] = found
    st.session_state["table"] = {
        "selection": {
            "rows": [i for i, name in enumerate(found) if name in shown],
            "columns": [],
            "cells": [],
        }
    }
    frame = pd.DataFrame([rows[name] for name in found], columns=list(next(iter(rows.values()))))
    st.dataframe(
        frame,
        key="table",
        hide_index=True,
        on_select=take_rows,
        selection_mode="multi-row",
        height=38 + 35 * min(max(len(found), 1), ROWS),
        placeholder="",
        alt=f"{len(found)} of {len(there)} runs",
        column_config={
            "run": st.column_config.TextColumn(width=150),
            "kind": st.column_config.TextColumn(width=80),
            "method": st.column_config.TextColumn(width=90),
            "state": st.column_config.TextColumn(width=90),
            "knobs": st.column_config.TextColumn(width=190),
            "steps": st.column_config.TextColumn(width=95),
            "held-out loss": st.column_config.TextColumn(
                width=120, help="What own data without a task is measured by."
            ),
            "gold before": st.column_config.NumberColumn(format="%.2f", width=95),
            "gold after": st.column_config.NumberColumn(format="%.2f", width=95),
            "seconds": st.column_config.NumberColumn(
                format="%.0f", width=75, help="Of training, without evaluation."
            ),
            "started": st.column_config.DatetimeColumn(format="YYYY-MM-DD HH:mm", width=140),
        },
    )
    if len(found) < len(there):
        st.caption(f"{len(found)} of {len(there)} runs.")


def row(s: Summary, recorded: bool) -> dict[str, Any]:
    """A run as a row of the table."""
    before, after = s.gold or (None, None)
    return {
        "run": s.name,
        "kind": "recorded" if recorded else "live",
        "method": METHOD_NAMES[s.config["method"]],
        "state": s.state,
        "knobs": knobs_text(s.config),
        "gold before": before,
        "gold after": after,
        "held-out loss": "" if s.held_out is None else "{:.3f} → {:.3f}".format(*s.held_out),
        "steps": f"{s.step} of {s.config['steps']}",
        "seconds": s.seconds,
        "started": (
            None
            if recorded
            else datetime.fromtimestamp(s.started, ZoneInfo(st.context.timezone or "UTC")).replace(
                tzinfo=None
            )
        ),
    }


def knobs_text(config: Mapping[str, Any]) -> str:
    """The seed, and the knobs that are not at their defaults."""
    default = defaults(config["method"], bool(config.get("data")))
    odd = [k for k in config if config[k] != default[k] and k not in ("seed", "device", "steps")]
    return ", ".join(f"{label(k)} {number_text(config[k])}" for k in ["seed", *odd])


@cache
def defaults(method: str, own: bool = False) -> Mapping[str, Any]:
    """The knobs of a method where nobody has changed them, with `own` data or without."""
    return to_dict(make_config(method, {"data": "own"} if own else {}))


def take_rows() -> None:
    """Callback of the table: show the rows that are picked, and keep what is shown but not listed."""
    found = st.session_state["listed"]
    rows = [found[i] for i in st.session_state["table"]["selection"]["rows"] if i < len(found)]
    kept = [name for name in st.session_state.get("run", []) if name not in found or name in rows]
    st.session_state["run"] = list(dict.fromkeys([*kept, *rows]))[-MOST:]


def shown_runs(there: Mapping[str, Summary]) -> list[str]:
    """The runs to show, in the URL as ?run=a&run=b; at first, without any there, the newest two
    that have a number, or else two that are recorded.
    """
    paths, first = {name: s.path for name, s in there.items()}, "run" not in st.session_state
    read_url(paths)
    if first and not st.session_state["run"]:
        own = [
            name
            for name, s in there.items()
            if (s.gold or s.held_out) and not name.startswith(MARK)
        ][:2]
        st.session_state["run"] = own or [
            name for name in (f"{MARK}grpo", f"{MARK}dpo-that-collapses") if name in there
        ]
    return pick(paths)


def other_seeds(there: Mapping[str, Summary], names: list[str]) -> list[str]:
    """Runs that differ from the first shown one only in seed, one of each seed that is not shown
    yet.
    """
    first = names[0], there[names[0]].config
    alike = {
        name: s.config["seed"]
        for name, s in there.items()
        if name != names[0] and len(families(dict([first, (name, s.config)]), NO_EVENTS)) == 1
    }
    seen = {first[1]["seed"], *(alike[name] for name in names if name in alike)}
    more = {seed: name for name, seed in alike.items() if seed not in seen}
    return list(more.values())[: MOST - len(names)]


def add(more: list[str]) -> None:
    """Callback: show more runs, and their mean."""
    st.session_state["run"] = [*st.session_state["run"], *more]
    st.session_state["mean"] = True


def overlay(snapshots: Mapping[str, Snapshot], more: list[str]) -> int:
    """The curves over each other, single or as mean and band over seeds, up to the replayed step;
    returns that step.
    """
    curves, configs = as_curves(dict(snapshots)), {name: s.started for name, s in snapshots.items()}
    several = len(families(configs, {name: s.events for name, s in snapshots.items()})) < len(
        snapshots
    )
    row = st.container(horizontal=True, vertical_alignment="center", gap="medium")
    mean = row.toggle(
        "Mean and band over seeds",
        key="mean",
        bind="query-params",
        disabled=not several,
        help=(
            "Runs that are alike but for their seed become one line, in the 95 % interval of their"
            " mean."
        ),
    )
    if more:
        row.button(
            f"Add {len(more)} of other seeds",
            key="alike",
            on_click=add,
            args=(more,),
            help="Runs that differ from the first shown one only in seed.",
        )
    around: dict[str, dict[str, Band]] = {}
    if mean and several:
        curves, around = grouped(curves, configs)
        curves = [replace(c, label=c.label.replace(MARK, "")) for c in curves]
    drawn = {
        c.name: (
            replace(snapshots[c.name], columns=c.columns, points={})
            if c.name in around
            else snapshots[c.name]
        )
        for c in curves
    }
    panels = default_panels(curves)
    if not panels:
        st.markdown("These runs have no numbers yet.")
        return 0
    lines = [
        (
            spread(c, around[c.name])
            if c.name in around
            else f"**{plain(c.label)}** {text.caption(drawn[c.name])}"
        )
        for c in curves
    ]
    step = replay_curves(
        curves,
        drawn,
        panels,
        " ".join(lines),
        {name: band_traces(c, around[name], panels) for c in curves if (name := c.name) in around},
    )
    st.markdown("  \n".join(lines))
    return step


def spread(line: RunCurves, around: Mapping[str, Band]) -> str:
    """What a group of runs reached, with its interval, as markdown."""
    parts = []
    for name, word, form, unit in text.MEASURES:
        if name in around:
            step, middle, half = (column[-1] for column in around[name])
            parts.append(
                f"{word} {form.format(middle)} ± {form.format(half)}{unit}".replace("%", " %")
                + (f" at step {step}" if not parts else "")
            )
    return f"**{plain(line.label)}** {', '.join(parts)}."


def replayed(
    records: Mapping[str, RunRecord], snapshots: Mapping[str, Snapshot], step: int
) -> None:
    """What the policy wrote at the replayed step, or at the latest one before it that was kept."""
    names = list(records)
    if st.session_state.get("samples-of") not in names:
        st.session_state["samples-of"] = names[0]
    focus = (
        st.segmented_control(
            "Samples of", names, key="samples-of", required=True, format_func=badge
        )
        if len(names) > 1
        else names[0]
    )
    rows = records[focus].samples_at(step)
    if rows:
        samples(rows, snapshots[focus])
    else:
        st.caption(f"{badge(focus)} kept no samples up to step {step}.")
    if (records[focus].folder.path / "adapter" / "adapter_config.json").is_file() and snapshots[
        focus
    ].config["method"] != "reward_model":
        link("talk", "Talk", f"Let {badge(focus)} answer a prompt", run=focus)


def differences(configs: Mapping[str, Mapping[str, Any]]) -> None:
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
                {"knob": label(k)}
                | {
                    name: number_text(config[k]) if k in config else "–"
                    for name, config in configs.items()
                }
                for k in odd
            ]
        ),
        hide_index=True,
        key="differences",
        alt="The knobs in which the shown runs differ",
    )


def answer(guess: str | None) -> None:
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
        f"You said {guess}. Measured, best minus worst seed:"
        f" {', '.join(f'{title} {gap:.2f}' for title, gap in apart.items())}; the middle one is"
        f" {right}. A difference between two single runs of that size says nothing."
    )
    source(table | {"seeds": table["plan"]["seeds"]})
