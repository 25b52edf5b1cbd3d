"""Page DPO: its loss along the margin, the pairs of a real run on it, and what β does to whole
runs.
"""

from collections.abc import Mapping
from functools import lru_cache
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from lab.analysis.recorded_results import load_result, recorded_result
from lab.dashboard.components.layout import (
    cannot_show,
    in_url,
    link,
    look_at,
    opening,
    predict,
    source,
)
from lab.dashboard.components.slider_figure import Slider, explore
from lab.dashboard.state.user_runs import at_looks, own_runs
from lab.figures.beta_sweep import BETA_MEASURES, beta_sweep_figure
from lab.figures.dpo import loss_and_pairs

QUESTION = "What does the DPO loss push, and how hard?"
SENTENCE = (
    "The loss sees one number of a pair: the margin h, by how much the policy prefers the chosen"
    " completion to the rejected one, compared with the reference. Drag β and watch the curve; drag"
    " the step and watch the pairs of a real run slide down it."
)
PRESETS = (0.05, 0.1, 0.2, 0.5)  # the article's
TENTHS = (10, 11, 12, 13, 15, 17, 20, 22, 25, 28, 32, 36, 40, 45, 50, 56, 63, 70, 80, 90)
BETA = Slider(
    "beta",
    "β",
    (*(n / 1000 for n in TENTHS), *(n / 100 for n in TENTHS), 1.0),
    start=0.1,
    presets=PRESETS,
)
GRID = tuple(h / 4 for h in range(-80, 201))  # nats
GUESSES = ("it rises", "it stays", "it falls")
ALT = (
    "Left, above: the DPO loss against the margin of a pair, falling from left to right, with the"
    " pairs of a recorded run as points on it. Left, below: how hard descent pushes the margin up"
    " there, on a logarithmic scale. Right: how far the chosen and the rejected completions of"
    " those pairs have moved from the reference, over the updates of the run."
)
ALT_BETA = (
    "Four panels against β after the picked number of updates: KL to the reference, gold accuracy,"
    " and how far chosen and rejected completions have moved."
)
WIDE = {"domain": [0, 1]}
NARROW = {
    "height": 900,
    "legend": {"y": 1.0},
    "legend2": {"x": 0, "y": 0.29, "yanchor": "bottom"},
    "annotations": [],
    "xaxis": WIDE,
    "xaxis2": WIDE,
    "yaxis": {"domain": [0.68, 0.97]},
    "yaxis2": {"domain": [0.42, 0.64]},
    "yaxis3": {"domain": [0, 0.28]},
}
NARROW_BETA = {
    "height": 1150,
    **{f"xaxis{n}": WIDE for n in ("", 2, 3, 4)},
    **{
        f"yaxis{n}": {"domain": [0.79 - 0.26 * i, 0.98 - 0.26 * i]}
        for i, n in enumerate(("", 2, 3, 4))
    },
}


@st.cache_resource(show_spinner=False)
def recorded() -> dict[str, dict[str, Any]]:
    """The recorded DPO runs by title: steps, and at each the margins of fixed pairs and log π − log
    π_ref of both sides; nobody changes them.
    """
    return {
        row["name"]: row
        for row in load_result("margins")["rows"]
        if row["method"] == "dpo" and row["seed"] == 0
    }


