"""Two answers to one prompt, side by side and token by token."""

from collections.abc import Mapping
from typing import Any

import streamlit as st

from lab.dashboard.components.layout import escape_markdown
from lab.dashboard.components.token_text import (
    FULL_COLOUR_NATS,
    format_nats,
    token_log_ratios,
    token_table,
    token_view,
)


def common_prefix_length(answers: Mapping[str, Any]) -> int:
    """The number of tokens that both answers share at their beginning."""
    first, second = answers["reference"]["tokens"], answers["policy"]["tokens"]
    return next(
        (i for i, (a, b) in enumerate(zip(first, second)) if a != b), min(len(first), len(second))
    )


def show_answers(answers: Mapping[str, Any], name: str) -> None:
    """Show both answers side by side, token by token, and a sentence about where they part. `name` is what
    the page calls the policy.
    """
    at = common_prefix_length(answers)
    for column, who, title in zip(
        st.columns(2, gap="large"), ("reference", "policy"), ("Reference", name)
    ):
        answer = answers[who]
        with column:
            verdict = {True: ": right", False: ": wrong", None: ""}[answer["right"]]
            st.markdown(
                f"**{escape_markdown(title)}**"
                f"{verdict}{', cut at the token limit' if answer['truncated'] else ''}"
            )
            token_view(
                answer, key=f"tokens-{who}", label=f"{title} writes {answer['text']}", parts=at
            )
            st.markdown(" ".join(answer_facts(answer)))
            token_table(answer, key=f"tokens-{who}")
    whole = sum(token_log_ratios(answers["policy"]))
    same = answers["reference"]["tokens"] == answers["policy"]["tokens"]
    where = (
        f"Both models give the same answer to `{answers['prompt']}`."
        if same
        else f"The two answers differ from token {at + 1} on."
    )
    gold = (
        f" The right answer is {escape_markdown(answers['answer'])}." if answers["answer"] else ""
    )
    st.markdown(
        f"{where}{gold} The answer of the trained policy is {abs(whole):.1f} nats"
        f" {'more' if whole >= 0 else 'less'} likely under the policy than under the reference."
    )
    st.caption(
        "Blue with a solid line: training made the token more likely. Orange with a dashed line:"
        f" less likely. The colour is full at {FULL_COLOUR_NATS:g} nats. A bar marks the first token"
        " that differs."
    )


def answer_facts(answer: Mapping[str, Any]) -> list[str]:
    """Sentences about one answer: its log-probability under policy and reference, and how many of more
    draws at the same temperature are right.
    """
    sentences = [
        f"{len(answer['tokens'])} tokens; log π = {format_nats(sum(answer['policy_logps']))} nats,"
        f" log π_ref = {format_nats(sum(answer['reference_logps']))} nats."
    ]
    if draws := answer.get("draws"):
        counts = [
            f"{draws[name]} {predicate}"
            for name, predicate in (("right", "are right"), ("scratchpads", "have a scratchpad"))
            if name in draws
        ]
        sentences += (
            [f"Of {draws['n']} samples of this model, {' and '.join(counts)}."] if counts else []
        )
    return sentences
