"""Section of page DPO: whole runs that differ in β."""

from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from lab.analysis.recorded_results import load_result, recorded_result
from lab.dashboard.components.layout import page_link, source_caption
from lab.dashboard.components.slider_figure import Slider, slider_figure
from lab.dashboard.pages.dpo.loss_figure import FULL_WIDTH
from lab.dashboard.state.user_runs import measures_at_step, user_runs
from lab.figures.dpo import MEASURES, over_beta

ALT_TEXT = (
    "Four panels against β after the picked number of updates: KL to the reference, gold accuracy,"
    " and how far chosen and rejected completions have moved."
)

NARROW_LAYOUT = {
    "height": 1150,
    **{f"xaxis{n}": FULL_WIDTH for n in ("", 2, 3, 4)},
    **{
        f"yaxis{n}": {"domain": [0.79 - 0.26 * i, 0.98 - 0.26 * i]}
        for i, n in enumerate(("", 2, 3, 4))
    },
}


def early_updates_sentence() -> str:
    """What was measured of β after a few updates and at the end; nothing where it has not been
    recorded.
    """
    table = recorded_result("beta")
    if table is None:
        return "Which of the two wins in a whole run is not recorded yet."
    rows = sorted(beta_rows("dpo"), key=lambda row: row["beta"])
    low, high, looks = rows[0], rows[-1], rows[0]["steps"]
    said = [
        f"after {looks[at]} updates {low['kl']['mean'][at]:.2f} nats at β = {low['beta']:g} and"
        f" {high['kl']['mean'][at]:.2f} at β = {high['beta']:g}"
        for at in (1, len(looks) - 1)
    ]
    return f"Measured as KL to the reference: {said[0]}; {said[1]}."


@st.cache_resource(show_spinner=False)
def beta_rows(method: str) -> list[dict[str, Any]]:
    """The rows of the recorded experiment with β for one method; nobody changes them."""
    return [row for row in load_result("beta")["rows"] if row["method"] == method]


def draw_beta_runs(step: int, method: str, own: tuple) -> go.Figure:
    """Runs against β after a number of updates, and own runs beside."""
    return over_beta(beta_rows(method), step, measures_at_step(own, step))


def beta_sentence(step: int, method: str, own: tuple) -> str:
    """Which reading of β holds at this step, in numbers."""
    rows = sorted(beta_rows(method), key=lambda row: row["beta"])
    at = rows[0]["steps"].index(step)
    kl = {row["beta"]: row["kl"]["mean"][at] for row in rows}
    most, least = max(kl, key=kl.get), min(kl, key=kl.get)
    gold = max(rows, key=lambda row: row["gold/accuracy"]["mean"][at])
    if not step:
        return "Before the first update policy and reference are the same at every β."
    return (
        f"After {step} updates the policy with β = {most:g} has gone furthest, {kl[most]:.2f} nats"
        f" of KL; the one with β = {least:g} is nearest, {kl[least]:.2f}. Gold accuracy is highest"
        f" at β = {gold['beta']:g}: {gold['gold/accuracy']['mean'][at]:.2f}."
    )


def beta_section() -> None:
    """Whole runs that differ in β."""
    table = recorded_result("beta")
    if table is None:
        return
    st.subheader("What β did to whole runs", anchor=False)
    looks = tuple(table["plan"]["looks"])
    own = user_runs("dpo", looks)
    after = Slider("after", "after updates", looks, start=looks[-1], play=True)
    step = slider_figure(
        draw_beta_runs,
        key="beta-runs",
        alt=ALT_TEXT,
        sliders=[after],
        says=beta_sentence,
        given=("dpo", own),
        narrow=NARROW_LAYOUT,
    )["after"]
    frame = pd.DataFrame(
        [
            {"β": row["beta"]}
            | {
                name: (
                    f"{row[m]['mean'][row['steps'].index(step)]:.2f} ±"
                    f" {row[m]['half'][row['steps'].index(step)]:.2f}"
                )
                for m, name in MEASURES.items()
            }
            for row in beta_rows("dpo")
        ]
    )
    with st.expander("As a table"):
        st.dataframe(frame, hide_index=True, key="beta-table")
    mine = (
        f" Stars: your own DPO runs ({', '.join(run[0] for run in own)}); chosen and rejected are"
        " of one training batch."
        if own
        else ""
    )
    source_caption(table, f"Bars are 95 % intervals.{mine}")
    if recorded_result("frontier"):
        page_link(
            "choose",
            "Choose a method",
            "What β does on a real language model: reward against KL, five methods",
        )
