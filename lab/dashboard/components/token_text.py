"""A completion token by token, coloured by how much likelier the policy finds each token than the
reference does.
"""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st

from lab.dashboard.components.js_component import js_component

FULL_COLOUR_NATS = 4.0  # nats at which the colour is full

_element = js_component("token_text")


def log_ratios(side: Mapping[str, Any]) -> list[float]:
    """log π − log π_ref of every token, in nats."""
    return [ours - theirs for ours, theirs in zip(side["policy_logps"], side["reference_logps"])]


def format_nats(value: float, sign: str = "") -> str:
    """A number of nats with two digits and a true minus; what rounds to nothing has no sign."""
    return f"{round(value, 2) + 0.0:{sign}.2f}".replace("-", "−")


def token_view(side: Mapping[str, Any], *, key: str, label: str, parts: int) -> None:
    """The completion of `side` (as `lab.serving.side_by_side` gives it); `parts` is the first token
    that the other completion has not, `label` names it to those who do not see it. Arrow keys and
    the pointer pick a token, whose numbers stand below.
    """
    rows = zip(side["tokens"], side["policy_logps"], side["reference_logps"], log_ratios(side))
    tokens = [
        {
            "text": text,
            "ratio": ratio,
            "says": (
                f"Token {at} of {len(side['tokens'])}, “{text}”: log π {format_nats(ours)}, log π_ref"
                f" {format_nats(theirs)}, log-ratio {format_nats(ratio, '+')} nats"
            ),
        }
        for at, (text, ours, theirs, ratio) in enumerate(rows, 1)
    ]
    _element(
        key=key, data={"tokens": tokens, "limit": FULL_COLOUR_NATS, "parts": parts, "label": label}
    )


def token_table(side: Mapping[str, Any], *, key: str) -> None:
    """The numbers of every token, folded."""
    numbers = {
        "log π, nats": side["policy_logps"],
        "log π_ref, nats": side["reference_logps"],
        "log-ratio, nats": log_ratios(side),
    }
    with st.expander("As a table", key=f"{key}-fold"):
        st.dataframe(
            pd.DataFrame({"token": side["tokens"]} | numbers),
            hide_index=True,
            key=f"{key}-table",
            column_config={name: st.column_config.NumberColumn(format="%.2f") for name in numbers},
        )
