"""What the cards of a visitor's group say in sentences."""

from collections.abc import Mapping, Sequence
from typing import Any

from lab.config.number_text import signed_number


def group_sentences(answer: Mapping[str, Any]) -> list[str]:
    """A sentence for each group of an answer: the group before the first update, and after each."""
    groups = answer["groups"]
    sentences = []
    for at, group in enumerate(groups):
        when = f"After {counted(at, 'update')}" if at else "Before any update"
        moved = f" {_moved_sentence(groups[at - 1])}" if at else ""
        sentences.append(f"{when}: {_rewards_clause(group)}{moved}")
    return sentences


def counted(count: int, noun: str) -> str:
    """The number with the noun in the singular or the plural."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _rewards_clause(group: Mapping[str, Any]) -> str:
    rows = group["completions"]
    right = sum(row["right"] for row in rows)
    text = f"{right} of {len(rows)} completions are right, the mean reward is {group['mean']:.4g}."
    if not any(row["advantage"] for row in rows):
        return (
            f"{text} All rewards are equal, so every advantage is 0: the group is dead and an update"
            " has no gradient."
        )
    above = sum(row["advantage"] > 0 for row in rows)
    return (
        f"{text} An update makes the {above} above the mean more likely (A up to"
        f" {signed_number(max(row['advantage'] for row in rows))}) and the {_below(rows)} below it less likely."
    )


def _below(rows: Sequence[Mapping[str, Any]]) -> int:
    return sum(row["advantage"] < 0 for row in rows)


def _moved_sentence(group: Mapping[str, Any]) -> str:
    """What the update on `group` did to the probabilities of its completions."""
    rows = group["completions"]
    above = [row for row in rows if row["advantage"] > 0]
    below = [row for row in rows if row["advantage"] < 0]
    if not above:
        return (
            "The group before it was dead too, so this update had no gradient: if anything changed, the"
            " momentum of the optimizer did it."
        )
    more = sum(row["logp_after"] > row["logp"] for row in above)
    less = sum(row["logp_after"] < row["logp"] for row in below)
    return (
        f"The last update made {more} of the {len(above)} above the mean more likely and {less} of"
        f" the {len(below)} below it less likely. The prompt was then sampled with the same noise."
    )


def measured_sentence(answer: Mapping[str, Any], updates: int) -> str:
    """Right completions of the prompt and of held-out prompts, before the updates and after them."""
    measured, of = answer["measured"], answer["of"]
    before, now = measured["0"], measured[str(updates)]
    if not updates:
        return (
            f"Untouched policy: {before['fresh']} of {of['fresh']} further samples of this prompt are"
            f" right, and {before['held_out']} of {of['held_out']} held-out prompts."
        )
    return (
        f"From 0 to {counted(updates, 'update')}: of {of['fresh']} further samples of this prompt"
        f" {before['fresh']} → {now['fresh']} are right, of {of['held_out']} held-out prompts"
        f" {before['held_out']} → {now['held_out']}."
    )
