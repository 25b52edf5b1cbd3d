"""Sections of page GRPO about the group: accuracy and cost of a larger group, other ways to scale
advantages, and dead groups.
"""

from typing import TYPE_CHECKING, Any

import streamlit as st

from lab.analysis.group_sizes import best_sizes_sentence
from lab.analysis.recorded_results import load_result
from lab.analysis.statistics import SHARE, Interval
from lab.dashboard.components.layout import figure, source_caption
from lab.dashboard.pages.grpo.group_source import SLIDER_GROUP_SIZES, GroupSource, completion_pool
from lab.figures import group_size, groups

if TYPE_CHECKING:
    import pandas as pd


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
    right = "Right." if guess == "to half" else "It falls to about half."
    return (
        f"{right} Measured on the recorded completions, the error is {error[4]:.2f} standard"
        f" deviations at G = 4 and {error[16]:.2f} at G = 16. It falls to"
        f" {error[16] / error[4]:.0%}, and the cost is four times as high. The error of a mean of G"
        " samples falls like 1/√G."
    ).replace("%", " %")


def error_and_cost_section() -> None:
    """Show the article's claim about larger groups beside the measured error and cost."""
    import pandas as pd

    (error, length, prompts), table = error_by_group_size(), load_result("groups")
    seconds = seconds_per_update(table)
    figure(
        group_size.error_and_cost_figure(SLIDER_GROUP_SIZES, error, length, seconds),
        "error",
        f"Error of the advantage over G, from {error[0]:.2f} to {error[-1]:.2f}, and cost over G.",
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
        "The article says: “Larger G → More accurate Advantage (lower variance) → But linear cost"
        f" increase”. Measured: from G = 2 to G = 32 the error falls from {error[0]:.2f} to"
        f" {error[-1]:.2f} standard deviations. The ratio is {error[-1] / error[0]:.2f}; 1/√G"
        f" predicts 0.25. A group costs {length[-1] / length[0]:.0f} times as many tokens, and an"
        f" update on 16 prompts takes {seconds[-1] / seconds[0]:.1f} times as long."
    )
    source_caption(
        completion_pool(),
        f"Error: for each of {prompts} prompts that the base model answers sometimes right and"
        " sometimes wrong, 2,000 groups were drawn from its 64 completions and compared with the"
        " mean and std of all 64. Seconds: from the runs of the next figure.",
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


def outcome_table(table: dict[str, Any]) -> "pd.DataFrame":
    """The final measures of the runs of every group size, as a table."""
    import pandas as pd

    return pd.DataFrame(
        [
            {
                "equal": group_size.BUDGET_TITLES[row["budget"]],
                "G": row["group_size"],
                "completions an update": row["batch_size"],
                "gold accuracy": Interval(**row["final"]["gold/accuracy"]).text(3, SHARE),
                "KL, nats": row["final"]["kl"]["mean"],
                "seconds": row["final"]["seconds"]["mean"],
                "tokens": row["final"]["tokens"]["mean"],
            }
            for row in table["rows"]
        ]
    )


def outcome_sentence(table: dict[str, Any]) -> str:
    """The best group size of each budget and its comparison with the others, in numbers."""
    return (
        "The figure shows gold accuracy (the share of right answers on held-out prompts) after"
        f" {table['rows'][0]['steps'][-1]} updates, over {table['seeds']} seeds."
        f" {best_sizes_sentence(table)} With equally many completions, a larger group measures each"
        " prompt better but sees fewer prompts. With equally many prompts, a larger group costs more."
    )


def scaling_section(source: GroupSource, size: int) -> None:
    """Show the advantages of the present group under every way to scale them. `size`: its number of
    completions.
    """
    import pandas as pd

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
        f"The figure shows the group above with G = {size}. The std can have n − 1 = G − 1 or n = G"
        " in its denominator. With n, every advantage is √(G/(G − 1)) ="
        f" {ratio:.3f} times as large: 1.414 times at G = 2, 1.016 times at G = 32. The division by"
        " the group's own std has an effect: a right answer counts more when it is the only one in"
        " its group than when half of the group is right. Dr. GRPO (arXiv 2503.20783) does not"
        " divide, for this reason. The std of the batch divides all groups by the same number."
    )
    batch = (
        f" The batch is this group and {len(source.other_rewards)} other groups of the same policy."
        if other_rewards
        else ""
    )
    st.caption(f"Computed by `lab.algorithms.advantages.group_advantages`.{batch}")


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
    import pandas as pd

    from lab.analysis.group_statistics import expected_dead_share

    observed, expected, rate = dead_shares()
    base = next(iter(observed))
    figure(
        group_size.dead_groups_figure(SLIDER_GROUP_SIZES, observed, expected),
        "dead",
        "Share of dead groups over G for three policies. Points are observed, lines are computed.",
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
        "A group is dead when all its G answers are right, or when none is right. For a prompt that"
        " is answered right with probability p, this happens with probability p^G + (1 − p)^G. The"
        " points are recorded completions, cut into groups. The lines are the formula with each"
        f" prompt's own p. Of the groups of 8 from {base}, {observed[base][2]:.0%} are dead; the"
        f" formula gives {expected[base][2]:.0%}. With the mean p = {rate[base]:.2f} for every"
        f" prompt the formula gives {expected_dead_share([rate[base]], 8):.0%}. This is too low,"
        " because prompts differ: easy and hard prompts give more dead groups.".replace("%", " %")
    )
    source_caption(
        completion_pool(), "12 prompts, of which 8 after training; 64 completions of each."
    )
    table = load_result("groups")
    st.markdown(
        "The policy changes during training. From the first to the last update, the share of dead"
        " groups goes "
        + ", ".join(
            f"from {row['frac_reward_zero_std'][0]:.0%} to {row['frac_reward_zero_std'][-1]:.0%}"
            f" with G = {row['group_size']}"
            for row in table["rows"]
            if row["budget"] == "rollouts"
        ).replace("%", " %")
        + "."
    )
    source_caption(table)
