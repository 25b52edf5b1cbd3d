"""Page Story: the article on one scrolling page, a figure that stays in view beside each part."""

import streamlit as st

from lab.dashboard.components.layout import cannot_show, page_heading, page_link, theme
from lab.dashboard.components.story import show_chapter
from lab.dashboard.pages.story import chapters, later_chapters

QUESTION = "From RLHF to GRPO: what does each method change?"
SENTENCE = (
    "Scroll: the figure follows the text. Point at a dotted word or symbol to see what it means and"
    " where it is. A badge behind a sentence of the article opens what this lab measured."
)
WORDS = (
    "RLHF",
    "policy",
    "reference",
    "completion",
    "prompt",
    "reward",
    "reward model",
    "rule",
    "critic",
    "advantage",
    "update",
    "β",
    "KL",
    "Z",
    "σ",
    "chosen and rejected",
    "margin",
    "loss",
    "log-ratio",
    "reference point",
    "group",
    "std",
    "clip",
    "online and offline",
    "equal tokens",
    "seed",
)


def page() -> None:
    """Show the page. Each chapter is sent as soon as it is made."""
    page_heading(QUESTION, SENTENCE, WORDS)
    show_chapter(1, chapters.architectures(theme()))
    show_chapter(2, chapters.derivation())
    show_chapter(3, chapters.dpo_loss())
    show_chapter(4, chapters.ipo_and_kto())
    show_chapter(5, later_chapters.groups())
    show_chapter(6, later_chapters.data_flow(theme()))
    show_chapter(7, later_chapters.evolution(theme()))
    show_chapter(8, later_chapters.resources(theme()))
    with st.container(horizontal=True, gap="medium"):
        page_link("choose", "Choose a method", "Which method fits your task?")
        page_link("play", "Play", "Move β and G of a run")
    cannot_show(
        "The story follows the article. Its text is shortened, and a badge shows one measurement of one"
        " small model on one task. The rewards of the group are an example: eight are the article's,"
        " the others are drawn with the same mean and standard deviation. The other pages show the"
        " methods on recorded and live runs."
    )
