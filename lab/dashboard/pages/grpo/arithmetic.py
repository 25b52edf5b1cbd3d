"""Section of page GRPO: sums on a real language model, rewarded by checked answers, by a checker
that can be fooled and by a coin; groups of five sizes.
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
CANNOT_SHOW = (
    "Of the language model: one model, sums of two numbers, one learning rate for every G and every"
    " reward. A number that is right does not say how it was found. How far a coin gets depends on"
    " the model: it can spread a habit that happens to score, where there is one."
)
BUDGET_NAMES = {"rollouts": "rollouts", "steps": "prompts"}
"""Budgets of the arithmetic experiment, and their names in the experiment on group sizes."""

Table = Mapping[str, Any]
ArithmeticArm = Mapping[str, Any]


def arithmetic_section() -> None:
    """Show the figures of the rewards and of the group sizes, each with its numbers in words."""
    table = load_result("arithmetic")
    arms, before = arms_by_reward(table), table["base"]["gold/accuracy"]
    st.markdown(
        "SmolLM2-135M, an instruct model, is asked for sums of two numbers; right is a text whose"
        " last number is the answer. Three runs of GRPO differ in what pays them: that same check;"
        " a checker that compares values, for which the sum said again is right too; and a coin,"
        " the control of arXiv 2506.10947, so that whatever it gains does not come from being"
        " right."
    )
    sentences = [*(arm_sentence(row, before) for row in arms), checked_answers_sentence(arms)]
    figure(
        arithmetic_figure(arms, table["base"], theme()),
        "sums",
        "Reward paid, gold accuracy, length and entropy over updates for three rewards."
        f" {' '.join(sentences)}",
        arms_table(arms),
        arithmetic_narrow_layout(),
    )
    st.markdown(
        f"Before training {before:.2f} of the held-out answers are right. After"
        f" {arms[0]['steps'][-1]} updates:\n\n"
        + "\n".join(f"- {sentence}" for sentence in sentences[:-1])
        + f"\n\n{sentences[-1]}"
    )
    if "shown" in table:
        st.markdown(sum_kinds_sentence(table["shown"]["base"], table["shown"]["grpo"]))
        st.markdown(restatement_sentence(table["shown"]["base"], table["shown"]["math"]))
        page_link("talk", "Talk", "Read what they wrote, before and after", wrote="arithmetic")
    source_caption(
        table,
        f"G = {arms[0]['group_size']}, {arms[0]['batch_size']} completions an update; bars and"
        f" bands are 95 % intervals; {table['evaluation']}. Reward, length and entropy are of the"
        " completions trained on.",
    )
    by_size = group_size_rows(table)
    by_size_text = f"{outcome_sentence({'rows': by_size})} {cost_sentence(by_size)}"
    figure(
        group_size.group_size_accuracy_figure(by_size, before, theme()),
        "sums-sizes",
        "Gold accuracy on sums after training with checked answers over G, at equal completions"
        f" and at equal prompts. {by_size_text}",
        outcome_table({"rows": by_size}),
    )
    st.markdown(f"Checked answers, with groups of five sizes. {by_size_text}")
    source_caption(table, f"Bars are 95 % intervals; {table['evaluation']}.")


def arms_by_reward(table: Table) -> list[ArithmeticArm]:
    """The arms with checked answers, with the checker that can be fooled and with the coin, in this
    order. They differ only in their reward.
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
    """The arms of five group sizes in the form of the experiment on group sizes, whose figure and
    sentences are used.
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


def arm_sentence(row: ArithmeticArm, before: float) -> str:
    """The change of an arm's reward, gold accuracy, length and entropy over training, in numbers."""
    reward, accuracy, length, entropy = (
        row["reward"],
        row["end"]["gold/accuracy"],
        row["length"]["mean"],
        row["entropy"]["mean"],
    )
    return (
        f"With {REWARD_TITLES[row['equal']]} the reward paid goes from {reward['mean'][0]:.2f} to"
        f" {reward['mean'][-1]:.2f} ± {reward['half'][-1]:.2f} and gold accuracy from {before:.2f}"
        f" to {accuracy['mean']:.2f} ± {accuracy['half']:.2f}, {change_text(accuracy, before)};"
        f" completions from {length[0]:.0f} to {length[-1]:.0f} tokens, entropy from"
        f" {entropy[0]:.2f} to {entropy[-1]:.2f} nats."
    )


def change_text(interval: Mapping[str, float], before: float) -> str:
    """Whether an interval lies above, below or around the value before training."""
    if abs(interval["mean"] - before) <= interval["half"]:
        return "not told apart from before"
    return "above where it was" if interval["mean"] > before else "below where it was"


def checked_answers_sentence(arms: Sequence[ArithmeticArm]) -> str:
    """Whether checked answers taught more than the coin, and whether the reward of the checker that
    can be fooled equals the share of right answers.
    """
    checked, fooled, coin = arms
    is_above = _lies_above(checked["end"]["gold/accuracy"], coin["end"]["gold/accuracy"])
    coin_sentence = (
        "The intervals of checked answers and of the coin lie apart, so what the first has learnt"
        " it has from its checker."
        if is_above
        else (
            "The interval of checked answers does not lie above that of the coin, so this record"
            " shows nothing learnt that a coin would not teach."
        )
    )
    reward, accuracy = (
        {"mean": fooled["reward"]["mean"][-1], "half": fooled["reward"]["half"][-1]},
        fooled["end"]["gold/accuracy"],
    )
    if not _lies_above(reward, accuracy):
        return (
            f"{coin_sentence} What the checker that can be fooled paid and what was right are not"
            " told apart here."
        )
    return (
        f"{coin_sentence} The one that can be fooled pays {reward['mean']:.2f} in the last update"
        f" where {accuracy['mean']:.2f} is right: its reward is a proxy, and its curve alone looks"
        " like success."
    )


def _lies_above(high: Mapping[str, float], low: Mapping[str, float]) -> bool:
    """Whether the interval `high` lies above the interval `low`."""
    return high["mean"] - high["half"] > low["mean"] + low["half"]


def cost_sentence(rows: Sequence[ArithmeticArm]) -> str:
    """The tokens that runs with the smallest and the largest group take at equal prompts."""
    by_size = sorted(
        (row for row in rows if row["budget"] == "prompts"), key=lambda row: row["group_size"]
    )
    few, many = by_size[0], by_size[-1]
    tokens = [row["final"]["tokens"]["mean"] for row in (few, many)]
    return (
        f"At equal prompts a run with G = {many['group_size']} takes {tokens[1]:,.0f} tokens, one"
        f" with G = {few['group_size']} takes {tokens[0]:,.0f}: {tokens[1] / tokens[0]:.1f} times"
        " as many. Seconds are not shown: several runs shared a GPU."
    )


def arms_table(arms: Sequence[ArithmeticArm]) -> pd.DataFrame:
    """The arms at every evaluation, as a table; reward, length and entropy are of the update before
    it.
    """
    rows = []
    for row in arms:
        at = dict(
            zip(row["steps"], zip(*(row[name]["mean"] for name in ("reward", "length", "entropy"))))
        )
        for step, mean, half in zip(
            row["looks"], row["gold/accuracy"]["mean"], row["gold/accuracy"]["half"]
        ):
            reward, length, entropy = at.get(step, (None, None, None))
            rows.append(
                {
                    "reward": REWARD_TITLES[row["equal"]],
                    "update": step,
                    "reward paid": reward,
                    "gold accuracy": f"{mean:.3f} ± {half:.3f}",
                    "length, tokens": length,
                    "entropy, nats": entropy,
                }
            )
    return pd.DataFrame(rows)
