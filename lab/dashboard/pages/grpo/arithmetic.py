"""Section of page GRPO: sums on a real language model, rewarded by checked answers, by a checker
that can be fooled and by a coin; groups of five sizes.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import streamlit as st

from lab.analysis.comparison_words import from_interval, judge, recorded_difference
from lab.analysis.recorded_results import load_result
from lab.analysis.statistics import SHARE, Interval
from lab.dashboard.components.layout import figure, page_link, source_caption, theme
from lab.dashboard.pages.grpo.group_size import outcome_sentence, outcome_table
from lab.dashboard.state.arithmetic_text import restatement_sentence, sum_kinds_sentence
from lab.figures import group_size
from lab.figures.arithmetic import REWARD_TITLES, arithmetic_figure, arithmetic_narrow_layout

if TYPE_CHECKING:
    import pandas as pd

TITLE = "A language model"
CANNOT_SHOW = (
    "The section “A language model” uses one model, sums of two numbers, and one learning rate for"
    " every G and every reward. A right number does not say how the model found it. The effect of"
    " random rewards depends on the model and on the clip. Here each rollout is used for one"
    " update, so nothing is clipped; arXiv 2506.10947 explains its gains by clipping, which the section"
    " “Clipping” tests."
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
        "SmolLM2-135M, an instruct model, answers sums of two numbers. A text is right if its last"
        " number is the answer. Three runs of GRPO differ only in their reward. The first reward"
        " checks the last number. The second compares values, so it also pays for the repeated"
        " question: this checker can be fooled. The third reward is random. It is a control: gains"
        " under random rewards cannot come from right answers (compare arXiv 2506.10947)."
    )
    words = change_words(arms, before, table["seeds"])
    sentences = [
        *(arm_sentence(row, before, word) for row, word in zip(arms, words)),
        checked_answers_sentence(arms, table["seeds"]),
    ]
    figure(
        arithmetic_figure(arms, table["base"], theme()),
        "sums",
        "Reward paid, gold accuracy, length and entropy over updates for three rewards."
        f" {' '.join(sentences)}",
        arms_table(arms),
        arithmetic_narrow_layout(),
    )
    st.markdown(
        f"Before training, gold accuracy (the share of right answers on held-out prompts) is"
        f" {before:.2f}. After {arms[0]['steps'][-1]} updates:\n\n"
        + "\n".join(f"- {sentence}" for sentence in sentences[:-1])
        + f"\n\n{sentences[-1]}"
    )
    if "shown" in table:
        st.markdown(sum_kinds_sentence(table["shown"]["base"], table["shown"]["grpo"]))
        st.markdown(restatement_sentence(table["shown"]["base"], table["shown"]["math"]))
        page_link("talk", "Talk", "Read the texts before and after training", wrote="arithmetic")
    source_caption(
        table,
        f"G = {arms[0]['group_size']}, {arms[0]['batch_size']} completions in each update. Bars and"
        f" bands are 95 % intervals; {table['evaluation']}. Reward, length and entropy come from the"
        " completions of the training batches.",
    )
    by_size = group_size_rows(table)
    by_size_text = (
        f"{outcome_sentence({'rows': by_size, 'seeds': table['seeds']})} {cost_sentence(by_size)}"
    )
    figure(
        group_size.group_size_accuracy_figure(by_size, before, theme()),
        "sums-sizes",
        "Gold accuracy on sums over G, after training with checked answers, with equally many"
        f" completions and with equally many prompts in each update. {by_size_text}",
        outcome_table({"rows": by_size}),
    )
    st.markdown(f"These runs use checked answers and five group sizes. {by_size_text}")
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


def arm_sentence(row: ArithmeticArm, before: float, word: str) -> str:
    """The change of an arm's reward, gold accuracy, length and entropy over training, in numbers;
    `word` says how gold accuracy compares with that before training.
    """
    reward, accuracy, length, entropy = (
        row["reward"],
        row["end"]["gold/accuracy"],
        row["length"]["mean"],
        row["entropy"]["mean"],
    )
    paid = Interval(reward["mean"][-1], reward["half"][-1])
    return (
        f"**{REWARD_TITLES[row['equal']].capitalize()}.** The mean reward goes from"
        f" {reward['mean'][0]:.2f} to {paid.text(2, SHARE)}. Gold accuracy goes from {before:.2f} to"
        f" {Interval(**accuracy).text(2, SHARE)}: {word}. Completions go from {length[0]:.0f} to"
        f" {length[-1]:.0f} tokens, and entropy (the spread of the next-token probabilities) from"
        f" {entropy[0]:.2f} to {entropy[-1]:.2f} nats per token."
    )


def change_words(arms: Sequence[ArithmeticArm], before: float, seeds: int) -> list[str]:
    """For each arm the word for its gold accuracy against that before training; all are one family.
    The base was measured once, on as many completions as a run.
    """
    changes = [from_interval(_accuracy(row), seeds, before) for row in arms]
    return [judgement.word for judgement in judge(changes, words=("a rise", "a fall"))]


def checked_answers_sentence(arms: Sequence[ArithmeticArm], seeds: int) -> str:
    """Whether checked answers taught more than the coin, and whether the reward of the checker that
    can be fooled equals the share of right answers.
    """
    checked, fooled, coin = arms
    paid = Interval(fooled["reward"]["mean"][-1], fooled["reward"]["half"][-1])
    gain, gap = judge(
        [
            recorded_difference(_accuracy(checked), _accuracy(coin), seeds),
            recorded_difference(paid, _accuracy(fooled), seeds),
        ],
        words=("higher", "lower"),
    )
    coin_sentence = f"Gold accuracy, checked answers minus random rewards: {gain.text()}. " + (
        "Both were trained alike apart from the reward, so the gain needs the check."
        if gain.word == "higher"
        else "So this record shows no gain that needs the check."
    )
    fooled_sentence = (
        "For the checker that can be fooled, the reward of the last update minus gold accuracy is"
        f" {gap.text()}."
    )
    if gap.word != "higher":
        return f"{coin_sentence} {fooled_sentence}"
    return f"{coin_sentence} {fooled_sentence} The reward curve alone looks like success."


def _accuracy(row: ArithmeticArm) -> Interval:
    return Interval(**row["end"]["gold/accuracy"])


def cost_sentence(rows: Sequence[ArithmeticArm]) -> str:
    """The tokens that runs with the smallest and the largest group take at equal prompts."""
    by_size = sorted(
        (row for row in rows if row["budget"] == "prompts"), key=lambda row: row["group_size"]
    )
    few, many = by_size[0], by_size[-1]
    tokens = [row["final"]["tokens"]["mean"] for row in (few, many)]
    return (
        f"With equally many prompts, a run with G = {many['group_size']} takes {tokens[1]:,.0f}"
        f" tokens and a run with G = {few['group_size']} takes {tokens[0]:,.0f}. This is"
        f" {tokens[1] / tokens[0]:.1f} times as many. Seconds are not shown, because several runs"
        " shared one GPU."
    )


def arms_table(arms: Sequence[ArithmeticArm]) -> "pd.DataFrame":
    """The arms at every evaluation, as a table; reward, length and entropy are of the update before
    it.
    """
    import pandas as pd

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
                    "gold accuracy": Interval(mean, half).text(3, SHARE),
                    "length, tokens": length,
                    "entropy, nats": entropy,
                }
            )
    return pd.DataFrame(rows)
