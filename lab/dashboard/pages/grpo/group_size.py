"""Sections of page GRPO about the group: what a larger one buys and costs, other ways to scale,
groups that are dead.
"""

from typing import Any

import pandas as pd
import streamlit as st

from lab.analysis.recorded_results import load_result
from lab.dashboard.components.layout import figure, source_caption
from lab.dashboard.pages.grpo.group_source import GROUP_SIZES, GroupSource, completion_pool
from lab.figures import group_size, groups


@st.cache_data(show_spinner="Drawing groups …")
def error_by_group_size() -> tuple[list[float], list[float], int]:
    """For every G the error of its advantages and the tokens of a group, both means over the base's
    prompts; and over how many prompts.
    """
    from lab.analysis.group_statistics import advantage_error

    row = completion_pool()["rows"][0]
    rewards = [[c["reward"] for c in one] for one in row["completions"]]
    mixed = [one for one in rewards if 0 < sum(one) < len(one)]
    length = sum(len(c["tokens"]) for one in row["completions"] for c in one) / sum(
        map(len, row["completions"])
    )
    return (
        [sum(advantage_error(one, size) for one in mixed) / len(mixed) for size in GROUP_SIZES],
        [length * size for size in GROUP_SIZES],
        len(mixed),
    )


def prediction_answer(guess: str) -> str:
    """What becomes of the prediction."""
    found = dict(zip(GROUP_SIZES, error_by_group_size()[0]))
    right = "Right." if guess == "to half" else "It is about half."
    return (
        f"{right} Measured on the pool: {found[4]:.2f} standard deviations at G = 4, {found[16]:.2f} at 16, so it falls to {found[16] / found[4]:.0%} at four times the cost. A mean of G draws errs by 1/√G."
    ).replace("%", " %")


def error_and_cost_section() -> None:
    """The article's sentence about G beside the measurement."""
    (found, length, prompts), table = error_by_group_size(), load_result("groups")
    seconds = seconds_per_update(table)
    figure(
        group_size.error_and_cost_figure(GROUP_SIZES, found, length, seconds),
        "error",
        f"Error of the advantage over G, from {found[0]:.2f} to {found[-1]:.2f}, and cost.",
        pd.DataFrame(
            {
                "G": GROUP_SIZES,
                "error of A, std": found,
                "tokens of a group": length,
                "seconds of an update of 16 prompts": seconds,
            }
        ),
        group_size.ERROR_AND_COST_NARROW_LAYOUT,
    )
    st.markdown(
        "The article: “Larger G → More accurate Advantage (lower variance) → But linear cost"
        f" increase”. Measured: from G = 2 to 32 the error falls from {found[0]:.2f} to"
        f" {found[-1]:.2f} standard deviations, to {found[-1] / found[0]:.2f} of it where 1/√G says"
        f" 0.25. A group costs {length[-1] / length[0]:.0f} times the tokens, an update of 16"
        f" prompts {seconds[-1] / seconds[0]:.1f} times the seconds."
    )
    source_caption(
        completion_pool(),
        f"Error: 2,000 groups for each of {prompts} prompts that the base solves at times, drawn from its 64 completions, against their mean and std. Seconds: the runs of the next figure.",
    )
    figure(
        group_size.group_size_accuracy_figure(
            table["rows"], table["rows"][0]["gold/accuracy"]["mean"][0]
        ),
        "outcome",
        "Gold accuracy after training over G, at equal completions and at equal prompts.",
        outcome_table(table),
    )
    st.markdown(outcome_sentence(table))
    source_caption(table, f"Bars are 95 % intervals; {table['evaluation']}.")


def seconds_per_update(table: dict[str, Any]) -> list[float]:
    """Seconds of an update for every G, at equal prompts."""
    rows = {row["group_size"]: row for row in table["rows"] if row["budget"] == "prompts"}
    return [rows[size]["seconds"][-1] / len(rows[size]["steps"]) for size in GROUP_SIZES]


def outcome_table(table: dict[str, Any]) -> pd.DataFrame:
    """Where the runs of every G ended."""
    return pd.DataFrame(
        [
            {
                "equal": group_size.BUDGET_TITLES[row["budget"]],
                "G": row["group_size"],
                "completions an update": row["batch_size"],
                "gold accuracy": (
                    f"{row['final']['gold/accuracy']['mean']:.3f} ± {row['final']['gold/accuracy']['half']:.3f}"
                ),
                "KL, nats": row["final"]["kl"]["mean"],
                "seconds": row["final"]["seconds"]["mean"],
                "tokens": row["final"]["tokens"]["mean"],
            }
            for row in table["rows"]
        ]
    )


