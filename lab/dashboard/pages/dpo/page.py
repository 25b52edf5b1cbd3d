"""Page DPO: the loss along the margin with the pairs of a real run, and the effect of β on whole
runs.
"""

from collections.abc import Mapping
from statistics import fmean
from typing import Any

import streamlit as st

from lab.analysis.recorded_results import load_result
from lab.dashboard.components.layout import (
    cannot_show,
    folded_table,
    page_heading,
    page_link,
    source_caption,
    url_choice,
    what_to_look_at,
)
from lab.dashboard.components.quiz import quiz
from lab.dashboard.components.slider_figure import Slider, slider_figure
from lab.dashboard.pages.dpo.beta_runs import beta_section, early_updates_sentence
from lab.dashboard.pages.dpo.loss_figure import (
    ALT_TEXT,
    BETA_SLIDER,
    NARROW_LAYOUT,
    draw_loss,
    loss_curve,
    loss_sentence,
    pairs_table,
    recorded_dpo_runs,
    signed_nats,
)
from lab.dashboard.pages.dpo.one_pair import pair_section

QUESTION = "How hard does the DPO loss push a pair?"
SENTENCE = (
    "DPO learns from pairs: a chosen and a rejected completion of one prompt. The loss sees only"
    " one number of a pair, the margin h. It says how much more the policy prefers the chosen"
    " completion than the reference does. Drag β: the curve changes. Drag the step: the pairs of a"
    " real run move along the curve."
)
WORDS = (
    "policy",
    "reference",
    "chosen and rejected",
    "log-ratio",
    "margin",
    "push",
    "nat",
    "KL",
    "gold accuracy",
    "held-out",
    "update",
    "interval",
)
VIEWS = ("64 pairs", "one pair, token by token")
GUESSES = ("it rises", "it stays", "it falls")


def page() -> None:
    """Show the page."""
    page_heading(QUESTION, SENTENCE, WORDS)
    runs = recorded_dpo_runs()
    quiz(
        "Before you look: DPO makes the margin of its pairs larger. What happens to the"
        " log-probability of the chosen completions?",
        GUESSES,
        lambda guess: st.markdown(prediction_answer(guess, runs["DPO"])),
        covers=("loss", "loss-table"),
    )
    view = st.segmented_control(
        "Show", VIEWS, default=VIEWS[0], key="show", bind="query-params", required=True
    )
    if view == VIEWS[1]:
        pair_section()
    else:
        all_pairs(runs)
    article_claims(runs)
    beta_section()
    what_to_look_at(
        "Look at the two lines on the right. The loss only sees the distance between them. This"
        " distance grows although both lines fall, because the rejected completions fall faster."
        " The literature calls this likelihood displacement (arXiv 2410.08847).\n\nThen look at the"
        " left. The push is β·σ(−β·h). It is β/2 at h = 0, and a tenth of that at h = 2.94/β, far"
        " to the right. For a very negative h it is nearly β: a pair that the policy ranks wrongly"
        " gets the strongest push, even if its label is wrong. Compare the run with swapped labels."
    )
    cannot_show(
        "The points come from one small model and one seed. They show the log-probabilities of the"
        " training data. A trained policy may write other completions (page Online and offline)."
        " The upper slider for β shows the recorded margins with another loss; it does not train"
        " again. The second figure shows runs that trained with another β."
    )
    page_link("train", "Train", "Try it: train DPO with your own β", method="dpo")


def all_pairs(runs: Mapping[str, Mapping[str, Any]]) -> None:
    """Show the pairs of a recorded run on the loss curve."""
    run = url_choice("pairs", runs, next(iter(runs)))
    st.segmented_control("Recorded run", list(runs), key="pairs", required=True)
    step_slider = Slider(
        "step", "step of the recorded run", tuple(runs[run]["steps"]), start=50, play=True
    )
    values = slider_figure(
        draw_loss,
        key="loss",
        alt=ALT_TEXT,
        sliders=[BETA_SLIDER, step_slider],
        sentence=loss_sentence,
        arguments=(run,),
        narrow=NARROW_LAYOUT,
    )
    folded_table(lambda: pairs_table(values["beta"], int(values["step"]), run), "loss-table")
    source_caption(
        load_result("margins"),
        "h is not multiplied by β. The points are the first 64 pairs of the run's training data,"
        " with the labels that the run saw.",
    )


def prediction_answer(guess: str, row: Mapping[str, Any]) -> str:
    """The guessed change of the chosen completions beside the measured one."""
    first, last = fmean(row["chosen"][0]), fmean(row["chosen"][-1])
    truth = "it falls" if last < first - 0.5 else "it rises" if last > first + 0.5 else "it stays"
    return (
        f"{'Right' if guess == truth else f'You said that {guess}'}. Over {row['steps'][-1]}"
        " updates, the mean log-probability of the chosen completions changed by"
        f" {signed_nats(last - first)} nats, and that of the rejected ones by"
        f" {signed_nats(fmean(row['rejected'][-1]) - fmean(row['rejected'][0]))} nats."
    )


def article_claims(runs: Mapping[str, Mapping[str, Any]]) -> None:
    """Show each claim of the article beside what was computed or measured."""
    from lab.analysis.loss_curves import equal_push_margin

    pushes = {beta: loss_curve(beta, (0.0, 20.0))[2] for beta in (0.05, 0.5)}
    row = runs["DPO"]
    chosen_change = signed_nats(fmean(row["chosen"][-1]))
    num_fallen = sum(last < first for first, last in zip(row["chosen"][0], row["chosen"][-1]))
    claims = (
        (
            "gradient → push up preferred",
            (
                "This is true of the margin only. The gradient asks that the chosen completion"
                " rises *relative to* the rejected one. Measured: after"
                f" {row['steps'][-1]} updates, {num_fallen} of {len(row['chosen'][0])} chosen"
                " completions are less likely than under the reference. On average, their"
                f" log-probability changed by {chosen_change} nats."
            ),
        ),
        (
            "Higher β → steeper loss curve → more sensitive to preference gap",
            (
                "This is true at h = 0 and for every negative h. At h = 0 the push is β/2:"
                f" {pushes[0.5][0]:.3g} at β = 0.5 and {pushes[0.05][0]:.3g} at β = 0.05. Above"
                f" h = {equal_push_margin(0.05, 0.5):.1f} nats the smaller β pushes harder. At h ="
                f" 20 nats β = 0.05 still pushes with {pushes[0.05][1]:.2f}, and β = 0.5 with"
                f" {pushes[0.5][1]:.5f}."
            ),
        ),
        (
            "Lower β → smoother → tolerates larger deviation",
            "This is true at the optimum: the page RLHF and DPO computes it. At the start of"
            " training a larger β has a larger gradient, but AdamW divides by the size of the"
            " gradient. So the formula does not say which β moves the policy more in a short run. "
            + early_updates_sentence(),
        ),
    )
    for claim, measured in claims:
        left, right = st.columns([2, 5], gap="medium")
        left.markdown(f"“{claim}”")
        right.markdown(measured)
