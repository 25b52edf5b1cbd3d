"""Page Choose: the article's comparison beside the measured one, a questionnaire, and an estimate
for a large model.
"""

from typing import Any

import pandas as pd
import streamlit as st

from lab.analysis.recommend import CHOICES, QUESTIONS, model_count, recommend
from lab.analysis.recorded_results import (
    Comparison,
    load_result,
    peak_memory_by_arm,
    recorded_result,
    relative_cost,
)
from lab.dashboard.components.layout import (
    cannot_show,
    figure,
    page_heading,
    page_link,
    source_caption,
    theme,
    url_choice,
    what_to_look_at,
)
from lab.dashboard.components.quiz import quiz
from lab.dashboard.pages.choose import reward_model_experiments
from lab.dashboard.pages.choose.article_table import qualities_table
from lab.dashboard.pages.choose.language_model import language_model_section
from lab.dashboard.pages.choose.memory_estimator import memory_estimator
from lab.dashboard.pages.choose.method_comparison import method_comparison
from lab.figures.comparison import (
    ARTICLE_CLAIMS,
    COST_PANELS,
    article_beside_measured,
    comparison_narrow_layout,
)

QUESTION = "Which method fits your task, and what does it cost?"
SENTENCE = (
    "The article compares RLHF, DPO and GRPO in a table and a bar chart. The lab measures the same"
    " comparison: one task, one base model, equally many training tokens, several seeds."
)
WORDS = (
    "policy",
    "reference",
    "base model",
    "RLHF",
    "SFT",
    "reward model",
    "proxy reward",
    "rule",
    "critic",
    "online and offline",
    "gold accuracy",
    "gold reward",
    "held-out",
    "VADER",
    "KL",
    "nat",
    "equal tokens",
    "update",
    "seed",
    "interval",
)
ARM_OF_TITLE = {"ppo": "ppo", "dpo": "dpo", "grpo": "grpo"}
METHOD_TITLES = {"ppo": "RLHF (PPO)", "dpo": "DPO", "grpo": "GRPO"}
MEMORY_ARMS = {"ppo": "ppo.separate", "dpo": "dpo", "grpo": "grpo"}
"""By method, its arm in the measured resources: RLHF with four sets of weights, as in the article."""


def page() -> None:
    """Show the page."""
    page_heading(QUESTION, SENTENCE, WORDS)
    table = load_result("chain-tokens")
    measured = measured_panels(table)
    quiz(
        "Before you look: both methods train on equally many tokens. Which part of RLHF's training"
        " time does DPO need?",
        ("about a third", "about half", "about all of it"),
        lambda guess: prediction_answer(guess, measured["time"]["dpo"]["mean"]),
        covers=("article", "article-table", "article-sentence"),
    )
    text = chart_sentence(table, measured)
    figure(
        article_beside_measured(measured, METHOD_TITLES, theme()),
        "article",
        f"The article's chart and the measured one. {text}",
        bars_table(measured),
        comparison_narrow_layout(len(measured)),
    )
    with st.container(key="article-sentence"):
        st.markdown(text)
    source_caption(
        table,
        f"{table['plan']['seeds']} seeds; {table['evaluation']}. The bars of the times show the range"
        f" over seeds.{memory_source()}",
    )
    questionnaire(Comparison(table))
    qualities_table(Comparison(table))
    st.subheader("What each method reached", anchor=False)
    method_comparison(table, "reached", text)
    language_model_section()
    reward_model_experiments.knobs_section()
    reward_model_experiments.reward_models_section()
    memory_estimator()
    what_to_look_at(
        "In the first figure, hatched bars are claims of the article and filled bars are"
        " measurements. Time and memory depend on the size of the model. In this small model, most"
        " memory holds activations, which every method needs. In a large model, weights and"
        " optimizer state need most of it; the estimate “Does it fit on my graphics card?” shows each part."
    )
    cannot_show(
        "The measurements use one small model and one task with an answer that can be checked. Each"
        " method ran with one setting; another β or learning rate can change the order. On a large"
        " model, weights need most of the memory, and sampling needs most of the time of online"
        " methods. Many tasks have no rule that can score completions. Run `python -m lab compare`"
        " with your own model and data."
    )


