"""Section of page GRPO: pass@k of the base and of every method."""

from collections.abc import Mapping
from typing import Any

import streamlit as st

from lab.analysis.pass_at_k import (
    CURVES,
    SET_TITLES,
    curve_sentence,
    point_text,
    rows_of,
    set_title,
)
from lab.analysis.recorded_results import load_result
from lab.dashboard.components.layout import figure, source_caption, theme
from lab.figures.pass_at_k import pass_at_k_figure, pass_at_k_narrow_layout

TITLE = "Add or sharpen?"
CANNOT_SHOW = (
    "The section “Add or sharpen?” counts a limited number of completions. The base may write a text more"
    " rarely than that, so a curve at 0 does not prove that the base cannot write it. The model is small,"
    " and one habit, the scratchpad, makes most of its gain. The chains have one right answer each."
)


def sharpening_section() -> None:
    """Show the curves of the base and of the methods on default and on longer chains."""
    table = load_result("pass_at_k")
    plan = table["plan"]
    sentences = [
        curve_sentence(table, "default", "worked"),
        curve_sentence(table, "harder", "pass"),
        curve_sentence(table, "harder", "worked"),
    ]
    st.markdown(
        "Does training add an ability, or does it only sharpen the policy: does the policy write more often"
        " what the base could already write? pass@k is the share of chains with at least one right"
        " completion among k. If training only sharpens, the base catches up at a large k."
    )
    figure(
        pass_at_k_figure(table, theme()),
        "pass-at-k",
        "pass@k over k for the base and the methods, on default and on longer chains, for right answers"
        f" and for answers with every step written. {' '.join(sentences)}",
        numbers_table(table),
        pass_at_k_narrow_layout(),
    )
    st.markdown(
        "Some answers can be guessed: a chain that ends in \\*0 has the answer 0. The upper panels count such"
        " guesses; the lower panels count only completions that write every step.\n\n"
        + "\n".join(f"- {sentence}" for sentence in sentences)
    )
    source_caption(
        table,
        f"{plan['samples']} completions for each of {plan['prompts']} held-out chains. Methods have their"
        f" tuned settings and {plan['tokens']:,} tokens; “longer chains” trains on chains of 3 to"
        f" {plan['most']} operations. Bars are 95 % intervals. Where all seeds and chains agree exactly, no error"
        " can be estimated, and the word is “not told apart”. A name in the legend shows or hides a method.",
    )


def numbers_table(table: Mapping[str, Any]) -> list[dict[str, str]]:
    """The numbers of the figure."""
    return [
        {"chains": set_title(table, name), "counts": words, "policy": row["title"]}
        | {f"k = {k}": point_text(row[curve], at) for at, k in enumerate(table["plan"]["ks"])}
        for curve, words in CURVES.items()
        for name in SET_TITLES
        for row in rows_of(table, name)
    ]
