"""The part of page Taste with the recorded experiment: how many labels a simulated labeller needs."""

from collections.abc import Mapping
from typing import Any

import streamlit as st

from lab.analysis.labels_needed import MEASURE_NAMES, experiment_sentence, goal_sentence
from lab.analysis.recorded_results import recorded_result
from lab.analysis.statistics import SHARE, Interval
from lab.dashboard.components.layout import figure, source_caption, theme
from lab.dashboard.components.quiz import quiz
from lab.figures.palette import METHOD_NAMES
from lab.figures.taste import taste_figure, taste_narrow_layout

GUESSES = ("at random", "where the model is least sure", "no difference")


def experiment_section() -> None:
    """Show both measures against the number of labels; nothing if the experiment is not recorded."""
    table = recorded_result("taste")
    if table is None:
        return
    st.subheader("How many labels does a taste need?", anchor=False)
    quiz(
        "Before you look: with which pairs are fewer labels enough?",
        GUESSES,
        lambda guess: st.markdown(
            f"You said {guess}. {experiment_sentence(table, table['plan']['noises'][0])}"
        ),
        covers=("taste", "taste-table", "taste_sentence"),
        key="taste_guess",
    )
    noise = st.segmented_control(
        "Wrong labels",
        table["plan"]["noises"],
        key="taste_noise",
        default=table["plan"]["noises"][0],
        required=True,
        format_func=lambda share: f"{share:.0%}",
    )
    noise = table["plan"]["noises"][0] if noise is None else noise
    text = experiment_sentence(table, noise)
    figure(
        taste_figure(table, noise, theme()),
        "taste",
        "Two panels: agreement with the rule, and gold accuracy of the policy, against the number of"
        f" labels, for pairs at random and for the pairs where the model is least sure. {text}",
        numbers_table(table, noise),
        taste_narrow_layout(),
    )
    with st.container(key="taste_sentence"):
        st.markdown(f"{text} {goal_sentence(table)}")
    source_caption(
        table,
        "The labeller is simulated: it prefers the right answer, and the chosen share of its labels is wrong."
        f" After each number of labels {METHOD_NAMES[table['plan']['method']]} trains from the base with equal updates."
        f" Bars are 95 % intervals. {table['plan']['choice']}",
    )


def numbers_table(table: Mapping[str, Any], noise: float) -> list[dict[str, str]]:
    """The numbers of the figure."""
    return [
        {"measure": MEASURE_NAMES[measure], "next pair": row["pick"]}
        | {
            f"{count} labels": Interval(mean, half).text(2, SHARE)
            for count, mean, half in zip(row["labels"], row[measure]["mean"], row[measure]["half"])
        }
        for measure in MEASURE_NAMES
        for row in table["rows"]
        if row["noise"] == noise
    ]
