"""What is there under the curves for those who want it: the numbers as a table, what to look at,
the limits, the command line.
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

MAX_TABLE_ROWS = 200  # of the table; of a longer run every second, third, … step


def details(root: Path, snapshots: Mapping[str, Snapshot]) -> None:
    """The folded part of the page; what is slow to draw there is made when it is opened."""
    names = default_panels(
        [RunCurves(name, s.config["method"], name, s.columns) for name, s in snapshots.items()]
    )
    opened = st.expander("As a table", on_change="rerun", key="as-table")
    if opened.open:
        for name, s in snapshots.items():
            opened.text(name)
            opened.dataframe(curves_table(s, names), key=f"table {name}")
    with st.expander("What to look at"):
        for name in names:
            st.markdown(
                f"**{METRICS[name].label}** ({METRICS[name].unit}). {METRICS[name].meaning} {METRICS[name].look_for}"
            )
    cannot_show(text.CANNOT_SHOW)
    source = st.expander(
        "Source, and the same from the command line", on_change="rerun", key="source"
    )
    if source.open:
        for name, s in snapshots.items():
            source.code(
                text.train_command(s.started, f"{root.name}/{name}"),
                language="bash",
                wrap_lines=True,
            )
            source.caption(text.run_source(s))


def curves_table(run: Snapshot, names: list[str]) -> Any:
    """The curves of a run as a table, one row a step, at most `ROWS` of them evenly spaced and the
    last among them.
    """
    import pandas as pd

    there = [name for name in names if name in run.columns]
    steps = sorted({step for name in there for step in run.columns[name][0]})
    kept = set(steps[::-1][:: max(1, -(-len(steps) // MAX_TABLE_ROWS))])
    values = {
        METRICS[name].label: {s: v for s, v in zip(*run.columns[name]) if s in kept}
        for name in there
    }
    return pd.DataFrame(values, index=pd.Index(sorted(kept), name="step"))
