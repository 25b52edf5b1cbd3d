"""Section of page DPO: whole runs that differ in β."""

from typing import Any

import plotly.graph_objects as go
import streamlit as st

from lab.analysis.comparison_words import judge, recorded_difference
from lab.analysis.recorded_results import load_result, recorded_result
from lab.analysis.statistics import SHARE, Interval, possible_range
from lab.dashboard.components.layout import folded_table, page_link, source_caption
from lab.dashboard.components.slider_figure import Slider, slider_figure
from lab.dashboard.pages.dpo.loss_figure import FULL_WIDTH
from lab.dashboard.state.user_runs import UserRun, measures_at_step, user_runs
from lab.figures.beta_sweep import BETA_MEASURES, beta_sweep_figure

ALT_TEXT = (
    "Four panels over β, after the picked number of updates: KL to the reference, gold accuracy,"
    " and how far the chosen and the rejected completions have moved from the reference."
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
        return "Whole runs are not recorded yet."
    rows = sorted(beta_rows("dpo"), key=lambda row: row["beta"])
    low, high, looks = rows[0], rows[-1], rows[0]["steps"]
    clauses = [
        f"After {looks[at]} updates it is {low['kl']['mean'][at]:.2f} nats at β = {low['beta']:g}"
        f" and {high['kl']['mean'][at]:.2f} nats at β = {high['beta']:g}."
        for at in (1, len(looks) - 1)
    ]
    return f"The lab measured the KL to the reference. {' '.join(clauses)}"


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
        return "Before the first update, policy and reference are equal at every β."
    seeds = load_result("beta")["seeds"]
    highest, *others = sorted(
        (_accuracy(row, at) for row in rows), key=lambda interval: -interval.mean
    )
    judged = judge([recorded_difference(highest, other, seeds) for other in others])
    better = sum(judgement.is_sure for judgement in judged)
    return (
        f"After {step} updates, the policy with β = {farthest:g} is furthest from the reference"
        f" (mean KL {kl[farthest]:.2f} nats), and the policy with β = {nearest:g} is nearest"
        f" ({kl[nearest]:.2f} nats). The highest mean gold accuracy is at β = {best['beta']:g}:"
        f" {highest.text(2, SHARE)}. It is better than {better} of the other {len(others)}"
        f" ({seeds} seeds, Holm's correction)."
    )


def _accuracy(row: dict[str, Any], at: int) -> Interval:
    return Interval(row["gold/accuracy"]["mean"][at], row["gold/accuracy"]["half"][at])


def beta_table(step: int) -> list[dict[str, Any]]:
    """A row for each β after `step` updates: its measures with their intervals, as text."""
    return [
        {"β": row["beta"]}
        | {
            name: Interval(
                row[m]["mean"][row["steps"].index(step)], row[m]["half"][row["steps"].index(step)]
            ).text(2, possible_range(m))
            for m, name in BETA_MEASURES.items()
        }
        for row in beta_rows("dpo")
    ]


def beta_section() -> None:
    """Show runs that differ in β, with a slider over their updates."""
    result = recorded_result("beta")
    if result is None:
        return
    st.subheader("Whole runs with other values of β", anchor=False)
    looks = tuple(result["plan"]["looks"])
    runs = user_runs("dpo", looks)
    updates_slider = Slider("after", "number of updates", looks, start=looks[-1], play=True)
    step = slider_figure(
        draw_beta_runs,
        key="beta-runs",
        alt=ALT_TEXT,
        sliders=[updates_slider],
        sentence=beta_sentence,
        arguments=("dpo", runs),
        narrow=NARROW_LAYOUT,
    )["after"]
    folded_table(lambda: beta_table(int(step)), "beta-table")
    user_runs_note = (
        f" Stars: your own DPO runs ({', '.join(run.name for run in runs)}). Their values for chosen"
        " and rejected come from one training batch."
        if runs
        else ""
    )
    source_caption(result, f"Bars are 95 % intervals.{user_runs_note}")
    if recorded_result("frontier"):
        page_link(
            "choose",
            "Choose a method",
            "The effect of β on a real language model, for five methods",
        )
