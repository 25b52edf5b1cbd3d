"""Part of page GRPO: the length of right and wrong answers under the three reductions."""

from collections.abc import Mapping
from typing import Any

import streamlit as st

from lab.analysis.answer_length import KINDS, REDUCTIONS, length_sentence, task_text
from lab.analysis.recorded_results import recorded_result
from lab.analysis.statistics import NOT_NEGATIVE, Interval
from lab.dashboard.components.layout import figure, source_caption, theme
from lab.figures.answer_length import answer_length_figure, answer_length_narrow_layout

RECORDS = ("answer_length", "answer_length_smollm2")


def answer_length_part() -> None:
    """Show the lengths over training of every recorded task."""
    tables = {name: table for name in RECORDS if (table := recorded_result(name))}
    if tables:
        st.markdown(
            "Dr. GRPO (arXiv 2503.20783) says that this weak push makes wrong answers grow longer during"
            " training. Measured:"
        )
    for name, table in tables.items():
        sentence = length_sentence(table, "wrong")
        figure(
            answer_length_figure(table, theme()),
            name.replace("_", "-"),
            f"Length of right and of wrong completions over updates on {task_text(table)}, under three"
            f" reductions. {sentence}",
            numbers_table(table),
            answer_length_narrow_layout(),
        )
        st.markdown(sentence)
        plan = table["plan"]
        source_caption(
            table,
            f"Completions of up to {plan['max_tokens']} tokens. The end is the last"
            f" {plan['window'] * plan['bin']} updates, the middle ends at update {plan['middle']}. Bars are"
            " 95 % intervals.",
        )


def numbers_table(table: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The numbers of the figure."""
    return [
        {"reduction": REDUCTIONS[row["reduction"]], "update": update}
        | {
            kind: Interval(*(row[f"{kind}_relative"][part][at] for part in ("mean", "half"))).text(
                2, NOT_NEGATIVE
            )
            for kind in KINDS
        }
        for row in table["rows"]
        for at, update in enumerate(row["updates"])
    ]
