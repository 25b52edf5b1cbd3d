"""Section of page GRPO: sums on a real language model, with checked answers and with a coin's rewards, and groups of five sizes."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from lab.figures import groups
from lab.figures.arithmetic import ARMS, stacked, trained
from lab.results import load_result
from lab.ui.group_size import outcome, outcomes
from lab.ui.page import cannot_show, figure, link, source, theme
from lab.ui.restated import restated_says

TITLE = "A language model"
BUDGETS = {"rollouts": "rollouts", "steps": "prompts"}
"""What the arithmetic experiment holds equal, and the name of the same budget in the experiment with group sizes."""

Table = Mapping[str, Any]
Row = Mapping[str, Any]


def sums() -> None:
    """Both figures with what they say."""
    table = load_result("arithmetic")
    arms = checked_and_random(table)
    st.markdown("SmolLM2-135M, an instruct model, is asked for sums of two numbers. A rule checks the answer and pays 1 or 0. The control is paid by a coin, "
                "so whatever it gains does not come from being right (arXiv 2506.10947).")
    text = training_says(arms, table["base"]["gold/accuracy"])
    figure(trained(arms, table["base"], theme()), "sums",
           f"Gold accuracy, length and entropy over updates, with checked answers and with random rewards. {text}", as_frame(arms), stacked())
    st.markdown(text)
    if "shown" in table:
        st.markdown(restated_says(table["shown"]["base"], table["shown"]["grpo"]))
        link("talk", "Talk", "Read what it wrote, before and after", wrote="arithmetic")
    source(table, f"G = {arms[0]['group_size']}, {arms[0]['batch_size']} completions an update; bars and bands are 95 % intervals; {table['evaluation']}. "
           "Length and entropy are of the completions trained on.")
    by_size = as_groups(table)
    said = f"{outcome({'rows': by_size})} {costs_say(by_size)}"
    figure(groups.outcome(by_size, table["base"]["gold/accuracy"], theme()), "sums-sizes",
           f"Gold accuracy on sums after training over G, at equal completions and at equal prompts. {said}", outcomes({"rows": by_size}))
    st.markdown(said)
    source(table, f"Bars are 95 % intervals; {table['evaluation']}.")
    cannot_show("Whether the model can add, beyond what its checker can tell. One model, sums of two numbers, one learning rate for every G. How "
                "far a coin gets depends on the model: it can spread a habit that happens to score, where there is one, and does nothing where there is none.")


def checked_and_random(table: Table) -> list[Row]:
    """The run with checked answers and its control, which agree in everything else."""
    control = next(row for row in table["rows"] if row["equal"] == "random")
    return [next(row for row in table["rows"] if row["equal"] == "rollouts" and row["group_size"] == control["group_size"]), control]


def as_groups(table: Table) -> list[dict[str, Any]]:
    """The arms of five group sizes as rows of the experiment with group sizes, whose figure and words they share."""
    return [{"budget": BUDGETS[row["equal"]], "group_size": row["group_size"], "batch_size": row["batch_size"], "steps": row["steps"], "final": row["end"]}
            for row in table["rows"] if row["equal"] in BUDGETS]


def training_says(arms: Sequence[Row], before: float) -> str:
    """What checked answers and what a coin did to accuracy, and what became of length and entropy, in numbers."""
    checked, coin = (row["end"]["gold/accuracy"] for row in arms)
    apart = checked["mean"] - checked["half"] > coin["mean"] + coin["half"]
    told = ("the intervals lie apart, so what the first has learnt it has from its checker" if apart else
            "the intervals overlap, so this record does not show that the checker taught anything a coin would not")
    return (f"After {arms[0]['steps'][-1]} updates the checker calls {checked['mean']:.2f} ± {checked['half']:.2f} of the held-out answers right with checked "
            f"answers and {coin['mean']:.2f} ± {coin['half']:.2f} with random rewards, {before:.2f} before training: {told}. {coin_says(coin, before)} "
            f"{' '.join(_style(row) for row in arms)}")


def coin_says(coin: Mapping[str, float], before: float) -> str:
    """Where random rewards left the accuracy."""
    if abs(coin["mean"] - before) <= coin["half"]:
        return "The coin alone leaves accuracy where it was, within its interval."
    return f"The coin alone {'raises' if coin['mean'] > before else 'lowers'} accuracy by {abs(coin['mean'] - before):.2f}, though it says nothing about sums."


def _style(row: Row) -> str:
    length, entropy = row["length"]["mean"], row["entropy"]["mean"]
    return (f"With {ARMS[row['equal']]} the completions go from {length[0]:.0f} to {length[-1]:.0f} tokens and the entropy from {entropy[0]:.2f} to "
            f"{entropy[-1]:.2f} nats.")


def costs_say(rows: Sequence[Row]) -> str:
    """What the smallest and the largest group cost at equal prompts."""
    own = sorted((row for row in rows if row["budget"] == "prompts"), key=lambda row: row["group_size"])
    few, many = own[0], own[-1]
    tokens = [row["final"]["tokens"]["mean"] for row in (few, many)]
    return (f"At equal prompts a run with G = {many['group_size']} takes {tokens[1]:,.0f} tokens, one with G = {few['group_size']} {tokens[0]:,.0f}: "
            f"{tokens[1] / tokens[0]:.1f} times as many. Seconds are not shown: several runs shared a GPU.")


def as_frame(arms: Sequence[Row]) -> pd.DataFrame:
    """Both arms where they were evaluated; length and entropy are those of the update before."""
    rows = []
    for row in arms:
        at = dict(zip(row["steps"], zip(row["length"]["mean"], row["entropy"]["mean"])))
        for step, mean, half in zip(row["looks"], row["gold/accuracy"]["mean"], row["gold/accuracy"]["half"]):
            length, entropy = at.get(step, (None, None))
            rows.append({"reward": ARMS[row["equal"]], "update": step, "gold accuracy": f"{mean:.3f} ± {half:.3f}", "length, tokens": length,
                         "entropy, nats": entropy})
    return pd.DataFrame(rows)
