"""The folded details under the curves: the numbers as a table, what to look at, the limits, the
command line.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import streamlit as st

from lab.dashboard.components import text
from lab.dashboard.components.layout import cannot_show
from lab.dashboard.state.run_cache import Snapshot
from lab.figures.run_curves import RunCurves, default_panels
from lab.runs.metrics import METRICS

MAX_TABLE_ROWS = 200  # a longer run is thinned to every second, third, … step


def details(root: Path, snapshots: Mapping[str, Snapshot]) -> None:
    """Show the folded details of the shown runs. Tables and commands are made only when opened."""
    names = default_panels(
        [RunCurves(name, s.config["method"], name, s.columns) for name, s in snapshots.items()]
    )
    table = st.expander("As a table", on_change="rerun", key="as-table")
    if table.open:
        for name, s in snapshots.items():
            table.text(name)
            table.dataframe(curves_table(s, names), key=f"table {name}")
    with st.expander("What to look at"):
        for name in names:
            st.markdown(
                f"**{METRICS[name].label}** ({METRICS[name].unit}). {METRICS[name].meaning} {METRICS[name].look_for}"
            )
    cannot_show(text.CANNOT_SHOW)
    source = st.expander(
        "Source, and the same run from the command line", on_change="rerun", key="source"
    )
    if source.open:
        for name, s in snapshots.items():
            source.code(
                text.train_command(s.started, f"{root.name}/{name}"),
                language="bash",
                wrap_lines=True,
            )
            source.caption(text.run_source(s))


def curves_table(
    run: Snapshot, names: list[str]
) -> Any:  # a pandas.DataFrame; pandas is imported when the table is opened
    """The metrics `names` of a run as a table with one row per step: at most `MAX_TABLE_ROWS` evenly
    spaced steps, with the last one.
    """
    import pandas as pd

    metrics = [name for name in names if name in run.columns]
    steps = sorted({step for name in metrics for step in run.columns[name][0]})
    table_steps = set(steps[::-1][:: max(1, -(-len(steps) // MAX_TABLE_ROWS))])
    values = {
        METRICS[name].label: {s: v for s, v in zip(*run.columns[name]) if s in table_steps}
        for name in metrics
    }
    return pd.DataFrame(values, index=pd.Index(sorted(table_steps), name="step"))
