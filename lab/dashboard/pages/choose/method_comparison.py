"""A recorded comparison of methods: figure, table, and paired differences."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st

from lab.dashboard.components.layout import figure, theme
from lab.figures.comparison import gold_against_kl
from lab.runs.metrics import METRICS

NARROW_LAYOUT = {
    "height": 640,
    "legend": {"orientation": "h", "x": 0, "y": -0.16, "yanchor": "top"},
    "xaxis": {"title": {"text": "KL(π‖π_ref), nats (log scale)"}},
}
COLUMN_TITLES = {
    "gold/accuracy": "gold accuracy",
    "kl": "KL, nats",
    "proxy": "proxy reward",
    "completions/mean_length": "length, tokens",
    "updates": "updates",
    "tokens": "tokens",
    "seconds": "seconds",
}
"""By measure of every comparison its column title. Measures of one task alone have their title in
`METRICS`.
"""


def method_comparison(table: Mapping[str, Any], key: str, text: str) -> None:
    """Show the gold accuracy of a comparison's methods over their KL and, folded, the numbers and the
    paired differences. `text` is for screen readers.
    """
    figure(
        gold_against_kl(table["methods"], table["base"], theme()),
        key,
        "Gold accuracy of every method against its KL to the reference, with intervals. " + text,
        comparison_frame(table),
        NARROW_LAYOUT,
    )
    with st.expander("Paired differences in gold accuracy"):
        st.dataframe(paired_differences(table), hide_index=True, key=f"{key}-differences")


def comparison_frame(table: Mapping[str, Any]) -> pd.DataFrame:
    """The measures of every method as a table."""
    task_measures = [
        name for name in table["base"] if name not in COLUMN_TITLES and name != "gold/format"
    ]
    first = {
        "gold/accuracy": COLUMN_TITLES["gold/accuracy"],
        "kl": COLUMN_TITLES["kl"],
        "proxy": COLUMN_TITLES["proxy"],
    }
    titles = first | {name: METRICS[f"gold/{name}"].label for name in task_measures} | COLUMN_TITLES
    return pd.DataFrame(
        [
            {"method": row["title"]}
            | {
                title: f"{row[name]['mean']:.3g} ± {row[name]['half']:.2g}"
                for name, title in titles.items()
            }
            for row in table["methods"]
        ]
    )


def paired_differences(table: Mapping[str, Any]) -> pd.DataFrame:
    """The differences in gold accuracy between pairs of methods, as a table."""
    titles = {row["method"]: row["title"] for row in table["methods"]}
    return pd.DataFrame(
        [
            {
                "first": titles[d["first"]],
                "second": titles[d["second"]],
                "difference": f"{d['mean']:+.3f} ± {d['half']:.3f}",
                "sure": "yes" if abs(d["mean"]) > d["half"] else "the interval holds 0",
            }
            for d in table["differences in gold/accuracy"]
        ]
    )
