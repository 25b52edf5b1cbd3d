"""A completion token by token. The colour of a token is its log-ratio, log π − log π_ref."""

from collections.abc import Mapping
from typing import Any

import streamlit as st

from lab.dashboard.components.js_component import js_component
from lab.dashboard.components.layout import folded_table

FULL_COLOUR_NATS = 4.0  # log-ratio at which the colour is full

_element = js_component("token_text")


def token_log_ratios(answer: Mapping[str, Any]) -> list[float]:
    """log π − log π_ref of every token, in nats."""
    return [
        policy - reference
        for policy, reference in zip(answer["policy_logps"], answer["reference_logps"])
    ]


def format_nats(value: float, sign: str = "") -> str:
    """A number of nats with two decimals and a typographic minus; zero has no minus. `sign` is the sign
    option of a format, such as "+".
    """
    return f"{round(value, 2) + 0.0:{sign}.2f}".replace("-", "−")


def token_view(answer: Mapping[str, Any], *, key: str, label: str, parts: int) -> None:
    """Show the completion of `answer`, a dict of `lab.serving.side_by_side`. Arrow keys and the
    pointer pick a token; its numbers stand below.

    `parts`: the first token that differs from the other completion. `label` names the element for
    screen readers.
    """
    rows = zip(
        answer["tokens"],
        answer["policy_logps"],
        answer["reference_logps"],
        token_log_ratios(answer),
    )
    tokens = [
        {
            "text": text,
            "ratio": ratio,
            "says": (
                f"Token {at} of {len(answer['tokens'])}, “{text}”: log π {format_nats(policy)}, log π_ref"
                f" {format_nats(reference)}, log-ratio {format_nats(ratio, '+')} nats"
            ),
        }
        for at, (text, policy, reference, ratio) in enumerate(rows, 1)
    ]
    _element(
        key=key, data={"tokens": tokens, "limit": FULL_COLOUR_NATS, "parts": parts, "label": label}
    )


def token_table(answer: Mapping[str, Any], *, key: str) -> None:
    """Show the numbers of every token, folded."""
    numbers = {
        "log π, nats": answer["policy_logps"],
        "log π_ref, nats": answer["reference_logps"],
        "log-ratio, nats": token_log_ratios(answer),
    }
    folded_table(
        lambda: {"token": answer["tokens"]} | numbers,
        f"{key}-table",
        column_config={name: st.column_config.NumberColumn(format="%.2f") for name in numbers},
    )