def prediction_answer(guess: str, percent: float) -> None:
    """Show, after a guess, the measured share of RLHF's time that DPO needs."""
    shares = {"about a third": 33, "about half": 50, "about all of it": 100}
    right = min(shares, key=lambda option: abs(percent - shares[option]))
    st.markdown(
        f"{'Right' if guess == right else f'You said {guess}'}: DPO needs {percent:.0f} % of"
        " RLHF's time."
    )


def measured_panels(table: dict[str, Any]) -> dict[str, Any]:
    """The measurements for the article's panels: models, time and, if it is recorded, memory."""
    panels = {
        "models": {
            name: {"mean": model_count(arm), "half": 0} for name, arm in ARM_OF_TITLE.items()
        },
        "time": relative_cost(table, "seconds", ARM_OF_TITLE, "ppo"),
    }
    if peak := peak_memory_by_arm():
        panels["memory"] = {
            name: {"mean": 100 * peak[arm] / peak[MEMORY_ARMS["ppo"]], "half": 0}
            for name, arm in MEMORY_ARMS.items()
        }
    return panels


def memory_source() -> str:
    """Where the measured memory comes from; empty if it is not recorded."""
    resources = recorded_result("resources")
    return (
        ""
        if resources is None
        else (
            f" Memory: `{resources['command']}` on {resources['device']}, with"
            f" {resources['completions']} completions in each update; RLHF has four sets of weights."
        )
    )


def bars_table(measured: dict[str, Any]) -> pd.DataFrame:
    """The article's bars and the measured ones as a table."""
    return pd.DataFrame(
        [
            {
                "what": COST_PANELS[panel],
                "method": METHOD_TITLES[name],
                "article": claimed,
                "measured": round(measured[panel][name]["mean"], 1),
                "±": round(measured[panel][name]["half"], 1),
            }
            for panel in COST_PANELS
            if panel in measured
            for name, claimed in ARTICLE_CLAIMS[panel].items()
        ]
    )


def chart_sentence(table: dict[str, Any], measured: dict[str, Any]) -> str:
    """Time, memory and gold accuracy of the methods, in numbers."""
    comparison, time, memory = Comparison(table), measured["time"], measured.get("memory")
    memory_text = (
        f" The peak memory of DPO is {memory['dpo']['mean']:.0f} % of RLHF's (the article says"
        f" 40 %), and that of GRPO is {memory['grpo']['mean']:.0f} % (the article says 60 %)."
        if memory
        else ""
    )
    return (
        f"With {table['plan']['amount']:,.0f} completion tokens of training, DPO takes"
        f" {time['dpo']['mean']:.0f} % of the time of RLHF (the article says 30 %), and GRPO takes"
        f" {time['grpo']['mean']:.0f} % (the article says 60 %).{memory_text} Gold accuracy (the"
        f" share of right answers on held-out prompts) went from"
        f" {table['base']['gold/accuracy']:.2f} to {comparison.text('ppo')} with RLHF,"
        f" {comparison.text('dpo')} with DPO and {comparison.text('grpo')} with GRPO."
    )


def questionnaire(measured: Comparison) -> None:
    """Show four questions and the recommendation for their answers, which are in the URL."""
    st.subheader("Which method fits your situation?", anchor=False)
    answers = {}
    for (name, options), column in zip(CHOICES.items(), [*st.columns(2), *st.columns(2)]):
        answers[name] = url_choice(name, options, next(iter(options)))
        column.radio(QUESTIONS[name], list(options), format_func=options.__getitem__, key=name)
    recommendation = recommend(**answers, measured=measured)
    if recommendation.arm is None:
        st.markdown("**No method yet.** " + " ".join(recommendation.reasons))
        return
    method = recommendation.arm.partition("@")[0]
    st.markdown(f"**{measured.title(recommendation.arm)}.** " + " ".join(recommendation.reasons))
    if recommendation.article:
        agrees = (
            "The article would choose the same method"
            if recommendation.article == method
            else (
                "The article would choose"
                f" {METHOD_TITLES.get(recommendation.article, recommendation.article.upper())}"
            )
        )
        st.markdown(f"{agrees}.")
    page_link(
        "train",
        "Train",
        f"Try it: train {measured.title(recommendation.arm).partition(',')[0]}",
        method=method,
    )