@lru_cache(maxsize=2000)
def curve(
    beta: float, margins: tuple[float, ...] = GRID
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """h, loss and push, for all sessions, none of which changes them; torch is loaded when the
    first is asked for.
    """
    from lab.analysis.loss_curves import along_margin

    found = along_margin("dpo", margins, beta=beta)
    return np.array(found.x), np.array(found.loss), np.array(found.push)


def signed(nats: float) -> str:
    """Such as "−3.2"."""
    return f"{nats:+.1f}".replace("-", "−")


def drawn(beta: float, step: int, run: str) -> go.Figure:
    """The loss at β with the pairs of the recorded run at a step."""
    row = recorded()[run]
    at = row["steps"].index(step)
    sides = {side: [fmean(values) for values in row[side]] for side in ("chosen", "rejected")}
    return loss_and_pairs(
        curve(beta),
        [curve(other) for other in PRESETS],
        curve(beta, tuple(row["margins"][at])),
        sides,
        row["steps"],
        step,
        beta,
        f"β = {', '.join(f'{b:g}' for b in PRESETS)}",
    )


def sentence(beta: float, step: int, run: str) -> str:
    """What the figure shows, in numbers."""
    row = recorded()[run]
    at = row["steps"].index(step)
    margins = row["margins"][at]
    _, (start,), (push,) = curve(beta, (0.0,))
    pushes = curve(beta, tuple(margins))[2]
    tired = (pushes < push / 10).sum() or "none"
    chosen, rejected = fmean(row["chosen"][at]), fmean(row["rejected"][at])
    return (
        f"β = {beta:g}: at h = 0 the loss is {start:.3f} and the push {push:.3g} per nat. After"
        f" {step} updates (the run trained with β = {row['beta']:g}) the mean margin of its"
        f" {len(margins)} pairs is {signed(fmean(margins))} nats, {sum(h > 0 for h in margins)} are"
        f" above 0, and under this β {tired} feel less than a tenth of the first push. Chosen"
        f" completions moved by {signed(chosen)} nats, rejected ones by {signed(rejected)}; right"
        f" on held-out prompts: {row['gold/accuracy'][at]:.2f}."
    )


def page() -> None:
    """The page from top to bottom."""
    opening(QUESTION, SENTENCE)
    runs = recorded()
    guess = predict(
        "Before you look: DPO raises the margin of its pairs. What happens to the log-probability"
        " of the chosen completion?",
        GUESSES,
    )
    run = in_url("pairs", runs, next(iter(runs)))
    st.segmented_control("Pairs of the recorded run", list(runs), key="pairs", required=True)
    steps = Slider(
        "step", "step of the recorded run", tuple(runs[run]["steps"]), start=50, play=True
    )
    found = explore(
        drawn,
        key="loss",
        alt=ALT,
        sliders=[BETA, steps],
        says=sentence,
        given=(run,),
        narrow=NARROW,
    )
    with st.expander("As a table"):
        st.dataframe(as_frame(found["beta"], found["step"], run), hide_index=True, key="loss-table")
    source(
        load_result("margins"),
        "h is not multiplied by β. The pairs are the first 64 of the run's data, as it is taught"
        " them.",
    )
    if guess:
        st.markdown(answer(guess, runs["DPO"]))
    claims(runs)
    sensitivity()
    look_at(
        "The two lines on the right. The loss only sees the distance between them. It grows"
        " although both fall, because the rejected completions fall faster: likelihood displacement"
        " (arXiv 2410.08847). On the left: a pair far to the right is pushed no more, one that the"
        " policy ranks wrongly is pushed with full strength β, however hopeless or wrongly labelled"
        " it is. Compare the run with swapped labels."
    )
    cannot_show(
        "One small model and one seed for the pairs; the log-probabilities are of completions that"
        " no longer need be what the policy writes: see the page Online and offline. Moving β"
        " re-reads the recorded margins under another loss; what another β would have done to the"
        " run itself is the figure below it."
    )
    link("train", "Train", "Try it: train DPO with your own β", method="dpo")


def answer(guess: str, row: Mapping[str, Any]) -> str:
    """The prediction beside the measurement."""
    first, last = fmean(row["chosen"][0]), fmean(row["chosen"][-1])
    truth = "it falls" if last < first - 0.5 else "it rises" if last > first + 0.5 else "it stays"
    return (
        f"{'Right' if guess == truth else f'You said that {guess}'}: over {row['steps'][-1]}"
        f" updates the chosen completions moved by {signed(last - first)} nats and the rejected"
        f" ones by {signed(fmean(row['rejected'][-1]) - fmean(row['rejected'][0]))}."
    )


def claims(runs: Mapping[str, Mapping[str, Any]]) -> None:
    """What the article says under its figure, beside what was computed or measured."""
    pushes = {beta: curve(beta, (0.0, 20.0))[2] for beta in (0.05, 0.5)}
    row = runs["DPO"]
    fell = sum(last < first for first, last in zip(row["chosen"][0], row["chosen"][-1]))
    said = (
        (
            "gradient → push up preferred",
            (
                "Of the margin, yes. The gradient asks only that chosen rises *relative to*"
                f" rejected. Measured: after {row['steps'][-1]} updates {fell} of"
                f" {len(row['chosen'][0])} chosen completions are less likely than under the"
                f" reference; all together moved by {signed(fmean(row['chosen'][-1]))} nats on"
                " average."
            ),
        ),
        (
            "Higher β → steeper loss curve → more sensitive to preference gap",
            (
                f"At h = 0, yes: the push is β/2, {pushes[0.5][0]:.3g} at β = 0.5 and"
                f" {pushes[0.05][0]:.3g} at β = 0.05. Past |h| ≈ 1/β it is the other way round: at"
                f" h = 20 nats {pushes[0.5][1]:.1g} against {pushes[0.05][1]:.1g}."
            ),
        ),
        (
            "Lower β → smoother → tolerates larger deviation",
            "At the optimum, yes: the page RLHF and DPO computes it. On the way there the push of a"
            " larger β is also larger, so it might run ahead at first; AdamW divides the size of"
            " the gradient out again. " + early(),
        ),
    )
    for claim, measured in said:
        left, right = st.columns([2, 5], gap="medium")
        left.markdown(f"“{claim}”")
        right.markdown(measured)


def early() -> str:
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


def as_frame(beta: float, step: int, run: str) -> pd.DataFrame:
    """The pairs of the figure as a table."""
    row = recorded()[run]
    at = row["steps"].index(step)
    _, losses, pushes = curve(beta, tuple(row["margins"][at]))
    return pd.DataFrame(
        {
            "pair": range(1, len(losses) + 1),
            "margin h, nats": row["margins"][at],
            f"loss at β = {beta:g}": losses,
            "push, per nat": pushes,
            "chosen, log π − log π_ref": row["chosen"][at],
            "rejected, log π − log π_ref": row["rejected"][at],
        }
    )


@st.cache_resource(show_spinner=False)
def beta_rows(method: str) -> list[dict[str, Any]]:
    """The rows of the recorded experiment with β for one method; nobody changes them."""
    return [row for row in load_result("beta")["rows"] if row["method"] == method]


def sensitive(step: int, method: str, own: tuple) -> go.Figure:
    """Runs against β after a number of updates, and own runs beside."""
    return beta_sweep_figure(beta_rows(method), step, at_looks(own, step))


def reading(step: int, method: str, own: tuple) -> str:
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


def sensitivity() -> None:
    """Whole runs that differ in β."""
    table = recorded_result("beta")
    if table is None:
        return
    st.subheader("What β did to whole runs", anchor=False)
    looks = tuple(table["plan"]["looks"])
    own = own_runs("dpo", looks)
    after = Slider("after", "after updates", looks, start=looks[-1], play=True)
    step = explore(
        sensitive,
        key="beta-runs",
        alt=ALT_BETA,
        sliders=[after],
        says=reading,
        given=("dpo", own),
        narrow=NARROW_BETA,
    )["after"]
    frame = pd.DataFrame(
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
        st.dataframe(frame, hide_index=True, key="beta-table")
    mine = (
        f" Stars: your own DPO runs ({', '.join(run[0] for run in own)}); chosen and rejected are"
        " of one training batch."
        if own
        else ""
    )
    source(table, f"Bars are 95 % intervals.{mine}")
    if recorded_result("frontier"):
        link(
            "choose",
            "Choose a method",
            "What β does on a real language model: reward against KL, five methods",
        )
