"""Section of page Choose: the same methods on a real language model, where they have been recorded."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from lab.analysis.recorded_results import Comparison, recorded_result
from lab.dashboard.components.layout import cannot_show, figure, page_link, source_caption, theme
from lab.dashboard.pages.choose.method_comparison import method_comparison
from lab.figures.frontier import FRONTIER_NARROW_LAYOUT, frontier_figure, methods_in_order
from lab.figures.palette import METHOD_NAMES

# of the share of repeated bigrams above the base's, from which on a policy counts as one that
# repeats itself
REPETITION_RISE = 0.05

Table = Mapping[str, Any]
FrontierRow = Mapping[str, Any]


def language_model_section() -> None:
    """Reward against KL, then the comparison of all methods; nothing of what is not recorded."""
    traded, compared = recorded_result("frontier"), recorded_result("compare-smollm2")
    if traded is None and compared is None:
        return
    st.subheader("On a real language model", anchor=False)
    st.markdown(
        "SmolLM2-135M goes on from the opening of a film review. The gold reward is VADER's score of what it writes, from −1 to 1: a number that is computed, in place of a human's taste, as in the DPO paper's controlled experiment (arXiv 2305.18290, Fig. 2)."
    )
    if traded is not None:
        frontier_section(traded)
    if compared is not None:
        st.subheader("The same comparison on this model", anchor=False)
        text = comparison_sentence(compared)
        method_comparison(compared, "reached-smollm2", text)
        st.markdown(text)
        source_caption(
            compared,
            f"{compared['plan']['seeds']} seeds, bars are 95 % intervals; {compared['evaluation']}. Gold accuracy is the share that VADER calls positive.",
        )
    cannot_show(
        "Whether anybody would like these reviews: VADER adds up words from a list, and a policy"
        " that writes those words is paid for them. A text has some 30 tokens, the pairs are"
        " labelled by the same VADER without noise, and a method has one learning rate for all β."
        " At an equal number of updates the methods have not seen equally many tokens."
    )


def frontier_section(table: Table) -> None:
    """How much reward each method gets for its distance from the reference."""
    said = frontier_sentences(table)
    figure(
        frontier_figure(table, theme()),
        "frontier",
        f"Gold reward over KL to the reference, a marker for every method and β, larger for a smaller β. {' '.join(said)}",
        frontier_table(table),
        FRONTIER_NARROW_LAYOUT,
    )
    st.markdown("\n\n".join(said))
    if "shown" in table:
        page_link("talk", "Talk", "Read what they wrote, before and after", wrote="sentiment")
    source_caption(
        table,
        f"A marker a β, larger for a smaller one; bars are 95 % intervals; thin lines: the way of training. {table['evaluation']}. At equal KL a reward is read off between two β, linear in log KL; how sure that KL is does not enter its interval.",
    )


def frontier_sentences(table: Table) -> tuple[str, str, str]:
    """Who has most reward at equal KL, what β does, and where the reward is hacked, in numbers."""
    return (
        equal_kl_sentence(table["rows"]),
        beta_sentence(table["rows"]),
        repetition_sentence(table["rows"], table["base"]["repetition"]),
    )


def equal_kl_sentence(rows: Sequence[FrontierRow]) -> str:
    """The methods in the order of their reward at the KL that most of them reach, read off between
    their β's along log KL.
    """
    kl, there = common_kl(rows)
    if len(there) < 2:
        return "No two methods come to the same KL, so their rewards cannot be compared at equal distance."
    found = sorted(((*reward_at(rows, method, kl), method) for method in there), reverse=True)
    (best, half, first), (next_best, next_half, second) = found[:2]
    all_of = len(methods_in_order(rows))
    who = (
        f"all {all_of} methods reach"
        if len(there) == all_of
        else f"{len(there)} of {all_of} methods reach"
    )
    told = (
        "their intervals overlap"
        if best - half <= next_best + next_half
        else "their intervals lie apart"
    )
    last = (
        ""
        if len(found) == 2
        else f" {METHOD_NAMES[found[-1][2]]} has least, {found[-1][0]:.2f} ± {found[-1][1]:.2f}."
    )
    return f"At {kl:.2g} nats of KL, which {who}, {METHOD_NAMES[first]} has most reward, {best:.2f} ± {half:.2f}, before {METHOD_NAMES[second]} with {next_best:.2f} ± {next_half:.2f}: {told}.{last}"


def common_kl(rows: Sequence[FrontierRow]) -> tuple[float, list[str]]:
    """The middle, on a logarithmic scale, of the widest stretch of KL that as many methods as
    possible span, and those methods.
    """
    spans = {
        method: (min(found), max(found))
        for method in methods_in_order(rows)
        if (found := [kl for kl, _, _ in final_kl_and_reward(rows, method)])
    }
    edges = sorted({edge for span in spans.values() for edge in span})
    stretches = [
        (low, high, [m for m, (start, end) in spans.items() if start <= low and high <= end])
        for low, high in zip(edges, edges[1:])
    ]
    low, high, there = max(
        stretches, key=lambda s: (len(s[2]), s[1] / s[0]), default=(1.0, 1.0, [])
    )
    return math.sqrt(low * high), there


def final_kl_and_reward(
    rows: Sequence[FrontierRow], method: str
) -> list[tuple[float, float, float]]:
    """KL, reward and half its interval where the runs of a method ended, by growing KL; without
    those that have not moved.
    """
    found = [row["end"] for row in rows if row["method"] == method]
    return sorted(
        (end["kl"]["mean"], end["reward"]["mean"], end["reward"]["half"])
        for end in found
        if end["kl"]["mean"] > 0
    )


def reward_at(rows: Sequence[FrontierRow], method: str, kl: float) -> tuple[float, float]:
    """Reward of a method at a KL between its β's, and half its interval, both linear in log KL."""
    distance, reward, half = (
        np.array(column) for column in zip(*final_kl_and_reward(rows, method))
    )
    return tuple(
        float(np.interp(math.log(kl), np.log(distance), column)) for column in (reward, half)
    )


