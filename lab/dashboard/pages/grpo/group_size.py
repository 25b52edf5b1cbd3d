"""Sections of page GRPO about the group: accuracy and cost of a larger group, other ways to scale
advantages, and dead groups.
"""

from typing import Any

import pandas as pd
import streamlit as st

from lab.analysis.recorded_results import load_result
from lab.dashboard.components.layout import figure, source_caption
from lab.dashboard.pages.grpo.group_source import SLIDER_GROUP_SIZES, GroupSource, completion_pool
from lab.figures import group_size, groups


@st.cache_data(show_spinner="Drawing groups …")
def error_by_group_size() -> tuple[list[float], list[float], int]:
    """For every group size the error of its advantages in standard deviations and the tokens of a
    group, both means over the base's prompts; and the number of prompts with a mixed outcome.
    """
    from lab.analysis.group_statistics import advantage_error

    row = completion_pool()["rows"][0]
    rewards = [[c["reward"] for c in completions] for completions in row["completions"]]
    mixed = [of_prompt for of_prompt in rewards if 0 < sum(of_prompt) < len(of_prompt)]
    length = sum(len(c["tokens"]) for completions in row["completions"] for c in completions) / sum(
        map(len, row["completions"])
    )
    return (
        [
            sum(advantage_error(of_prompt, size) for of_prompt in mixed) / len(mixed)
            for size in SLIDER_GROUP_SIZES
        ],
        [length * size for size in SLIDER_GROUP_SIZES],
        len(mixed),
    )


def prediction_answer(guess: str) -> str:
    """The guessed fall of the error beside the measured one."""
    error = dict(zip(SLIDER_GROUP_SIZES, error_by_group_size()[0]))
    right = "Right." if guess == "to half" else "It is about half."
    return (
        f"{right} Measured on the pool: {error[4]:.2f} standard deviations at G = 4,"
        f" {error[16]:.2f} at 16, so it falls to {error[16] / error[4]:.0%} at four times the cost."
        " A mean of G draws errs by 1/√G."
    ).replace("%", " %")


