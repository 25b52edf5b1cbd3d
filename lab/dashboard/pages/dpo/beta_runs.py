"""Section of page DPO: whole runs that differ in β."""

from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from lab.analysis.recorded_results import load_result, recorded_result
from lab.dashboard.components.layout import page_link, source_caption
from lab.dashboard.components.slider_figure import Slider, slider_figure
from lab.dashboard.pages.dpo.loss_figure import FULL_WIDTH
from lab.dashboard.state.user_runs import UserRun, measures_at_step, user_runs
from lab.figures.beta_sweep import BETA_MEASURES, beta_sweep_figure

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
    """KL at the lowest and the highest β, after a few updates and at the end; says so if the
    experiment is not recorded.
    """
    if recorded_result("beta") is None:
        return "Which of the two wins in a whole run is not recorded yet."
    rows = sorted(beta_rows("dpo"), key=lambda row: row["beta"])
    low, high, looks = rows[0], rows[-1], rows[0]["steps"]
    clauses = [
        f"after {looks[at]} updates {low['kl']['mean'][at]:.2f} nats at β = {low['beta']:g} and"
        f" {high['kl']['mean'][at]:.2f} at β = {high['beta']:g}"
        for at in (1, len(looks) - 1)
    ]
    return f"Measured as KL to the reference: {clauses[0]}; {clauses[1]}."


@st.cache_resource(show_spinner=False)
def beta_rows(method: str) -> list[dict[str, Any]]:
    """The rows of the recorded β experiment for one method. Shared by all sessions; do not change
    it.
    """
    return [row for row in load_result("beta")["rows"] if row["method"] == method]


def draw_beta_runs(step: int, method: str, runs: tuple[UserRun, ...]) -> go.Figure:
    """The figure of runs against β after `step` updates, with the user's runs."""
    return beta_sweep_figure(beta_rows(method), step, measures_at_step(runs, step))


def beta_sentence(step: int, method: str, runs: tuple[UserRun, ...]) -> str:
    """Which β has moved furthest after `step` updates and which is most accurate, in numbers."""
    rows = sorted(beta_rows(method), key=lambda row: row["beta"])
    at = rows[0]["steps"].index(step)
    kl = {row["beta"]: row["kl"]["mean"][at] for row in rows}
    farthest, nearest = max(kl, key=kl.__getitem__), min(kl, key=kl.__getitem__)
    best = max(rows, key=lambda row: row["gold/accuracy"]["mean"][at])
    if not step:
        return "Before the first update policy and reference are the same at every β."
    return (
        f"After {step} updates the policy with β = {farthest:g} has gone furthest, {kl[farthest]:.2f} nats"
        f" of KL; the one with β = {nearest:g} is nearest, {kl[nearest]:.2f}. Gold accuracy is highest"
        f" at β = {best['beta']:g}: {best['gold/accuracy']['mean'][at]:.2f}."
    )


def beta_section() -> None:
    """Show runs that differ in β, with a slider over their updates."""
    result = recorded_result("beta")
    if result is None:
        return
    st.subheader("What β did to whole runs", anchor=False)
    looks = tuple(result["plan"]["looks"])
    runs = user_runs("dpo", looks)
    updates_slider = Slider("after", "after updates", looks, start=looks[-1], play=True)
    step = slider_figure(
        draw_beta_runs,
        key="beta-runs",
        alt=ALT_TEXT,
        sliders=[updates_slider],
        sentence=beta_sentence,
        arguments=("dpo", runs),
        narrow=NARROW_LAYOUT,
    )["after"]
    table = pd.DataFrame(
        [
            {"β": row["beta"]}
            | {
                name: (
                    f"{row[m]['mean'][row['steps'].index(step)]:.2f} ±"
                    f" {row[m]['half'][row['steps'].index(step)]:.2f}"
                )
                for m, name in BETA_MEASURES.items()
            }
            for row in beta_rows("dpo")
        ]
    )
    with st.expander("As a table"):
        st.dataframe(table, hide_index=True, key="beta-table")
    user_runs_note = (
        f" Stars: your own DPO runs ({', '.join(run.name for run in runs)}); chosen and rejected are"
        " of one training batch."
        if runs
        else ""
    )
    source_caption(result, f"Bars are 95 % intervals.{user_runs_note}")
    if recorded_result("frontier"):
        page_link(
            "choose",
            "Choose a method",
            "What β does on a real language model: reward against KL, five methods",
        )
