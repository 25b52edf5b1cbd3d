"""Page DPO: the loss along the margin with the pairs of a real run, and the effect of β on whole
runs.
"""

from collections.abc import Mapping
from statistics import fmean
from typing import Any

import streamlit as st

from lab.analysis.recorded_results import load_result
from lab.dashboard.components.layout import (
    ask_prediction,
    cannot_show,
    page_heading,
    page_link,
    source_caption,
    url_choice,
    what_to_look_at,
)
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

QUESTION = "What does the DPO loss push, and how hard?"
SENTENCE = (
    "The loss sees one number of a pair: the margin h, by how much the policy prefers the chosen"
    " completion to the rejected one, compared with the reference. Drag β and watch the curve; drag"
    " the step and watch the pairs of a real run slide down it."
)
GUESSES = ("it rises", "it stays", "it falls")


def page() -> None:
    """Show the page."""
    page_heading(QUESTION, SENTENCE)
    runs = recorded_dpo_runs()
    guess = ask_prediction(
        "Before you look: DPO raises the margin of its pairs. What happens to the log-probability"
        " of the chosen completion?",
        GUESSES,
    )
    run = url_choice("pairs", runs, next(iter(runs)))
    st.segmented_control("Pairs of the recorded run", list(runs), key="pairs", required=True)
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
    with st.expander("As a table"):
        st.dataframe(
            pairs_table(values["beta"], int(values["step"]), run), hide_index=True, key="loss-table"
        )
    source_caption(
        load_result("margins"),
        "h is not multiplied by β. The pairs are the first 64 of the run's data, as it is taught"
        " them.",
    )
    if guess:
        st.markdown(prediction_answer(guess, runs["DPO"]))
    article_claims(runs)
    beta_section()
    what_to_look_at(
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
    page_link("train", "Train", "Try it: train DPO with your own β", method="dpo")


def prediction_answer(guess: str, row: Mapping[str, Any]) -> str:
    """The guessed change of the chosen completions beside the measured one."""
    first, last = fmean(row["chosen"][0]), fmean(row["chosen"][-1])
    truth = "it falls" if last < first - 0.5 else "it rises" if last > first + 0.5 else "it stays"
    return (
        f"{'Right' if guess == truth else f'You said that {guess}'}: over {row['steps'][-1]}"
        f" updates the chosen completions moved by {signed_nats(last - first)} nats and the rejected"
        f" ones by {signed_nats(fmean(row['rejected'][-1]) - fmean(row['rejected'][0]))}."
    )


def article_claims(runs: Mapping[str, Mapping[str, Any]]) -> None:
    """Show each claim of the article beside what was computed or measured."""
    pushes = {beta: loss_curve(beta, (0.0, 20.0))[2] for beta in (0.05, 0.5)}
    row = runs["DPO"]
    num_fallen = sum(last < first for first, last in zip(row["chosen"][0], row["chosen"][-1]))
    claims = (
        (
            "gradient → push up preferred",
            (
                "Of the margin, yes. The gradient asks only that chosen rises *relative to*"
                f" rejected. Measured: after {row['steps'][-1]} updates {num_fallen} of"
                f" {len(row['chosen'][0])} chosen completions are less likely than under the"
                f" reference; all together moved by {signed_nats(fmean(row['chosen'][-1]))} nats on"
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
            " the gradient out again. " + early_updates_sentence(),
        ),
    )
    for claim, measured in claims:
        left, right = st.columns([2, 5], gap="medium")
        left.markdown(f"“{claim}”")
        right.markdown(measured)
