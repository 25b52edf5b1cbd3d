"""Section of page GRPO: sums on a real language model, paid by checked answers, by a checker that
can be fooled and by a coin; groups of five sizes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from lab.analysis.recorded_results import load_result
from lab.dashboard.components.layout import figure, page_link, source_caption, theme
from lab.dashboard.pages.grpo.group_size import outcome_sentence, outcome_table
from lab.dashboard.state.arithmetic_text import restatement_sentence, sum_kinds_sentence
from lab.figures import group_size
from lab.figures.arithmetic import REWARD_TITLES, arithmetic_figure, arithmetic_narrow_layout

TITLE = "A language model"
CANNOT_SHOW = "Of the language model: one model, sums of two numbers, one learning rate for every G and every reward. A number that is right does not say how it was found. How far a coin gets depends on the model: it can spread a habit that happens to score, where there is one."
BUDGET_NAMES = {"rollouts": "rollouts", "steps": "prompts"}
"""What the arithmetic experiment holds equal, and the name of the same budget in the experiment
with group sizes.
"""

Table = Mapping[str, Any]
Arm = Mapping[str, Any]


def arithmetic_section() -> None:
    """Both figures with what they say."""
    table = load_result("arithmetic")
    arms, before = arms_by_reward(table), table["base"]["gold/accuracy"]
    st.markdown(
        "SmolLM2-135M, an instruct model, is asked for sums of two numbers; right is a text whose"
        " last number is the answer. Three runs of GRPO differ in what pays them: that same check;"
        " a checker that compares values, for which the sum said again is right too; and a coin,"
        " the control of arXiv 2506.10947, so that whatever it gains does not come from being"
        " right."
    )
    said = [*(arm_sentence(row, before) for row in arms), checked_answers_sentence(arms)]
    figure(
        arithmetic_figure(arms, table["base"], theme()),
        "sums",
        f"Reward paid, gold accuracy, length and entropy over updates for three rewards. {' '.join(said)}",
        arms_table(arms),
        arithmetic_narrow_layout(),
    )
    st.markdown(
        f"Before training {before:.2f} of the held-out answers are right. After {arms[0]['steps'][-1]} updates:\n\n"
        + "\n".join(f"- {text}" for text in said[:-1])
        + f"\n\n{said[-1]}"
    )
    if "shown" in table:
        st.markdown(sum_kinds_sentence(table["shown"]["base"], table["shown"]["grpo"]))
        st.markdown(restatement_sentence(table["shown"]["base"], table["shown"]["math"]))
        page_link("talk", "Talk", "Read what they wrote, before and after", wrote="arithmetic")
    source_caption(
        table,
        f"G = {arms[0]['group_size']}, {arms[0]['batch_size']} completions an update; bars and bands are 95 % intervals; {table['evaluation']}. Reward, length and entropy are of the completions trained on.",
    )
    by_size = group_size_rows(table)
    by_size_said = f"{outcome_sentence({'rows': by_size})} {cost_sentence(by_size)}"
    figure(
        group_size.group_size_accuracy_figure(by_size, before, theme()),
        "sums-sizes",
        f"Gold accuracy on sums after training with checked answers over G, at equal completions and at equal prompts. {by_size_said}",
        outcome_table({"rows": by_size}),
    )
    st.markdown(f"Checked answers, with groups of five sizes. {by_size_said}")
    source_caption(table, f"Bars are 95 % intervals; {table['evaluation']}.")


def arms_by_reward(table: Table) -> list[Arm]:
    """The arms with checked answers, with the checker that can be fooled and with the coin, which
    agree in everything but the reward.
    """
    others = [row for row in table["rows"] if row["equal"] not in BUDGET_NAMES]
    return [
        next(
            row
            for row in table["rows"]
            if row["equal"] == "rollouts" and row["group_size"] == others[0]["group_size"]
        ),
        *others,
    ]


def group_size_rows(table: Table) -> list[dict[str, Any]]:
    """The arms of five group sizes as rows of the experiment with group sizes, whose figure and
    words they share.
    """
    return [
        {
            "budget": BUDGET_NAMES[row["equal"]],
            "group_size": row["group_size"],
            "batch_size": row["batch_size"],
            "steps": row["steps"],
            "final": row["end"],
        }
        for row in table["rows"]
        if row["equal"] in BUDGET_NAMES
    ]


def arm_sentence(row: Arm, before: float) -> str:
    """What an arm was paid and what that made of its accuracy, length and entropy, in numbers."""
    paid, right, length, entropy = (
        row["reward"],
        row["end"]["gold/accuracy"],
        row["length"]["mean"],
        row["entropy"]["mean"],
    )
    return (
        f"With {REWARD_TITLES[row['equal']]} the reward paid goes from {paid['mean'][0]:.2f} to"
        f" {paid['mean'][-1]:.2f} ± {paid['half'][-1]:.2f} and gold accuracy from {before:.2f} to"
        f" {right['mean']:.2f} ± {right['half']:.2f}, {change_text(right, before)}; completions from"
        f" {length[0]:.0f} to {length[-1]:.0f} tokens, entropy from {entropy[0]:.2f} to"
        f" {entropy[-1]:.2f} nats."
    )


def change_text(found: Mapping[str, float], before: float) -> str:
    """Whether an interval lies above the number before training, below it or around it."""
    if abs(found["mean"] - before) <= found["half"]:
        return "not told apart from before"
    return "above where it was" if found["mean"] > before else "below where it was"


def checked_answers_sentence(arms: Sequence[Arm]) -> str:
    """Whether checked answers taught more than a coin, and whether what the other checker paid is
    what was right.
    """
    checked, fooled, coin = arms
    apart = _lies_above(checked["end"]["gold/accuracy"], coin["end"]["gold/accuracy"])
    taught = (
        "The intervals of checked answers and of the coin lie apart, so what the first has learnt it has from its checker."
        if apart
        else (
            "The interval of checked answers does not lie above that of the coin, so this record shows nothing learnt that a coin would not teach."
        )
    )
    paid, right = (
        {"mean": fooled["reward"]["mean"][-1], "half": fooled["reward"]["half"][-1]},
        fooled["end"]["gold/accuracy"],
    )
    if not _lies_above(paid, right):
        return f"{taught} What the checker that can be fooled paid and what was right are not told apart here."
    return f"{taught} The one that can be fooled pays {paid['mean']:.2f} in the last update where {right['mean']:.2f} is right: its reward is a proxy, and its curve alone looks like success."


def _lies_above(high: Mapping[str, float], low: Mapping[str, float]) -> bool:
    return high["mean"] - high["half"] > low["mean"] + low["half"]


def cost_sentence(rows: Sequence[Arm]) -> str:
    """What the smallest and the largest group cost at equal prompts."""
    own = sorted(
        (row for row in rows if row["budget"] == "prompts"), key=lambda row: row["group_size"]
    )
    few, many = own[0], own[-1]
    tokens = [row["final"]["tokens"]["mean"] for row in (few, many)]
    return f"At equal prompts a run with G = {many['group_size']} takes {tokens[1]:,.0f} tokens, one with G = {few['group_size']} takes {tokens[0]:,.0f}: {tokens[1] / tokens[0]:.1f} times as many. Seconds are not shown: several runs shared a GPU."


def arms_table(arms: Sequence[Arm]) -> pd.DataFrame:
    """Every arm where it was evaluated; reward, length and entropy are those of the update before."""
    rows = []
    for row in arms:
        at = dict(
            zip(row["steps"], zip(*(row[name]["mean"] for name in ("reward", "length", "entropy"))))
        )
        for step, mean, half in zip(
            row["looks"], row["gold/accuracy"]["mean"], row["gold/accuracy"]["half"]
        ):
            paid, length, entropy = at.get(step, (None, None, None))
            rows.append(
                {
                    "reward": REWARD_TITLES[row["equal"]],
                    "update": step,
                    "reward paid": paid,
                    "gold accuracy": f"{mean:.3f} ± {half:.3f}",
                    "length, tokens": length,
                    "entropy, nats": entropy,
                }
            )
    return pd.DataFrame(rows)
