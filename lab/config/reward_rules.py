"""The rules that score completions: one, or several between commas, each with a weight."""

import math
import re
from typing import Any

from lab.errors import LabError

CODE = r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*"
"""How a function of the user's own is written: module:function."""
RULE = r"[a-z_]\w*"
"""How a rule of a task is written."""
SEVERAL = rf"({CODE}|{RULE})(\s*,\s*({CODE}|{RULE}))+"
"""How several rules are written."""
TAKEN_LABELS = ("chosen", "rejected", "margins", "accuracies")
"""Names that stand behind rewards/ in the record of a method that compares pairs."""


def reward_rules(reward: str) -> list[str]:
    """Return the rules that the setting `reward` names, in its order."""
    return [rule.strip() for rule in reward.split(",")]


def rule_label(rule: str) -> str:
    """Return the name of a rule behind rewards/ in the record: that of the function, or of the rule."""
    return rule.rpartition(":")[2]


def code_rules(reward: str) -> list[str]:
    """Return those of the rules that are functions of the user's own."""
    return [rule for rule in reward_rules(reward) if re.fullmatch(CODE, rule)]


def is_combined(reward: str, weights: str) -> bool:
    """Return whether the reward is a weighted sum, whose terms are logged each."""
    return bool(weights.strip()) or len(reward_rules(reward)) > 1


def reward_weights(reward: str, weights: str) -> list[float]:
    """Return the weight of each rule of `reward`; 1 for all where `weights` is empty.

    Raises `LabError` for a weight that is no finite number, for another number of weights than of
    rules, and for rules that would be logged under one name.
    """
    rules = reward_rules(reward)
    labels = [rule_label(rule) for rule in rules]
    for label in labels if is_combined(reward, weights) else ():
        if labels.count(label) > 1 or label in TAKEN_LABELS:
            raise LabError(
                f"reward is '{reward}', and each rule is logged as rewards/NAME, but rewards/{label}"
                " would have two meanings. Give the function another name."
            )
    if not weights.strip():
        return [1.0] * len(rules)
    try:
        numbers = [float(word) for word in weights.split(",")]
    except ValueError:
        numbers = [math.nan]
    if not all(map(math.isfinite, numbers)):
        raise LabError(
            f"reward_weights is '{weights}', but takes numbers between commas, such as 1,0.2."
        )
    if len(numbers) != len(rules):
        raise LabError(
            f"reward_weights has {len(numbers)} weights ({weights}), but reward has"
            f" {len(rules)} rules ({reward}). Give one weight for each rule."
        )
    return numbers


def logged_terms(config: Any) -> list[str]:
    """Return the names under which a run's weighted sum of rewards logs its terms; none without a
    sum.
    """
    reward = getattr(config, "reward", "")
    if not is_combined(reward, getattr(config, "reward_weights", "")):
        return []
    return [f"rewards/{rule_label(rule)}" for rule in reward_rules(reward)]
