"""The table of all runs on page Runs, with its search."""

from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo

import streamlit as st

from lab.config.json_format import to_dict
from lab.config.methods import make_config
from lab.config.number_text import number_text
from lab.dashboard.components.config_widgets import knob_label
from lab.dashboard.state.run_selection import MAX_SHOWN_RUNS, SHIPPED_PREFIX
from lab.dashboard.state.shipped_runs import SHIPPED_TITLES
from lab.figures.palette import METHOD_NAMES
from lab.runs.import_run import is_imported
from lab.runs.summary import Summary

VISIBLE_ROWS = 6  # without scrolling


def run_table(runs: Mapping[str, Summary], shown_names: list[str]) -> None:
    """Show the table of all runs that match the search. `shown_names`: names of the shown runs, whose rows are
    selected; selecting a row shows its run.
    """
    import pandas as pd

    search = st.text_input(
        "Search",
        key="search",
        bind="query-params",
        placeholder="Search: grpo β 0.1 finished",
        label_visibility="collapsed",
        max_chars=100,
        help="Finds the runs whose name, method, state or settings contain all of these words.",
    )
    rows = {name: table_row(s, name.startswith(SHIPPED_PREFIX)) for name, s in runs.items()}
    search_words = (search or "").lower().split()
    matches = [
        name
        for name, columns in rows.items()
        if all(word in " ".join(map(str, columns.values())).lower() for word in search_words)
    ]
    st.session_state["listed"] = matches
    st.session_state["table"] = {
        "selection": {
            "rows": [i for i, name in enumerate(matches) if name in shown_names],
            "columns": [],
            "cells": [],
        }
    }
    frame = pd.DataFrame([rows[name] for name in matches], columns=list(next(iter(rows.values()))))
    st.dataframe(
        frame,
        key="table",
        hide_index=True,
        on_select=show_selected_rows,
        selection_mode="multi-row",
        height=38 + 35 * min(max(len(matches), 1), VISIBLE_ROWS),
        placeholder="",
        alt=f"{len(matches)} of {len(runs)} runs",
        column_config=_column_config(),
    )
    if len(matches) < len(runs):
        st.caption(f"{len(matches)} of {len(runs)} runs.")


def _column_config() -> dict[str, Any]:
    return {
        "run": st.column_config.TextColumn(width=180),
        "kind": st.column_config.TextColumn(width=80),
        "method": st.column_config.TextColumn(width=90),
        "state": st.column_config.TextColumn(width=90),
        "settings": st.column_config.TextColumn(width=160),
        "steps": st.column_config.TextColumn(width=95),
        "held-out loss": st.column_config.TextColumn(
            width=120, help="The measure for your own data without a task."
        ),
        "gold before": st.column_config.NumberColumn(
            format="%.2f", width=95, help="Gold accuracy before training."
        ),
        "gold after": st.column_config.NumberColumn(
            format="%.2f", width=95, help="Gold accuracy at the last evaluation."
        ),
        "seconds": st.column_config.NumberColumn(
            format="%.0f", width=75, help="Seconds of training, without evaluation."
        ),
        "started": st.column_config.DatetimeColumn(format="YYYY-MM-DD HH:mm", width=140),
    }


def table_row(s: Summary, recorded: bool) -> dict[str, Any]:
    """A run as a row of the table: column title → value."""
    before, after = s.gold or (None, None)
    return {
        "run": SHIPPED_TITLES.get(s.name, s.name) if recorded else s.name,
        "kind": "recorded" if recorded else "imported" if is_imported(s.path) else "own",
        "method": METHOD_NAMES[s.config["method"]],
        "state": s.state,
        "settings": knobs_text(s.config),
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
    """The seed and the knobs that are not at their defaults, as text."""
    default = default_knobs(config["method"], bool(config.get("data")))
    changed = [
        knob
        for knob in config
        if config[knob] != default[knob] and knob not in ("seed", "device", "steps")
    ]
    return ", ".join(
        f"{knob_label(knob)} {number_text(config[knob])}" for knob in ["seed", *changed]
    )


@cache
def default_knobs(method: str, has_user_data: bool = False) -> Mapping[str, Any]:
    """The default knobs of a method, for a run with or without the user's data."""
    return to_dict(make_config(method, {"data": "own"} if has_user_data else {}))


def show_selected_rows() -> None:
    """Callback of the table: show the runs of the selected rows. Shown runs that do not match the search
    stay shown.
    """
    matches = st.session_state["listed"]
    rows = [matches[i] for i in st.session_state["table"]["selection"]["rows"] if i < len(matches)]
    still_shown = [
        name for name in st.session_state.get("run", []) if name not in matches or name in rows
    ]
    st.session_state["run"] = list(dict.fromkeys([*still_shown, *rows]))[-MAX_SHOWN_RUNS:]
