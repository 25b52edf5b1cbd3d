"""Section of page Choose: the recorded experiments with the same methods on a real language model."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st

from lab.analysis.comparison_words import from_interval, judge, recorded_difference
from lab.analysis.recorded_results import Comparison, recorded_result
from lab.analysis.statistics import NOT_NEGATIVE, SHARE, Interval, possible_range
from lab.dashboard.components.layout import (
    cannot_show,
    figure,
    page_link,
    source_caption,
    source_text,
    theme,
)
from lab.dashboard.pages.choose.method_comparison import interval_text, method_comparison
from lab.figures.frontier import FRONTIER_NARROW_LAYOUT, frontier_figure, methods_in_order
from lab.figures.palette import METHOD_NAMES

if TYPE_CHECKING:
    import pandas as pd

# A policy repeats itself if its share of repeated bigrams is this much above the base's.
REPETITION_RISE = 0.05
REWARD = possible_range("reward")

Table = Mapping[str, Any]
FrontierRow = Mapping[str, Any]


def language_model_section() -> None:
    """Show reward against KL, then the comparison of all methods, as far as they are recorded."""
    tradeoff, comparison = recorded_result("frontier"), recorded_result("compare-smollm2")
    if tradeoff is None and comparison is None:
        return
    st.subheader("On a real language model", anchor=False)
    st.markdown(
        "SmolLM2-135M continues the opening of a film review. The gold reward of its text is"
        " VADER's score from −1 (negative) to 1 (positive). VADER is a program that adds up"
        " positive and negative words. It takes the place of human taste, like the classifier in"
        " the DPO paper's experiment (arXiv 2305.18290, Fig. 2)."
    )
    if tradeoff is not None:
        frontier_section(tradeoff)
    if comparison is not None:
        st.subheader("The same comparison on this model", anchor=False)
        text = comparison_sentence(comparison)
        source = source_text(
            comparison,
            f"{comparison['plan']['seeds']} seeds; bars are 95 % intervals;"
            f" {comparison['evaluation']}. Gold accuracy is the share of positive texts by VADER.",
        )
        method_comparison(Comparison(comparison), "reached-smollm2", text, source)
        st.markdown(text)
    cannot_show(
        "The figures do not show whether people would like these reviews. VADER pays for words from"
        " a list, and a policy can simply write these words. A text has about 30 tokens. VADER also"
        " labelled the pairs, without noise. Each method has one learning rate for all values of β."
        " With equally many updates, the methods have not seen equally many tokens."
    )


def frontier_section(table: Table) -> None:
    """Show the gold reward of each method over its KL to the reference."""
    sentences = frontier_sentences(table)
    figure(
        frontier_figure(table, theme()),
        "frontier",
        "Gold reward over KL to the reference. Each method and β has one marker; it is larger for a"
        f" smaller β. {' '.join(sentences)}",
        frontier_table(table),
        FRONTIER_NARROW_LAYOUT,
    )
    st.markdown("\n\n".join(sentences))
    if "shown" in table:
        page_link("talk", "Talk", "Read the texts before and after training", wrote="sentiment")
    source_caption(
        table,
        "Each β has one marker; it is larger for a smaller β. Bars are 95 % intervals. Thin lines"
        f" show the path of training. {table['evaluation']}. The reward at equal KL is interpolated"
        " between two values of β, linearly in log KL. Its interval does not include the error of"
        " the KL.",
    )


def frontier_sentences(table: Table) -> tuple[str, str, str]:
    """Sentences on the reward at equal KL, on the effect of β, and on reward hacking, in numbers."""
    return (
        equal_kl_sentence(table["rows"], table["seeds"]),
        beta_sentence(table["rows"]),
        repetition_sentence(table["rows"], table["base"]["repetition"], table["seeds"]),
    )


def equal_kl_sentence(rows: Sequence[FrontierRow], seeds: int) -> str:
    """The rewards of the methods at the KL that most methods reach, interpolated between values of β,
    linearly in log KL; and which methods are not told apart from the highest.
    """
    kl, reaching = common_kl(rows)
    if len(reaching) < 2:
        return "No two methods reach the same KL, so their rewards cannot be compared at equal KL."
    ranking = sorted(
        ((reward_at(rows, method, kl), METHOD_NAMES[method]) for method in reaching),
        key=lambda reached: -reached[0].mean,
    )
    (best, first), *others = ranking
    judged = judge([recorded_difference(best, reward, seeds) for reward, _ in others])
    level = [name for (_, name), judgement in zip(others, judged) if not judgement.is_sure]
    num_methods = len(methods_in_order(rows))
    reach = (
        f"All {num_methods} methods"
        if len(reaching) == num_methods
        else f"{len(reaching)} of {num_methods} methods"
    )
    return (
        f"{reach} reach a KL of {kl:.2g} nats. There {first} has the highest mean reward,"
        f" {best.text(2, REWARD)}. The others: "
        + "; ".join(f"{name} {reward.text(2, REWARD)}" for reward, name in others)
        + (
            f". {first} is not told apart from {' and '.join(level)}."
            if level
            else f". {first} is better than every other."
        )
    )


def common_kl(rows: Sequence[FrontierRow]) -> tuple[float, list[str]]:
    """The KL at which most methods can be compared, and these methods. It is the middle, on a
    logarithmic scale, of the widest range of KL that the largest number of methods spans.
    """
    spans = {
        method: (min(kls), max(kls))
        for method in methods_in_order(rows)
        if (kls := [kl for kl, _, _ in final_kl_and_reward(rows, method)])
    }
    edges = sorted({edge for span in spans.values() for edge in span})
    ranges = [
        (low, high, [m for m, (start, end) in spans.items() if start <= low and high <= end])
        for low, high in zip(edges, edges[1:])
    ]
    low, high, reaching = max(
        ranges, key=lambda r: (len(r[2]), r[1] / r[0]), default=(1.0, 1.0, [])
    )
    return math.sqrt(low * high), reaching


def final_kl_and_reward(
    rows: Sequence[FrontierRow], method: str
) -> list[tuple[float, float, float]]:
    """Final KL, reward and half of the reward's interval for every β of a method, by ascending KL;
    runs with a KL of 0 are left out.
    """
    finals = [row["end"] for row in rows if row["method"] == method]
    return sorted(
        (end["kl"]["mean"], end["reward"]["mean"], end["reward"]["half"])
        for end in finals
        if end["kl"]["mean"] > 0
    )


def reward_at(rows: Sequence[FrontierRow], method: str, kl: float) -> Interval:
    """The reward of a method at `kl` with its interval, interpolated between its values of β, linearly
    in log KL.
    """
    distance, reward, half = (
        np.array(column) for column in zip(*final_kl_and_reward(rows, method))
    )
    position, positions = math.log(kl), np.log(distance)
    return Interval(
        float(np.interp(position, positions, reward)), float(np.interp(position, positions, half))
    )


def beta_sentence(rows: Sequence[FrontierRow]) -> str:
    """KL and reward from the largest to the smallest β of each method, and the methods in which a
    smaller β does not always increase KL.
    """
    parts: list[str] = []
    exceptions: list[str] = []
    for method in methods_in_order(rows):
        by_beta = sorted(
            (row for row in rows if row["method"] == method), key=lambda row: -row["beta"]
        )
        kl, reward = ([row["end"][name]["mean"] for row in by_beta] for name in ("kl", "reward"))
        parts.append(
            f"{METHOD_NAMES[method]} {kl[0]:.2g} → {kl[-1]:.2g} nats, reward {reward[0]:.2f} →"
            f" {reward[-1]:.2f}"
        )
        if any(after < before for before, after in zip(kl, kl[1:])):
            exceptions.append(METHOD_NAMES[method])
    betas = sorted({row["beta"] for row in rows})
    effect = (
        "A smaller β leads to a larger KL in every method"
        if not exceptions
        else "A smaller β mostly leads to a larger KL; an exception occurs with"
        f" {' and '.join(exceptions)}"
    )
    return (
        f"{effect}. From β = {betas[-1]:g} to β = {betas[0]:g} the values change as follows:"
        f" {'; '.join(parts)}. So the same β leads to a different KL in each method."
    )


def repetition_sentence(rows: Sequence[FrontierRow], before: float, seeds: int) -> str:
    """The methods and β whose texts repeat bigrams more than before training, which hacks the
    reward.
    """
    repeating = [row for row in rows if row["end"]["repetition"]["mean"] > before + REPETITION_RISE]
    if not repeating:
        return (
            "The share of repeated bigrams (pairs of words) rises by at most"
            f" {REPETITION_RISE:g}, from {before:.2f} before training. So no policy exploits the"
            " reward by repetition here."
        )
    repeating.sort(key=lambda row: -row["end"]["repetition"]["mean"])
    shares = [Interval(**row["end"]["repetition"]) for row in repeating]
    judged = judge([from_interval(share, seeds, before) for share in shares])
    parts = [
        f"{METHOD_NAMES[row['method']]} at β = {row['beta']:g} ({share.text(2, SHARE)}"
        f"{'' if judgement.is_sure else ', not told apart from before'}; reward"
        f" {row['end']['reward']['mean']:.2f})"
        for row, share, judgement in zip(repeating, shares, judged)
    ]
    return (
        "Some policies exploit the reward (reward hacking): they repeat positive words, because"
        f" VADER pays for each of them. The share of repeated bigrams (pairs of words) is"
        f" {before:.2f} before training. Its mean is higher here: {'; '.join(parts)}."
    )


def frontier_table(table: Table) -> "pd.DataFrame":
    """The final measures of every method with every β, as a table."""
    import pandas as pd

    heads = {
        "reward": "gold reward",
        "gold/accuracy": "positive, share",
        "kl": "KL, nats",
        "repetition": "repeated bigrams",
        "distinct_2": "distinct bigrams",
        "completions/mean_length": "length, tokens",
        "seconds": "seconds",
    }
    return pd.DataFrame(
        [
            {"method": METHOD_NAMES[row["method"]], "β": row["beta"]}
            | {head: interval_text(row["end"][name], name) for name, head in heads.items()}
            for row in table["rows"]
        ]
    )


def comparison_sentence(table: dict[str, Any]) -> str:
    """The methods with the highest and the lowest final accuracy on the language model, whether the
    highest is sure, and the KL of both.
    """
    comparison = Comparison(table)
    order = sorted((row["method"] for row in table["methods"]), key=comparison.mean, reverse=True)
    best, second, last = order[0], order[1], order[-1]
    above = comparison.judge([(best, arm) for arm in order[1:]])
    level = [comparison.title(arm) for arm, j in zip(order[1:], above) if not j.is_sure]
    ranking = (
        f"{comparison.title(best)} has the highest mean, {comparison.text(best)};"
        f" {comparison.title(second)} follows with {comparison.text(second)}. "
        + (
            f"The highest is not told apart from {' and '.join(level)}"
            if level
            else "The highest is better than every other"
        )
        + f" (the {len(above)} comparisons with it, corrected by Holm's method)"
    )
    amount = (
        f"{table['plan']['amount']:,.0f} {table['plan']['budget']}"
        if table["plan"]["budget"] != "defaults"
        else "their default number of updates"
    )
    kls = [comparison.interval(arm, "kl").text(1, NOT_NEGATIVE) for arm in (best, last)]
    return (
        f"All methods trained with {amount}. Before training, the share of positive texts is"
        f" {table['base']['gold/accuracy']:.2f}. {ranking}. {comparison.title(last)} has the"
        f" lowest mean, {comparison.text(last)}. The KL of the highest is {kls[0]} nats, that of the lowest"
        f" {kls[1]} nats.{_variety_sentence(comparison, best)}"
    )


def _variety_sentence(comparison: Comparison, arm: str) -> str:
    """The variety of the arm's texts beside the base's; empty if the task does not measure it."""
    if "distinct_2" not in comparison.base:
        return ""
    return (
        f" The share of distinct bigrams is {comparison.base['distinct_2']:.2f} before training and"
        f" {comparison.text(arm, 'distinct_2')} with {comparison.title(arm)}: a lower share means"
        " less variety."
    )
