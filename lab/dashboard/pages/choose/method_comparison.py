"""A recorded comparison of methods: figure, table, and the differences between methods."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import streamlit as st

from lab.analysis.recorded_results import Comparison
from lab.analysis.statistics import Interval, possible_range
from lab.dashboard.components.layout import figure, theme
from lab.figures.comparison import gold_against_kl
from lab.runs.metrics import METRICS

if TYPE_CHECKING:
    import pandas as pd

NUMBERS_TITLE = "The numbers, and where they come from"
NARROW_LAYOUT = {
    "height": 490,
    "showlegend": True,  # in place of the names at the right edge
    "annotations": [],
    "margin": {"r": 10},
    "legend": {"orientation": "h", "x": 0, "y": -0.26, "yanchor": "top"},
    "xaxis": {"title": {"text": "KL(π‖π_ref), nats (log scale)"}},
}
COLUMN_TITLES = {
    "gold/accuracy": "gold accuracy",
    "kl": "KL, nats",
    "proxy": "proxy reward",
    "completions/mean_length": "length, tokens",
    "updates": "updates",
    "tokens": "tokens",
    "sampled": "tokens sampled",
    "trained": "tokens trained on",
    "seconds": "seconds",
}
"""By measure of every comparison its column title. Measures of one task alone have their title in
`METRICS`.
"""


def method_comparison(measured: Comparison, key: str, text: str, source: str) -> None:
    """Show the gold accuracy of a comparison's methods over their KL and, folded, the numbers, the
    differences between methods and the source. `text` is for screen readers.
    """
    figure(
        gold_against_kl(measured.table["methods"], measured.base, theme()),
        key,
        "Gold accuracy of every method against its KL to the reference, with intervals. " + text,
        narrow=NARROW_LAYOUT,
    )
    fold = st.expander(NUMBERS_TITLE, on_change="rerun", key=f"{key}-numbers")
    if not fold.open:
        return
    with fold:
        st.dataframe(comparison_frame(measured.table), hide_index=True, key=f"{key}-table")
        st.markdown("Differences in gold accuracy between every two methods:")
        st.dataframe(differences_frame(measured), hide_index=True, key=f"{key}-differences")
        st.caption(measured.differences_note())
        st.caption(source)


def comparison_frame(table: Mapping[str, Any]) -> "pd.DataFrame":
    """The measures of every method as a table."""
    import pandas as pd

    measures = table["methods"][0]
    task_measures = [
        name for name in measures if name not in COLUMN_TITLES and f"gold/{name}" in METRICS
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
                title: interval_text(row[name], name)
                for name, title in titles.items()
                if name in measures
            }
            for row in table["methods"]
        ]
    )


def interval_text(measure: Mapping[str, float], name: str) -> str:
    """A mean with its interval and two decimals, or three digits if it is large."""
    digits = 2 if abs(measure["mean"]) < 100 else 0
    return Interval(measure["mean"], measure["half"]).text(digits, possible_range(name))


def differences_frame(measured: Comparison) -> "pd.DataFrame":
    """The differences in gold accuracy between every two methods and their words, as a table."""
    import pandas as pd

    return pd.DataFrame(
        [
            {
                "first": measured.title(first),
                "second": measured.title(second),
                "first − second": judgement.difference.interval.signed(3),
                "the first is": judgement.word,
            }
            for first, second, judgement in measured.differences()
        ]
    )
