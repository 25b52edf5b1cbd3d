"""Section of page GRPO: the tokens of one completion, and the credit that a token of each completion gets."""

import pandas as pd
import streamlit as st

from lab.config.methods import GRPOConfig
from lab.dashboard.components.layout import figure, source_caption
from lab.dashboard.pages.grpo.group_source import GroupSource, completion_pool
from lab.figures import token_credit as tokens

POLICY_CHOICES = ("after 40 updates", "that wrote it")

MAX_COMPLETION_TOKENS = GRPOConfig.max_completion_tokens

COLOUR_RANGE_NATS = 3.0  # where the colours of a token's log-ratio end


def token_section(drawn: GroupSource, size: int) -> None:
    """One completion token by token, and what a token of each completion gets."""
    if not drawn.tokens:
        st.markdown(
            "Log-probabilities of single tokens are recorded for the pool only. Pick one of its"
            " policies above."
        )
        return
    from lab.analysis.group_statistics import advantages, token_credit

    order = sorted(range(size), key=lambda i: -drawn.rewards[i])
    left, right = st.columns([3, 2], vertical_alignment="bottom")
    longest = max(range(size), key=lambda i: len(drawn.tokens[order[i]]["tokens"]))
    place = left.selectbox(
        "Completion",
        range(size),
        index=longest,
        format_func=lambda i: f"{i + 1}: {drawn.texts[order[i]]}",
        key="completion",
    )
    when = (
        right.segmented_control(
            "π is the policy",
            POLICY_CHOICES,
            default=POLICY_CHOICES[0],
            required=True,
            key="when",
            bind="query-params",
        )
        or POLICY_CHOICES[0]
    )
    row = drawn.tokens[order[place]]
    ratios = [
        a - b
        for a, b in zip(
            row["end_logps" if when == POLICY_CHOICES[0] else "old_logps"], row["reference_logps"]
        )
    ]
    figure(
        tokens.log_ratios(row["tokens"], ratios, COLOUR_RANGE_NATS),
        "log-ratios",
        "The tokens of one completion, coloured by their log-ratio.",
        pd.DataFrame({"token": row["tokens"], "log π − log π_ref, nats": ratios}),
    )
    most = max(range(len(ratios)), key=lambda i: abs(ratios[i]))
    st.text(
        f"Whole completion: {sum(ratios):+.2f} nats in {len(ratios)} tokens. Most changed: token"
        f" {most + 1}, “{row['tokens'][most]}”, {ratios[most]:+.2f} nats. ‹ opens a scratchpad, ›"
        " closes it, ¶ ends the completion."
    )
    lengths, own = (
        [len(drawn.tokens[i]["tokens"]) for i in order],
        advantages([drawn.rewards[i] for i in order], "group"),
    )
    found = {
        name: token_credit(own, lengths, name, MAX_COMPLETION_TOKENS) for name in tokens.REDUCTIONS
    }
    labels = [f"{i + 1}: {n}" for i, n in enumerate(lengths)]
    figure(
        tokens.credit(labels, found),
        "credit",
        "What one token of each completion gets under three reductions.",
        pd.DataFrame(
            {"completion": [drawn.texts[i] for i in order], "tokens": lengths, "A": own}
            | {tokens.REDUCTIONS[n]: v for n, v in found.items()}
        ),
    )
    st.markdown(
        "Every token of a completion gets the same credit, the step that went wrong as much as"
        " those that were right: GRPO does not know which token earned the reward. The reduction"
        " decides how much that is: `sequence_mean` divides by the completion's own length, so a"
        " token of a long wrong answer is pushed down less."
    )
    st.caption(
        "Minus the gradient of `lab.algorithms.losses.grpo`, reduced, for that token's"
        f" log-probability at ρ = 1; {MAX_COMPLETION_TOKENS} tokens are the longest allowed."
    )
    source_caption(completion_pool())
