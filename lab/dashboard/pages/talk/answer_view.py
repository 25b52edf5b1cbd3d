"""Two answers to one prompt, side by side and token by token."""

from collections.abc import Mapping
from typing import Any

import streamlit as st

from lab.dashboard.components.layout import escape_markdown
from lab.dashboard.components.token_text import format_nats, log_ratios, token_table, token_view
from lab.dashboard.state.run_selection import display_name


def common_prefix_length(said: Mapping[str, Any]) -> int:
    """How many tokens both answers begin with in common."""
    first, second = said["reference"]["tokens"], said["policy"]["tokens"]
    return next(
        (i for i, (a, b) in enumerate(zip(first, second)) if a != b), min(len(first), len(second))
    )


def show_answers(said: Mapping[str, Any], name: str) -> None:
    """Both answers side by side, token by token, and in a sentence where they part."""
    at = common_prefix_length(said)
    for place, who, title in zip(
        st.columns(2, gap="large"), ("reference", "policy"), ("Reference", display_name(name))
    ):
        side = said[who]
        with place:
            verdict = {True: "is right", False: "is wrong", None: "says"}[side["right"]]
            st.markdown(
                f"**{escape_markdown(title)}**"
                f" {verdict}{', cut off at the limit' if side['truncated'] else ''}"
            )
            token_view(side, key=f"tokens-{who}", label=f"{title} says {side['text']}", parts=at)
            st.markdown(" ".join(answer_facts(side)))
            token_table(side, key=f"tokens-{who}")
    whole = sum(log_ratios(said["policy"]))
    same = said["reference"]["tokens"] == said["policy"]["tokens"]
    where = (
        f"Both say the same to `{said['prompt']}`." if same else f"The two part at token {at + 1}."
    )
    gold = f" The gold answer is {escape_markdown(said['answer'])}." if said["answer"] else ""
    st.markdown(
        f"{where}{gold} The adapter makes its own answer {abs(whole):.1f} nats "
        f"{'likelier' if whole >= 0 else 'less likely'} than the reference does."
    )
    st.caption(
        "Blue over a solid line: likelier with the adapter. Orange over a dashed line: less likely."
        " Colour is full at 4 nats; a bar marks where the two part."
    )


def answer_facts(side: Mapping[str, Any]) -> list[str]:
    """Of one answer its log-probability under both, and what more draws at the same temperature
    gave.
    """
    found = [
        f"{len(side['tokens'])} tokens, log π {format_nats(sum(side['policy_logps']))}, log π_ref"
        f" {format_nats(sum(side['reference_logps']))} nats."
    ]
    if counted := side.get("draws"):
        said = [
            f"{counted[name]} {words}"
            for name, words in (("right", "are right"), ("scratchpads", "think first"))
            if name in counted
        ]
        found += [f"Of {counted['n']} draws {' and '.join(said)}."] if said else []
    return found
