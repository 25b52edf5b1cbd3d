"""The record of random rewards in words."""

from collections.abc import Mapping
from typing import Any

from lab.analysis.comparison_words import recorded_text
from lab.analysis.statistics import SHARE, Interval

BASE = "base"
REWARDS = {"random": "random reward", "answer": "true reward"}
VARIANT_TITLES = {
    "once": "1 update on a rollout",
    "clip": "4 updates, clip 0.2",
    "free": "4 updates, no clip",
}
"""The ways to update, each with its title."""


def arm_title(arm: str) -> str:
    """Return the title of an arm."""
    if arm == BASE:
        return "before training"
    reward, variant = arm.split(".")
    return f"{REWARDS[reward]}, {VARIANT_TITLES[variant]}"


def task_text(table: Mapping[str, Any]) -> str:
    """Return the task of a record in words."""
    return "sums with SmolLM2-135M" if table["plan"]["settings"] else "chains"


def comparison(table: Mapping[str, Any], first: str, second: str) -> Mapping[str, Any]:
    """Return the recorded comparison of two arms."""
    return next(
        one for one in table["comparisons"] if (one["first"], one["second"]) == (first, second)
    )


def arm_row(table: Mapping[str, Any], arm: str) -> Mapping[str, Any]:
    """Return the row of an arm."""
    return next(row for row in table["rows"] if row["arm"] == arm)


def accuracy_text(table: Mapping[str, Any], arm: str) -> str:
    """Return the gold accuracy of an arm as text."""
    return Interval(**arm_row(table, arm)["gold/accuracy"]).text(2, SHARE)


def reward_sentence(table: Mapping[str, Any], reward: str) -> str:
    """Return what training with a reward changes in gold accuracy, and what the clip does to it."""
    clip, free = f"{reward}.clip", f"{reward}.free"
    clipped = 100 * arm_row(table, clip)["clipped_later"]["mean"]
    return (
        f"{REWARDS[reward].capitalize()} on {task_text(table)}, 4 updates on a rollout with the clip: gold"
        f" accuracy goes from {accuracy_text(table, BASE)} to {accuracy_text(table, clip)}"
        f" ({recorded_text(comparison(table, clip, BASE))}). With the clip minus without it:"
        f" {recorded_text(comparison(table, clip, free))}. The clip acts on {clipped:.2g} % of the tokens in"
        " updates 2 to 4 of a rollout."
    )
