"""Page Choose: a recommended method for four answers, then the measurements behind it."""

from typing import Any

import streamlit as st

from lab.analysis.recommend import CHOICES, QUESTIONS, recommend
from lab.analysis.recorded_results import Comparison, load_result
from lab.analysis.tuned_view import VIEW_TITLES, tuned_view
from lab.dashboard.components.layout import (
    cannot_show,
    page_heading,
    page_link,
    source_text,
    url_choice,
    what_to_look_at,
)
from lab.dashboard.components.quiz import quiz
from lab.dashboard.pages.choose.article_chart import (
    METHOD_TITLES,
    article_chart,
    measured_panels,
    times_source,
)
from lab.dashboard.pages.choose.article_table import qualities_table
from lab.dashboard.pages.choose.method_comparison import method_comparison

QUESTION = "Which method fits your task?"
SENTENCE = "Answer four questions. The answer rests on measurements of one small model on one task."
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
TABS = ("Cost", "The article's table", "What each method reached")
PREDICTIONS = {"a third": 33, "half": 50, "all of it": 100}
"""By predicted part of RLHF's training time, its percent."""
VIEW_TEXTS = {
    "defaults": (
        "Each method has its default settings and its default number of updates, so that the methods use"
        " different numbers of tokens."
    ),
    "tokens": (
        "Each method has the best of twelve settings. A run ends when it has used 60,000 completion tokens;"
        " sampled tokens and tokens trained on both count."
    ),
    "kl": (
        "Each method has the best of twelve settings for this view. A run ends at the first check with a KL"
        " of at least 1 nat, or after 60,000 tokens."
    ),
}
"""By view of the tuned comparison, what its runs have in common."""


def page() -> None:
    """Show the page. At an address of the memory estimate, which this page once had, show that."""
    if st.query_params.get("estimate") == "yes":
        query = {name: st.query_params.get_all(name) for name in st.query_params}
        st.switch_page(_evidence_page(), query_params=query | {"show": "Memory"})
    page_heading(QUESTION, SENTENCE, WORDS)
    measured = tuned_view()
    answer = st.container()  # filled last: the quiz must come before anything writes into the URL
    tabs = st.tabs(TABS, key="tab", bind="query-params")
    for tab, show in zip(tabs, (cost, table_of_article, reached)):
        if tab.open:
            with tab:
                show(measured)
    with answer:
        questionnaire(measured)
    notes()


def _evidence_page() -> Any:
    from lab.dashboard.pages.evidence.page import page as evidence

    return st.Page(evidence, title="Measurements", url_path="evidence")


def cost(_: Comparison) -> None:
    """Show the article's chart beside the measured one, covered until the reader has guessed."""
    table = load_result("chain-tokens")
    measured = measured_panels(table)
    quiz(
        "Before you look: at equal tokens, about how much of RLHF's training time does DPO need?",
        tuple(PREDICTIONS),
        lambda guess: prediction_answer(guess, measured["time"]["dpo"]["mean"]),
        covers=("article", "article-table", "article-sentence"),
    )
    article_chart(table, measured)


def prediction_answer(guess: str, percent: float) -> None:
    """Show, after a guess, the measured share of RLHF's time that DPO needs."""
    right = min(PREDICTIONS, key=lambda option: abs(percent - PREDICTIONS[option]))
    st.markdown(
        f"{'Right' if guess == right else f'You said {guess}'}: DPO needs {percent:.0f} % of"
        " RLHF's time."
    )


def table_of_article(measured: Comparison) -> None:
    """Show the article's table of qualities with the measurements."""
    source = source_text(measured.table, f"{VIEW_TEXTS['tokens']} The times: {times_source()}")
    qualities_table(measured, tuned_view("defaults"), source)


def reached(_: Comparison) -> None:
    """Show the gold accuracy and the KL of every method, in one view of the comparison."""
    view = url_choice("view", VIEW_TITLES, "tokens")
    st.segmented_control(
        "Settings",
        list(VIEW_TITLES),
        format_func=VIEW_TITLES.__getitem__,
        key="view",
        required=True,
        label_visibility="collapsed",
    )
    measured = tuned_view(view)
    order = sorted(measured.table["runs"], key=measured.mean, reverse=True)
    accuracies = "; ".join(f"{measured.title(arm)} {measured.text(arm)}" for arm in order)
    method_comparison(
        measured,
        "reached",
        f"{VIEW_TITLES[view]}: {accuracies}. Before training {measured.base['gold/accuracy']:.2f}.",
        source_text(measured.table, VIEW_TEXTS[view]),
    )


def notes() -> None:
    """Show how to read the figures, and their limits."""
    what_to_look_at(
        "In the figure of the cost, hatched bars are claims of the article and filled bars are"
        " measurements. Time and memory depend on the size of the model. In this small model, most"
        " memory holds activations, which every method needs. In a large model, weights and"
        " optimizer state need most of it; the page Measurements estimates each part."
    )
    cannot_show(
        "The measurements use one small model and one task with an answer that can be checked. Tuning"
        " tried twelve settings of each method; a better one may exist. The budget counts sampled tokens"
        " but not the pairs, which somebody had to make. On a large"
        " model, weights need most of the memory, and sampling needs most of the time of online"
        " methods. Many tasks have no rule that can score completions. Run `python -m lab compare`"
        " with your own model and data."
    )


def questionnaire(measured: Comparison) -> None:
    """Show four questions and the recommendation for their answers, which are in the URL."""
    answers = {}
    for (name, options), column in zip(CHOICES.items(), st.columns(4, vertical_alignment="bottom")):
        answers[name] = url_choice(name, options, next(iter(options)))
        column.selectbox(QUESTIONS[name], list(options), format_func=options.__getitem__, key=name)
    recommendation = recommend(**answers, measured=measured)
    if recommendation.arm is None:
        st.subheader("No method yet", anchor=False)
        st.markdown(" ".join(recommendation.reasons))
        return
    method = recommendation.arm.partition("@")[0]
    title = measured.title(recommendation.arm)
    with st.container(horizontal=True, gap="medium", vertical_alignment="center"):
        st.subheader(f"Use {title}", anchor=False, width="content")
        with st.container(width="content"):
            page_link("train", "Train", f"Try it: train {title.partition(',')[0]}", method=method)
    level = " and ".join(map(measured.title, recommendation.not_told_apart))
    doubt = f" The difference between {title} and {level} may be chance." if level else ""
    st.markdown(f"{article_choice(recommendation.article, method)}{doubt}")
    with st.expander("Why, and what the other methods reach"):
        st.markdown(" ".join(recommendation.reasons))
        st.caption(
            f"Accuracies: {measured.seeds_of()} seeds, tuned settings, 60,000 tokens. Times: an older record"
            f" on another device, {measured.seeds_of('seconds')} seeds, default settings, 150,000 tokens."
            " GRPO with a reward model has no tuned measurement, so it is no candidate."
        )
        page_link("evidence", "Measurements", "Does it fit on my graphics card?", show="Memory")
        page_link("evidence", "Measurements", "How much does each setting matter?", show="Settings")


def article_choice(article: str, method: str) -> str:
    """A sentence on the method that the article would choose; empty if it names none."""
    if not article:
        return ""
    if article == method:
        return "The article would choose the same method."
    return f"The article would choose {METHOD_TITLES.get(article, article.upper())}."
