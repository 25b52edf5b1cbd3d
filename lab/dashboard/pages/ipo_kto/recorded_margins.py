"""Section of page IPO and KTO: the margins of recorded runs of DPO, IPO and KTO."""

from collections.abc import Mapping
from statistics import fmean
from typing import Any

import streamlit as st

from lab.analysis.recorded_results import load_result
from lab.dashboard.components.layout import figure, source_caption
from lab.dashboard.pages.ipo_kto.margin_figure import NARROW_LAYOUT as MARGIN_LAYOUT
from lab.figures.ipo import margins_over_steps
from lab.figures.palette import METHOD_NAMES

ALT_TEXT = (
    "Recorded runs of DPO, IPO and KTO with β = 0.1. Left: the margins of the same pairs over the"
    " updates, as mean and as a band with the middle 80 % of the pairs. Right: how far the chosen"
    " and the rejected completions of these pairs have moved from the reference."
)

NARROW_LAYOUT = MARGIN_LAYOUT | {
    "height": 800,
    "yaxis": {"domain": [0.62, 1]},
    "yaxis2": {"domain": [0, 0.36]},
    "legend2": {"x": 0, "y": 0.37},
}


@st.cache_resource(show_spinner=False)
def recorded_runs_by_method() -> dict[str, dict[str, Any]]:
    """By method, the recorded runs of DPO, IPO and KTO with their defaults. Shared by all sessions; do
    not change it.
    """
    return {
        row["method"]: row
        for row in load_result("margins")["rows"]
        if row["seed"] == 0 and row["name"] == METHOD_NAMES[row["method"]]
    }


def recorded_margins() -> None:
    """Show the margins of the recorded runs over their updates."""
    import pandas as pd

    rows, table = recorded_runs_by_method(), load_result("margins")
    st.subheader("Three recorded runs on the same pairs", anchor=False)
    target = 1 / (2 * rows["ipo"]["beta"])
    step_table = pd.DataFrame(
        [
            {
                "method": METHOD_NAMES[method],
                "step": step,
                "margin, mean": fmean(row["margins"][at]),
                "margin, largest": max(row["margins"][at]),
                "chosen, mean": fmean(row["chosen"][at]),
                "rejected, mean": fmean(row["rejected"][at]),
                "gold accuracy": row["gold/accuracy"][at],
            }
            for method, row in rows.items()
            for at, step in enumerate(row["steps"])
        ]
    )
    figure(
        margins_over_steps(list(rows.values()), target),
        "runs",
        ALT_TEXT,
        step_table,
        narrow=NARROW_LAYOUT,
    )
    st.markdown(recorded_margins_sentence(rows, target))
    source_caption(table, "A band holds the middle 80 % of the pairs. h is not multiplied by β.")


def recorded_margins_sentence(rows: Mapping[str, Mapping[str, Any]], target: float) -> str:
    """A sentence of the article beside the numbers of the recorded runs."""
    dpo, ipo = rows["dpo"], rows["ipo"]
    num_over = sum(h > target for h in dpo["margins"][-1])
    return (
        "The article: “IPO adds a regularization term … so the model doesn’t need to push the"
        f" margin of preference pairs to infinity”. Measured after {dpo['steps'][-1]} updates: DPO"
        f" has {num_over} of {len(dpo['margins'][-1])} margins above {target:g} nats, and its"
        f" largest margin is {max(dpo['margins'][-1]):.0f} nats. IPO has"
        f" {sum(h > target for h in ipo['margins'][-1])} margins above {target:g} nats, and its"
        f" largest is {max(ipo['margins'][-1]):.1f} nats. Gold accuracy (the share of right answers"
        f" on held-out prompts) is {dpo['gold/accuracy'][-1]:.2f} for DPO,"
        f" {ipo['gold/accuracy'][-1]:.2f} for IPO and {rows['kto']['gold/accuracy'][-1]:.2f} for"
        " KTO."
    )