def beta_sentence(rows: Sequence[FrontierRow]) -> str:
    """How far β's lie apart in KL and reward, and where a smaller one does not go further."""
    parts, against = [], []
    for method in methods_in_order(rows):
        own = sorted((row for row in rows if row["method"] == method), key=lambda row: -row["beta"])
        kl, reward = ([row["end"][name]["mean"] for row in own] for name in ("kl", "reward"))
        parts.append(
            f"{METHOD_NAMES[method]} {kl[0]:.2g} → {kl[-1]:.2g} nats, reward {reward[0]:.2f} → {reward[-1]:.2f}"
        )
        against += [METHOD_NAMES[method]] * any(after < before for before, after in zip(kl, kl[1:]))
    betas = sorted({row["beta"] for row in rows})
    ordered = (
        "goes further with every method"
        if not against
        else f"goes further, though not at every step with {' and '.join(against)}"
    )
    return f"A smaller β {ordered}; from {betas[-1]:g} to {betas[0]:g}: {'; '.join(parts)}. So one β means another distance in each method."


def repetition_sentence(rows: Sequence[FrontierRow], before: float) -> str:
    """Where more bigrams repeat than before training: the reward's weakness, found and used."""
    found = [row for row in rows if row["end"]["repetition"]["mean"] > before + REPETITION_RISE]
    if not found:
        return f"Repetition rises nowhere by more than {REPETITION_RISE:g} above the base's {before:.2f}: at these distances the reward is not hacked that way."
    said = []
    for row in sorted(found, key=lambda row: -row["end"]["repetition"]["mean"]):
        share, half = row["end"]["repetition"]["mean"], row["end"]["repetition"]["half"]
        unsure = ", more in one seed than in another" if share - half <= before else ""
        said.append(
            f"{METHOD_NAMES[row['method']]} at β = {row['beta']:g} ({share:.2f} ± {half:.2f}{unsure}; reward {row['end']['reward']['mean']:.2f})"
        )
    return f"The reward is hacked where bigrams repeat, a share of {before:.2f} before training: {'; '.join(said)}. VADER pays for one kind word, again and again."


def frontier_table(table: Table) -> pd.DataFrame:
    """Where every method ended with every β."""
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
            | {
                head: f"{row['end'][name]['mean']:.3g} ± {row['end'][name]['half']:.2g}"
                for name, head in heads.items()
            }
            for row in table["rows"]
        ]
    )


def comparison_sentence(table: dict[str, Any]) -> str:
    """Which method ends highest on the language model, whether that is sure, and which is nearest
    to the reference among those that learnt.
    """
    found = Comparison(table)
    order = sorted((row["method"] for row in table["methods"]), key=found.mean, reverse=True)
    best, second, last = order[0], order[1], order[-1]
    ahead = found.difference(best, second)
    told = (
        f"{found.title(best)} ends highest, {found.text(best)}, {ahead.signed()} above {found.title(second)}"
        if ahead.is_positive()
        else (
            f"{found.title(best)} ({found.text(best)}) and {found.title(second)} ({found.text(second)}) end highest and are not told apart ({ahead.signed()})"
        )
    )
    amount = (
        f"{table['plan']['amount']:,.0f} {table['plan']['budget']}"
        if table["plan"]["budget"] != "defaults"
        else "the defaults"
    )
    went = [f"{found.mean(arm, 'kl'):.2g} ± {found.half(arm, 'kl'):.2g}" for arm in (best, last)]
    return f"All methods at {amount}, from a share of {table['base']['gold/accuracy']:.2f}: {told}. {found.title(last)} ends lowest, {found.text(last)}. The highest went {went[0]} nats from the reference, the lowest {went[1]}.{_variety_sentence(found, best)}"


def _variety_sentence(found: Comparison, arm: str) -> str:
    """What the arm's reward cost in variety, where the task measures it."""
    if "distinct_2" not in found.base:
        return ""
    return f" Of the bigrams of {found.title(arm)} {found.text(arm, 'distinct_2')} differ, {found.base['distinct_2']:.2f} before training."