def outcome_sentence(table: dict[str, Any]) -> str:
    """What the runs say about G, in numbers."""
    gold = {
        (row["budget"], row["group_size"]): row["final"]["gold/accuracy"] for row in table["rows"]
    }
    parts = []
    for budget, means in group_size.BUDGET_TITLES.items():
        few, many = gold[budget, GROUP_SIZES[0]], gold[budget, GROUP_SIZES[-1]]
        apart = abs(few["mean"] - many["mean"]) > few["half"] + many["half"]
        parts.append(
            f"at {means} {few['mean']:.2f} ± {few['half']:.2f} with G = {GROUP_SIZES[0]} and {many['mean']:.2f} ± {many['half']:.2f} with G = {GROUP_SIZES[-1]}, "
            + ("which lie apart" if apart else "whose intervals overlap")
        )
    return (
        f"Gold accuracy after {table['rows'][0]['steps'][-1]} updates: "
        + "; ".join(parts)
        + ". At equal completions a larger group is more exact about each prompt and sees fewer of them; at equal prompts it costs more."
    )


def scaling_section(drawn: GroupSource, size: int) -> None:
    """The same group under every way to scale."""
    from lab.analysis.group_statistics import ADVANTAGE_VARIANTS, advantages_by_variant

    own = sorted(drawn.rewards[:size], reverse=True)
    others = [r for one in drawn.others for r in one[:size]]
    found = {
        name: advantages_by_variant(own, name, others)
        for name in ADVANTAGE_VARIANTS
        if name != "batch" or others
    }
    figure(
        groups.advantage_variants_figure(found),
        "variants",
        "Advantages of the group above under each way to scale them.",
        pd.DataFrame(
            {"reward": own}
            | {groups.VARIANT_TITLES[name]: values for name, values in found.items()}
        ),
    )
    ratio = (size / (size - 1)) ** 0.5
    st.markdown(
        f"The group above, G = {size}. The population std makes every advantage √(G/(G − 1)) ="
        f" {ratio:.3f} times as large as the unbiased one: 1.414 times at G = 2, 1.016 times at 32."
        " Dividing by the group's own std makes a prompt with one right answer in G count more"
        " than one with half of them right; Dr. GRPO (arXiv 2503.20783) leaves the division out"
        " for that reason, and the batch's std divides all prompts alike."
    )
    batch = (
        f"; the batch is this group and {len(drawn.others)} others of the same policy"
        if others
        else ""
    )
    st.caption(f"`lab.algorithms.advantages.group_advantages` on these rewards{batch}.")


@st.cache_data(show_spinner=False)
def dead_shares() -> tuple[dict[str, list[float]], dict[str, list[float]], dict[str, float]]:
    """Per policy of the pool: dead groups observed at every G, those that the formula expects, and
    the mean pass rate.
    """
    from lab.analysis.group_statistics import dead_group_share, expected_dead_share

    observed, expected, rate = {}, {}, {}
    for row in completion_pool()["rows"]:
        rewards = [[c["reward"] for c in one] for one in row["completions"]]
        rates = [sum(one) / len(one) for one in rewards]
        observed[row["policy"]] = [dead_group_share(rewards, size) for size in GROUP_SIZES]
        expected[row["policy"]] = [expected_dead_share(rates, size) for size in GROUP_SIZES]
        rate[row["policy"]] = sum(rates) / len(rates)
    return observed, expected, rate


def dead_groups_section() -> None:
    """Groups that teach nothing: observed, and by the formula."""
    from lab.analysis.group_statistics import expected_dead_share

    observed, expected, rate = dead_shares()
    base = next(iter(observed))
    figure(
        groups.dead(GROUP_SIZES, observed, expected),
        "dead",
        "Share of dead groups over G for three policies: points observed, lines by the formula.",
        pd.DataFrame(
            [
                {
                    "policy": name,
                    "G": size,
                    "observed": observed[name][i],
                    "p^G + (1 − p)^G": expected[name][i],
                }
                for name in observed
                for i, size in enumerate(GROUP_SIZES)
            ]
        ),
    )
    st.markdown(
        "A group is dead when all its G answers are right, or none is: chance p^G + (1 − p)^G."
        " Points are the pool cut into groups, lines the formula with each prompt's own pass rate"
        f" p. Of the groups of 8 of {base} {observed[base][2]:.0%} are dead,"
        f" {expected[base][2]:.0%} by the formula. With one p for all prompts, their mean"
        f" {rate[base]:.2f}, it would say {expected_dead_share([rate[base]], 8):.0%}, too few: prompts"
        " differ, and the easy ones die.".replace("%", " %")
    )
    source_caption(
        completion_pool(), "12 prompts and, after training, 8 of them; 64 completions each."
    )
    table = load_result("groups")
    st.markdown(
        "In training, where the policy changes, from the first update to the last: "
        + ", ".join(
            f"with G = {row['group_size']} from {row['frac_reward_zero_std'][0]:.0%} to {row['frac_reward_zero_std'][-1]:.0%}"
            for row in table["rows"]
            if row["budget"] == "rollouts"
        ).replace("%", " %")
        + "."
    )
    source_caption(table)
