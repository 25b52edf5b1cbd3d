"""Two answers to one prompt, side by side and token by token."""

from collections.abc import Mapping
from typing import Any

import streamlit as st

from lab.dashboard.components.layout import escape_markdown
from lab.dashboard.components.token_text import (
    format_nats,
    token_log_ratios,
    token_table,
    token_view,
)
from lab.dashboard.state.run_selection import display_name


def common_prefix_length(answers: Mapping[str, Any]) -> int:
    """The number of tokens that both answers share at their beginning."""
    first, second = answers["reference"]["tokens"], answers["policy"]["tokens"]
    return next(
        (i for i, (a, b) in enumerate(zip(first, second)) if a != b), min(len(first), len(second))
    )


def show_answers(answers: Mapping[str, Any], name: str) -> None:
    """Show both answers side by side, token by token, and a sentence about where they part. `name` is the
    run of the policy.
    """
    at = common_prefix_length(answers)
    for column, who, title in zip(
        st.columns(2, gap="large"), ("reference", "policy"), ("Reference", display_name(name))
    ):
        answer = answers[who]
        with column:
            verdict = {True: "is right", False: "is wrong", None: "says"}[answer["right"]]
            st.markdown(
                f"**{escape_markdown(title)}**"
                f" {verdict}{', cut off at the limit' if answer['truncated'] else ''}"
            )
            token_view(
                answer, key=f"tokens-{who}", label=f"{title} says {answer['text']}", parts=at
            )
            st.markdown(" ".join(answer_facts(answer)))
            token_table(answer, key=f"tokens-{who}")
    whole = sum(token_log_ratios(answers["policy"]))
    same = answers["reference"]["tokens"] == answers["policy"]["tokens"]
    where = (
        f"Both say the same to `{answers['prompt']}`."
        if same
        else f"The two part at token {at + 1}."
    )
    gold = f" The gold answer is {escape_markdown(answers['answer'])}." if answers["answer"] else ""
    st.markdown(
        f"{where}{gold} The adapter makes its own answer {abs(whole):.1f} nats "
        f"{'likelier' if whole >= 0 else 'less likely'} than the reference does."
    )
    st.caption(
        "Blue over a solid line: likelier with the adapter. Orange over a dashed line: less likely."
        " Colour is full at 4 nats; a bar marks where the two part."
    )


def answer_facts(answer: Mapping[str, Any]) -> list[str]:
    """Sentences about one answer: its log-probability under policy and reference, and how many of more
    draws at the same temperature are right.
    """
    sentences = [
        f"{len(answer['tokens'])} tokens, log π {format_nats(sum(answer['policy_logps']))}, log π_ref"
        f" {format_nats(sum(answer['reference_logps']))} nats."
    ]
    if draws := answer.get("draws"):
        counts = [
            f"{draws[name]} {predicate}"
            for name, predicate in (("right", "are right"), ("scratchpads", "think first"))
            if name in draws
        ]
        sentences += [f"Of {draws['n']} draws {' and '.join(counts)}."] if counts else []
    return sentences