def error_and_cost_section() -> None:
    """Show the article's claim about larger groups beside the measured error and cost."""
    (error, length, prompts), table = error_by_group_size(), load_result("groups")
    seconds = seconds_per_update(table)
    figure(
        group_size.error_and_cost_figure(SLIDER_GROUP_SIZES, error, length, seconds),
        "error",
        f"Error of the advantage over G, from {error[0]:.2f} to {error[-1]:.2f}, and cost.",
        pd.DataFrame(
            {
                "G": SLIDER_GROUP_SIZES,
                "error of A, std": error,
                "tokens of a group": length,
                "seconds of an update of 16 prompts": seconds,
            }
        ),
        group_size.ERROR_AND_COST_NARROW_LAYOUT,
    )
    st.markdown(
        "The article: “Larger G → More accurate Advantage (lower variance) → But linear cost"
        f" increase”. Measured: from G = 2 to 32 the error falls from {error[0]:.2f} to"
        f" {error[-1]:.2f} standard deviations, to {error[-1] / error[0]:.2f} of it where 1/√G says"
        f" 0.25. A group costs {length[-1] / length[0]:.0f} times the tokens, an update of 16"
        f" prompts {seconds[-1] / seconds[0]:.1f} times the seconds."
    )
    source_caption(
        completion_pool(),
        f"Error: 2,000 groups for each of {prompts} prompts that the base solves at times, drawn"
        " from its 64 completions, against their mean and std. Seconds: the runs of the next"
        " figure.",
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
    """Seconds per update for every group size, at equal numbers of prompts."""
    rows = {row["group_size"]: row for row in table["rows"] if row["budget"] == "prompts"}
    return [rows[size]["seconds"][-1] / len(rows[size]["steps"]) for size in SLIDER_GROUP_SIZES]


def outcome_table(table: dict[str, Any]) -> pd.DataFrame:
    """The final measures of the runs of every group size, as a table."""
    return pd.DataFrame(
        [
            {
                "equal": group_size.BUDGET_TITLES[row["budget"]],
                "G": row["group_size"],
                "completions an update": row["batch_size"],
                "gold accuracy": (
                    f"{row['final']['gold/accuracy']['mean']:.3f} ±"
                    f" {row['final']['gold/accuracy']['half']:.3f}"
                ),
                "KL, nats": row["final"]["kl"]["mean"],
                "seconds": row["final"]["seconds"]["mean"],
                "tokens": row["final"]["tokens"]["mean"],
            }
            for row in table["rows"]
        ]
    )


def outcome_sentence(table: dict[str, Any]) -> str:
    """The final gold accuracy with the smallest and the largest group, per budget, in numbers."""
    gold = {
        (row["budget"], row["group_size"]): row["final"]["gold/accuracy"] for row in table["rows"]
    }
    parts = []
    for budget, means in group_size.BUDGET_TITLES.items():
        few, many = gold[budget, SLIDER_GROUP_SIZES[0]], gold[budget, SLIDER_GROUP_SIZES[-1]]
        is_apart = abs(few["mean"] - many["mean"]) > few["half"] + many["half"]
        parts.append(
            f"at {means} {few['mean']:.2f} ± {few['half']:.2f} with G = {SLIDER_GROUP_SIZES[0]} and"
            f" {many['mean']:.2f} ± {many['half']:.2f} with G = {SLIDER_GROUP_SIZES[-1]}, "
            + ("which lie apart" if is_apart else "whose intervals overlap")
        )
    return (
        f"Gold accuracy after {table['rows'][0]['steps'][-1]} updates: "
        + "; ".join(parts)
        + ". At equal completions a larger group is more exact about each prompt and sees fewer of"
        " them; at equal prompts it costs more."
    )


def scaling_section(source: GroupSource, size: int) -> None:
    """Show the advantages of the present group under every way to scale them. `size`: its number of
    completions.
    """
    from lab.analysis.group_statistics import ADVANTAGE_VARIANTS, advantages_by_variant

    rewards = sorted(source.rewards[:size], reverse=True)
    other_rewards = [reward for group in source.other_rewards for reward in group[:size]]
    variants = {
        name: advantages_by_variant(rewards, name, other_rewards)
        for name in ADVANTAGE_VARIANTS
        if name != "batch" or other_rewards
    }
    figure(
        groups.advantage_variants_figure(variants),
        "variants",
        "Advantages of the group above under each way to scale them.",
        pd.DataFrame(
            {"reward": rewards}
            | {groups.VARIANT_TITLES[name]: values for name, values in variants.items()}
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
        f"; the batch is this group and {len(source.other_rewards)} others of the same policy"
        if other_rewards
        else ""
    )
    st.caption(f"`lab.algorithms.advantages.group_advantages` on these rewards{batch}.")


@st.cache_data(show_spinner=False)
def dead_shares() -> tuple[dict[str, list[float]], dict[str, list[float]], dict[str, float]]:
    """By policy of the pool: the observed and the expected share of dead groups for every group
    size, and the mean pass rate.
    """
    from lab.analysis.group_statistics import dead_group_share, expected_dead_share

    observed, expected, rate = {}, {}, {}
    for row in completion_pool()["rows"]:
        rewards = [[c["reward"] for c in completions] for completions in row["completions"]]
        rates = [sum(of_prompt) / len(of_prompt) for of_prompt in rewards]
        observed[row["policy"]] = [dead_group_share(rewards, size) for size in SLIDER_GROUP_SIZES]
        expected[row["policy"]] = [expected_dead_share(rates, size) for size in SLIDER_GROUP_SIZES]
        rate[row["policy"]] = sum(rates) / len(rates)
    return observed, expected, rate


def dead_groups_section() -> None:
    """Show the share of groups that teach nothing: observed, and by the formula."""
    from lab.analysis.group_statistics import expected_dead_share

    observed, expected, rate = dead_shares()
    base = next(iter(observed))
    figure(
        group_size.dead_groups_figure(SLIDER_GROUP_SIZES, observed, expected),
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
                for i, size in enumerate(SLIDER_GROUP_SIZES)
            ]
        ),
    )
    st.markdown(
        "A group is dead when all its G answers are right, or none is: chance p^G + (1 − p)^G."
        " Points are the pool cut into groups, lines the formula with each prompt's own pass rate"
        f" p. Of the groups of 8 of {base} {observed[base][2]:.0%} are dead,"
        f" {expected[base][2]:.0%} by the formula. With one p for all prompts, their mean"
        f" {rate[base]:.2f}, it would say {expected_dead_share([rate[base]], 8):.0%}, too few:"
        " prompts differ, and the easy ones die.".replace("%", " %")
    )
    source_caption(
        completion_pool(), "12 prompts and, after training, 8 of them; 64 completions each."
    )
    table = load_result("groups")
    st.markdown(
        "In training, where the policy changes, from the first update to the last: "
        + ", ".join(
            f"with G = {row['group_size']} from {row['frac_reward_zero_std'][0]:.0%} to"
            f" {row['frac_reward_zero_std'][-1]:.0%}"
            for row in table["rows"]
            if row["budget"] == "rollouts"
        ).replace("%", " %")
        + "."
    )
    source_caption(table)
