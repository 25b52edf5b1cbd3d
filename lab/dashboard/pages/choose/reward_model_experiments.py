"""Sections of page Choose with two experiments on RLHF: the effect of each knob, and the
optimisation of a reward model.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from lab.analysis.recorded_results import recorded_result
from lab.dashboard.components.layout import figure, source_caption, theme
from lab.figures.overoptimisation import overoptimisation_figure, overoptimisation_narrow_layout
from lab.figures.palette import METHOD_NAMES
from lab.figures.sensitivity import knob_name, sensitivity_figure

# A reward model is exploited if gold accuracy ends this far below its best.
EXPLOITATION_DROP = 0.05
KNOB_SETTINGS = {"low": "÷ {:g}", "centre": "as it is", "high": "× {:g}"}

Table = Mapping[str, Any]


def knobs_section() -> None:
    """Show how far gold accuracy moves with each knob; nothing if the experiment is not recorded."""
    table = recorded_result("sensitivity")
    if table is None:
        return
    st.subheader("How much each knob matters", anchor=False)
    text = knobs_sentence(table)
    heads = {name: text.format(table["factor"]) for name, text in KNOB_SETTINGS.items()}
    numbers = pd.DataFrame(
        [
            {"knob": knob_name(row)}
            | {
                head: f"{row[name]['mean']:.2f} ± {row[name]['half']:.2f}"
                for name, head in heads.items()
            }
            | {"spread": round(row["spread"], 2)}
            for row in table["rows"]
        ]
    )
    figure(
        sensitivity_figure(table, theme()),
        "sensitivity",
        f"A row per knob: gold accuracy with the knob divided by {table['factor']:g}, as it is and"
        f" multiplied, with intervals. {text}",
        numbers,
    )
    st.markdown(text)
    source_caption(
        table,
        f"One knob at a time; bars are 95 % intervals; {table['evaluation']}. Online methods are"
        " scored by the rule.",
    )


def reward_models_section() -> None:
    """Show gold accuracy while reward models are optimised; nothing if it is not recorded."""
    table = recorded_result("overoptimisation")
    if table is None:
        return
    st.subheader("What optimising a reward model does", anchor=False)
    text = reward_models_sentence(table["rows"])
    numbers = pd.DataFrame(
        [
            {
                "reward model taught with": row["reward_model"],
                "method": METHOD_NAMES[row["method"]],
                "proxy, first → last": f"{row['proxy_first']:.1f} → {row['proxy_last']:.1f}",
                "best gold accuracy": round(row["best_gold"], 2),
                "at update": row["best_step"],
                "gold accuracy at the end": f"{row['gold']:.2f} ± {row['gold_half']:.2f}",
                "KL, nats": round(row["kl"], 1),
            }
            for row in table["rows"]
        ]
    )
    figure(
        overoptimisation_figure(table, theme()),
        "overoptimisation",
        "A column per reward model: above what the task says of the rollouts, below what the"
        f" reward model says of them, against √KL. {text}",
        numbers,
        overoptimisation_narrow_layout(table),
    )
    st.markdown(text)
    source_caption(
        table,
        f"{table['steps']} updates; curves are means over seeds, of the completions that were"
        " trained on; an open symbol marks the best gold accuracy. The axis is √KL, as in arXiv"
        " 2210.10760, here logarithmic.",
    )


def most_sensitive_knob(table: Table | None, method: str) -> Mapping[str, Any] | None:
    """The row of the method's knob that moves gold accuracy most; None if no knob of the method is
    recorded.
    """
    return max(
        (row for row in (table or {"rows": []})["rows"] if row["method"] == method),
        key=lambda row: row["spread"],
        default=None,
    )


def knobs_sentence(table: Table) -> str:
    """Each method's most sensitive knob, in numbers."""
    methods = dict.fromkeys(row["method"] for row in table["rows"])
    knobs = (most_sensitive_knob(table, method) for method in methods)
    rows = sorted((row for row in knobs if row is not None), key=lambda row: -row["spread"])
    most = [
        f"{knob_name(row)}: between {min(_mean_accuracies(row)):.2f} and"
        f" {max(_mean_accuracies(row)):.2f}"
        for row in rows
    ]
    return (
        f"Divided or multiplied by {table['factor']:g}, each method's most telling knob moves its"
        f" gold accuracy by {rows[0]['spread']:.2f} at most ({METHOD_NAMES[rows[0]['method']]}) and"
        f" {rows[-1]['spread']:.2f} at least ({METHOD_NAMES[rows[-1]['method']]})."
        f" {'; '.join(most)}."
    )


def reward_models_sentence(rows: Sequence[Mapping[str, Any]]) -> str:
    """The number of runs whose gold accuracy ends below its best although the reward model's score
    has risen, and the run that falls deepest.
    """
    exploited = [
        row
        for row in rows
        if accuracy_drop(row) >= EXPLOITATION_DROP and row["proxy_last"] > row["proxy_first"]
    ]
    deepest = max(rows, key=accuracy_drop)
    summary = (
        f"In {len(exploited)} of {len(rows)} pairs of method and reward model the score has risen"
        f" while gold accuracy ends {EXPLOITATION_DROP:g} or more below its best."
    )
    if accuracy_drop(deepest) < EXPLOITATION_DROP:
        return summary
    return (
        f"{summary} Deepest falls {METHOD_NAMES[deepest['method']]} on the reward model of"
        f" {deepest['reward_model']}: from {deepest['best_gold']:.2f} around update"
        f" {deepest['best_step']:.0f} to {deepest['curve']['gold'][-1]:.2f}, while the score goes"
        f" from {_signed(deepest['proxy_first'])} to {_signed(deepest['proxy_last'])}."
    )


def accuracy_drop(row: Mapping[str, Any]) -> float:
    """How far the gold accuracy of the rollouts ends below its best."""
    return row["best_gold"] - row["curve"]["gold"][-1]


def _mean_accuracies(row: Mapping[str, Any]) -> list[float]:
    return [row[name]["mean"] for name in KNOB_SETTINGS]


def _signed(score: float) -> str:
    return f"{score:.1f}".replace("-", "−")
