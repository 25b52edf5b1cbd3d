"""Page Choose: the article's comparison beside the measured one, a questionnaire, and an estimate
for a model that is not here.
"""

from typing import Any

import pandas as pd
import streamlit as st

from lab.analysis.recommend import CHOICES, QUESTIONS, model_count, recommend
from lab.analysis.recorded_results import Comparison, load_result, peaks, recorded_result, relative
from lab.dashboard.components.layout import (
    cannot_show,
    figure,
    in_url,
    link,
    look_at,
    opening,
    predict,
    source,
    theme,
)
from lab.dashboard.pages.choose import reward_model_experiments
from lab.dashboard.pages.choose.article_table import qualities
from lab.dashboard.pages.choose.language_model import language_model
from lab.dashboard.pages.choose.memory_estimator import estimator
from lab.dashboard.pages.choose.method_comparison import reached
from lab.figures.comparison import ARTICLE, PANELS, article_beside_measured, stacked

QUESTION = "Which method, at what price?"
SENTENCE = (
    "The article compares RLHF, DPO and GRPO in a table and a bar chart. Here the same comparison"
    " is measured: one task, one base model, equal budgets, several seeds."
)
ARMS = {"ppo": "ppo", "dpo": "dpo", "grpo": "grpo"}
TITLES = {"ppo": "RLHF (PPO)", "dpo": "DPO", "grpo": "GRPO"}
MEMORY = {"ppo": "ppo.separate", "dpo": "dpo", "grpo": "grpo"}
"""The arms of the measured resources: RLHF with four sets of weights, as the article draws it."""


def page() -> None:
    """The page from top to bottom."""
    opening(QUESTION, SENTENCE)
    guess = predict(
        "Before you look: at equal tokens, how much of RLHF's training time does DPO take?",
        ("about a third", "about half", "about all of it"),
    )
    table = load_result("chain-tokens")
    measured = beside_the_article(table)
    text = sentence(table, measured)
    figure(
        article_beside_measured(measured, TITLES, theme()),
        "article",
        f"The article's chart and the measured one. {text}",
        bars(measured),
        stacked(len(measured)),
    )
    st.markdown(text)
    if guess:
        took = measured["time"]["dpo"]["mean"]
        right = min(
            (abs(took - share), words)
            for share, words in (
                (33, "about a third"),
                (50, "about half"),
                (100, "about all of it"),
            )
        )[1]
        st.markdown(f"{'Right' if guess == right else f'You said {guess}'}: {took:.0f} %.")
    source(
        table,
        f"{table['plan']['seeds']} seeds, bars are 95 % intervals (of time: the range over seeds);"
        f" {table['evaluation']}.{memory_source()}",
    )
    questionnaire(Comparison(table))
    qualities(Comparison(table))
    st.subheader("What each method reached", anchor=False)
    reached(table, "reached", text)
    language_model()
    reward_model_experiments.knobs()
    reward_model_experiments.reward_models()
    estimator()
    look_at(
        "The hatched bars are claims, the filled ones measurements. Time and memory depend on the"
        " sizes: on a model of this size memory is mostly activations, which every method needs; on"
        " a large one weights and optimizer state dominate, which is what the estimate splits."
    )
    cannot_show(
        "One small model and one task with a checkable answer. On a large model weights dominate"
        " memory, sampling dominates the time of the online methods, and a rule that scores"
        " completions may not exist. Use `python -m lab compare` on your own model and data."
    )


def beside_the_article(table: dict[str, Any]) -> dict[str, Any]:
    """What is measured of the article's three panels: models, time, and memory where it has been
    recorded.
    """
    found = {
        "models": {name: {"mean": model_count(arm), "half": 0} for name, arm in ARMS.items()},
        "time": relative(table, "seconds", ARMS, "ppo"),
    }
    if peak := peaks():
        found["memory"] = {
            name: {"mean": 100 * peak[arm] / peak[MEMORY["ppo"]], "half": 0}
            for name, arm in MEMORY.items()
        }
    return found


def memory_source() -> str:
    """Where the measured memory comes from."""
    resources = recorded_result("resources")
    return (
        ""
        if resources is None
        else (
            f" Memory: `{resources['command']}` on {resources['device']},"
            f" {resources['completions']} completions an update, RLHF with four sets of weights."
        )
    )


def bars(measured: dict[str, Any]) -> pd.DataFrame:
    """The article's bars and the measured ones as a table."""
    return pd.DataFrame(
        [
            {
                "what": PANELS[panel],
                "method": TITLES[name],
                "article": claimed,
                "measured": round(measured[panel][name]["mean"], 1),
                "±": round(measured[panel][name]["half"], 1),
            }
            for panel in PANELS
            if panel in measured
            for name, claimed in ARTICLE[panel].items()
        ]
    )


def sentence(table: dict[str, Any], measured: dict[str, Any]) -> str:
    """What the charts say, in numbers."""
    found, time, memory = Comparison(table), measured["time"], measured.get("memory")
    held = (
        f" At its peak DPO holds {memory['dpo']['mean']:.0f} % of RLHF's bytes (40 %) and GRPO"
        f" {memory['grpo']['mean']:.0f} % (60 %)."
        if memory
        else ""
    )
    return (
        f"At {table['plan']['amount']:,.0f} completion tokens trained on, DPO takes"
        f" {time['dpo']['mean']:.0f} % of the time of RLHF (the article says 30 %) and GRPO"
        f" {time['grpo']['mean']:.0f} % (60 %).{held} Gold accuracy went from"
        f" {table['base']['gold/accuracy']:.2f} to {found.text('ppo')} with RLHF,"
        f" {found.text('dpo')} with DPO and {found.text('grpo')} with GRPO."
    )


def questionnaire(measured: Comparison) -> None:
    """Four questions and the recommendation for their answers; the answers are in the URL."""
    st.subheader("Which one for you?", anchor=False)
    answers = []
    for (name, options), place in zip(CHOICES.items(), [*st.columns(2), *st.columns(2)]):
        in_url(name, options, next(iter(options)))
        answers.append(
            place.radio(QUESTIONS[name], list(options), format_func=options.get, key=name)
        )
    found = recommend(*answers, measured)
    if found.arm is None:
        st.markdown("**No method yet.** " + " ".join(found.reasons))
        return
    method = found.arm.partition("@")[0]
    st.markdown(f"**{measured.title(found.arm)}.** " + " ".join(found.reasons))
    if found.article:
        agrees = (
            "The article would take the same"
            if found.article == method
            else f"The article would take {TITLES.get(found.article, found.article.upper())}"
        )
        st.markdown(f"{agrees}.")
    link(
        "train",
        "Train",
        f"Try it: train {measured.title(found.arm).partition(',')[0]}",
        method=method,
    )
