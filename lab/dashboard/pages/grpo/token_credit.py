"""Section of page GRPO: the tokens of one completion, and the credit of a token of each completion."""

from typing import Any

import streamlit as st

from lab.config.number_text import signed_number
from lab.dashboard.components.layout import figure, source_caption
from lab.dashboard.pages.grpo.answer_length import answer_length_part
from lab.dashboard.pages.grpo.group_source import GroupSource, completion_pool
from lab.figures import token_credit as tokens
from lab.training.methods.grpo import GRPOConfig

POLICY_CHOICES = ("after 40 updates", "that wrote it")

MAX_COMPLETION_TOKENS = GRPOConfig.max_completion_tokens

COLOUR_RANGE_NATS = 3.0  # log-ratio at which a token's colour is full


def token_section(source: GroupSource, size: int) -> None:
    """Show one completion of the group token by token, the credit that a token of each completion gets,
    and how long completions become. `size`: number of completions in the group.
    """
    if source.tokens:
        _completion_part(source, size)
    else:
        st.markdown(
            "This source has no log-probabilities of single tokens. Pick one of the recorded"
            " policies above (Completions written by)."
        )
    answer_length_part()


def _completion_part(source: GroupSource, size: int) -> None:
    order = sorted(range(size), key=lambda i: -source.rewards[i])
    left, right = st.columns([3, 2], vertical_alignment="bottom")
    longest = max(range(size), key=lambda i: len(source.tokens[order[i]]["tokens"]))
    rank = left.selectbox(
        "Completion",
        range(size),
        index=longest,
        format_func=lambda i: f"{i + 1}: {source.texts[order[i]]}",
        key="completion",
    )
    policy = right.segmented_control(
        "π is the policy …",
        POLICY_CHOICES,
        default=POLICY_CHOICES[0],
        required=True,
        key="when",
        bind="query-params",
    )
    is_end_policy = (policy or POLICY_CHOICES[0]) == POLICY_CHOICES[0]
    _log_ratio_figure(source.tokens[order[rank]], is_end_policy)
    _credit_figure(source, order)
    source_caption(completion_pool())


def _log_ratio_figure(row: dict[str, Any], is_end_policy: bool) -> None:
    """Show log π − log π_ref of every token of a completion; π is the policy at the end of training
    or the policy that wrote the completion.
    """
    import pandas as pd

    policy_logps = row["end_logps" if is_end_policy else "old_logps"]
    ratios = [policy - reference for policy, reference in zip(policy_logps, row["reference_logps"])]
    figure(
        tokens.log_ratios(row["tokens"], ratios, COLOUR_RANGE_NATS),
        "log-ratios",
        "The tokens of one completion. The colour of a token shows its log-ratio.",
        pd.DataFrame({"token": row["tokens"], "log π − log π_ref, nats": ratios}),
    )
    most = max(range(len(ratios)), key=lambda i: abs(ratios[i]))
    st.text(
        "The colour shows the log-ratio log π − log π_ref: how much more likely the policy makes a"
        f" token than the reference. The {len(ratios)} tokens together have"
        f" {signed_number(sum(ratios))} nats. The largest change is at token {most + 1},"
        f" “{row['tokens'][most]}”: {signed_number(ratios[most])} nats. ‹ opens a scratchpad, ›"
        " closes it, and ¶ ends the completion."
    )


def _credit_figure(source: GroupSource, order: list[int]) -> None:
    """Show the credit of one token of each completion under three reductions. `order`: the indices of
    the completions, best reward first.
    """
    import pandas as pd

    from lab.analysis.group_statistics import advantages_by_variant, token_credit

    lengths = [len(source.tokens[i]["tokens"]) for i in order]
    group_advantages = advantages_by_variant([source.rewards[i] for i in order], "group")
    credits = {
        reduction: token_credit(group_advantages, lengths, reduction, MAX_COMPLETION_TOKENS)
        for reduction in tokens.REDUCTION_TITLES
    }
    labels = [f"{i + 1}: {n}" for i, n in enumerate(lengths)]
    figure(
        tokens.reduction_credit_figure(labels, credits),
        "credit",
        "The push on one token of each completion under three reductions.",
        pd.DataFrame(
            {
                "completion": [source.texts[i] for i in order],
                "tokens": lengths,
                "A": group_advantages,
            }
            | {tokens.REDUCTION_TITLES[reduction]: values for reduction, values in credits.items()}
        ),
    )
    st.markdown(
        "GRPO pushes every token of a completion equally, a wrong step as much as a right one. It"
        " does not know which token earned the reward. The reduction makes one loss from the losses"
        " of all tokens, and so decides how strong the push on a token is. `sequence_mean` divides"
        " by the length of the completion, so it pushes a token of a long wrong answer down less."
    )
    st.caption(
        "The push is minus the gradient of the loss with respect to the log-probability of one"
        f" token, at ρ = 1. A completion may have at most {MAX_COMPLETION_TOKENS} tokens."
    )
