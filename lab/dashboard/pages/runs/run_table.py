"""The table of all runs on page Runs, with its search."""

from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd
import streamlit as st

from lab.config.methods import make_config, to_dict
from lab.dashboard.components.config_widgets import knob_label
from lab.dashboard.state.run_selection import MAX_SHOWN_RUNS, SHIPPED_PREFIX
from lab.figures.palette import METHOD_NAMES
from lab.figures.training_curves import number
from lab.runs.summary import Summary

VISIBLE_ROWS = 6  # of the table that are seen without scrolling


def run_table(there: Mapping[str, Summary], shown: list[str]) -> None:
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
    rows = {name: table_row(s, name.startswith(SHIPPED_PREFIX)) for name, s in there.items()}
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
        on_select=show_selected_rows,
        selection_mode="multi-row",
        height=38 + 35 * min(max(len(found), 1), VISIBLE_ROWS),
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


def table_row(s: Summary, recorded: bool) -> dict[str, Any]:
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
    default = default_knobs(config["method"], bool(config.get("data")))
    odd = [k for k in config if config[k] != default[k] and k not in ("seed", "device", "steps")]
    return ", ".join(f"{knob_label(k)} {number(config[k])}" for k in ["seed", *odd])


@cache
def default_knobs(method: str, own: bool = False) -> Mapping[str, Any]:
    """The knobs of a method where nobody has changed them, with `own` data or without."""
    return to_dict(make_config(method, {"data": "own"} if own else {}))


def show_selected_rows() -> None:
    """Callback of the table: show the rows that are picked, and keep what is shown but not listed."""
    found = st.session_state["listed"]
    rows = [found[i] for i in st.session_state["table"]["selection"]["rows"] if i < len(found)]
    kept = [name for name in st.session_state.get("run", []) if name not in found or name in rows]
    st.session_state["run"] = list(dict.fromkeys([*kept, *rows]))[-MAX_SHOWN_RUNS:]
