"""Part of page GRPO: random and true rewards with and without the clip."""

from collections.abc import Mapping
from typing import Any

import streamlit as st

from lab.analysis.random_rewards import accuracy_text, arm_row, reward_sentence, task_text
from lab.analysis.recorded_results import recorded_result
from lab.analysis.statistics import NOT_NEGATIVE, SHARE, Interval
from lab.dashboard.components.layout import figure, source_caption, theme
from lab.figures.random_rewards import random_rewards_figure, random_rewards_narrow_layout

RECORDS = ("random_rewards", "random_rewards_smollm2")


def random_rewards_part() -> None:
    """Show gold accuracy with random and with true rewards on every recorded task."""
    tables = [table for name in RECORDS if (table := recorded_result(name))]
    if not tables:
        return
    sentences = [reward_sentence(table, "random") for table in tables]
    st.markdown(
        "Can rewards at random teach? arXiv 2506.10947 saw gains with Qwen models and explains them by the"
        " clip. The lab trains with a coin and with the true reward, in three ways: one update on a rollout,"
        " where the clip cannot act; four updates with the clip; four updates without it."
    )
    figure(
        random_rewards_figure(tables, theme()),
        "random-rewards",
        f"Gold accuracy after training with random and with true rewards. {' '.join(sentences)}",
        [row for table in tables for row in numbers_table(table)],
        random_rewards_narrow_layout(tables),
    )
    st.markdown("\n".join(f"- {sentence}" for sentence in sentences))
    for table in tables:
        plan = table["plan"]
        source_caption(
            table,
            f"{plan['updates']} updates, {plan['test_prompts'][1] - plan['test_prompts'][0]} test prompts."
            " Bars are 95 % intervals over seeds and prompts.",
        )


def numbers_table(table: Mapping[str, Any]) -> list[dict[str, str]]:
    """The numbers of the figure, with the share of clipped tokens and the KL."""
    return [
        {
            "task": task_text(table),
            "reward and updates": row["title"],
            "gold accuracy": accuracy_text(table, row["arm"]),
            "tokens clipped": Interval(**arm_row(table, row["arm"])["clipped"]).text(4, SHARE),
            "KL, nats": Interval(**row["kl"]).text(2, NOT_NEGATIVE),
        }
        for row in table["rows"]
    ]
