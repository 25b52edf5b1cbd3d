"""The part of page Taste with the recorded experiment: how many labels a simulated labeller needs."""

from collections.abc import Mapping
from typing import Any

import streamlit as st

from lab.analysis.recorded_results import recorded_result
from lab.analysis.statistics import SHARE, Interval
from lab.dashboard.components.layout import figure, source_caption, theme
from lab.figures.taste import taste_figure, taste_narrow_layout

GUESSES = ("at random", "where the model is least sure", "no difference")
MEASURE_NAMES = {"agreement": "agreement with the rule", "gold": "gold accuracy of the policy"}


def experiment_section() -> None:
    """Show both measures against the number of labels; nothing if the experiment is not recorded."""
    table = recorded_result("taste")
    if table is None:
        return
    st.subheader("How many labels does a taste need?", anchor=False)
    guess = st.segmented_control(
        "Before you look: with which pairs are fewer labels enough?", GUESSES, key="taste_guess"
    )
    if not guess:
        return
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
    st.markdown(text)
    source_caption(
        table,
        "The labeller is simulated: it prefers the right answer, and errs with the chosen share. After each"
        " number of labels DPO trains from the base with equal updates. Bars are 95 % intervals.",
    )


def experiment_sentence(table: Mapping[str, Any], noise: float) -> str:
    """What the experiment found for labellers with this noise."""
    return " ".join(
        [needed_sentence(table, noise, own) for own in MEASURE_NAMES]
        + [comparison_sentence(table, noise, own) for own in MEASURE_NAMES]
    )


def needed_sentence(table: Mapping[str, Any], noise: float, measure: str) -> str:
    """How many labels each way of picking needed for the goal."""
    needed = {
        row["pick"]: row[f"needed/{measure}"] for row in table["rows"] if row["noise"] == noise
    }
    most = table["plan"]["counts"][-1]
    words = [
        f"{'at random' if pick == 'random' else 'least sure'}: "
        + (f"{count} labels" if count else f"not reached with {most}")
        for pick, count in needed.items()
    ]
    name = MEASURE_NAMES[measure]
    return f"{name[0].upper()}{name[1:]} of {table['goal']:.2f} took, {'; '.join(words)}."


def comparison_sentence(table: Mapping[str, Any], noise: float, measure: str) -> str:
    """At which numbers of labels the two ways differ surely."""
    rows = [
        row for row in table["comparisons"] if (row["measure"], row["noise"]) == (measure, noise)
    ]
    sure = [row for row in rows if row["word"] in ("better", "worse")]
    counts = ", ".join(str(row["labels"]) for row in rows)
    if not sure:
        return f"In {MEASURE_NAMES[measure]} the two ways are not told apart at {counts} labels."
    parts = [
        f"{row['word']} at {row['labels']} ({Interval(row['mean'], row['half']).signed()})"
        for row in sure
    ]
    rest = "" if len(sure) == len(rows) else " At the other numbers they are not told apart."
    return f"In {MEASURE_NAMES[measure]} the least sure pairs are {', '.join(parts)}.{rest}"


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
