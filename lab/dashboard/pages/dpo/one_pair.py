"""Section of page DPO: one pair on the loss curve, with its tokens at every recorded update."""

from collections.abc import Mapping
from typing import Any

import streamlit as st

from lab.analysis.recorded_results import load_result
from lab.config.number_text import number_text
from lab.dashboard.components.layout import source_caption
from lab.dashboard.components.pair_tokens import pair_tokens
from lab.dashboard.pages.dpo.loss_figure import BETA_PRESETS, loss_curve

KEY = "one-pair"
FULL_COLOUR_NATS = 3.0  # log-ratio at which a token's colour is full
MARGINS = tuple(h / 2 for h in range(-10, 61))  # nats
ALT_TEXT = (
    "The DPO loss over the margin h falls from left to right. Small circles show where this pair was"
    " at the recorded updates; the large circle can be dragged to each of them."
)


@st.cache_resource(show_spinner=False)
def recorded_pairs() -> dict[str, Any]:
    """The recorded run: β, steps, and the tokens of its pairs with their log-ratios at every step.
    Shared by all sessions; do not change it.
    """
    return load_result("pair_tokens")["rows"][0]


def margins_of(pair: Mapping[str, Any]) -> tuple[float, ...]:
    """The margin h of a pair at every recorded step, in nats: the sum of the log-ratios of the chosen
    tokens minus that of the rejected ones.
    """
    sides = zip(pair["chosen"]["ratios"], pair["rejected"]["ratios"])
    return tuple(sum(chosen) - sum(rejected) for chosen, rejected in sides)


@st.cache_resource(show_spinner=False)
def drawing() -> dict[str, Any]:
    """By β, the curve, and for each pair and step margin, loss and push."""
    pairs = recorded_pairs()["pairs"]
    curves, places = {}, {}
    for beta in BETA_PRESETS:
        margins, losses, _ = loss_curve(beta, MARGINS)
        curves[number_text(beta)] = {"margins": margins.tolist(), "losses": losses.tolist()}
        places[number_text(beta)] = [
            [
                [round(float(value), 6) for value in place]
                for place in zip(*loss_curve(beta, margins_of(pair)))
            ]
            for pair in pairs
        ]
    return {"curves": curves, "places": places}


def place_in_url() -> dict[str, Any]:
    """Pair, update and β that the URL names; what it names wrongly or not at all has its default."""
    run, query = recorded_pairs(), st.query_params
    pairs = {str(number): number for number in range(1, len(run["pairs"]) + 1)}
    steps = {str(step): step for step in run["steps"]}
    betas = {number_text(beta): beta for beta in BETA_PRESETS}
    return {
        "pair": pairs.get(query.get("pair", ""), 1),
        "update": steps.get(query.get("update", ""), run["steps"][len(run["steps"]) // 2]),
        "beta": betas.get(query.get("beta", ""), run["beta"]),
    }


@st.fragment
def pair_section() -> None:
    """Show the pair with its curve and its tokens."""
    place = place_in_url()
    pair_tokens(
        key=KEY,
        data={
            "place": place,
            "alt": ALT_TEXT,
            "limit": FULL_COLOUR_NATS,
            "steps": recorded_pairs()["steps"],
            "pairs": recorded_pairs()["pairs"],
            **drawing(),
        },
        on_place_change=_keep_place,
    )
    source_caption(
        load_result("pair_tokens"),
        "Drag the large point: it stops only at updates that were recorded."
        " The run trained with"
        f" β = {recorded_pairs()['beta']:g}. Blue with a solid line: the token is more likely than under"
        f" the reference. Orange with a dashed line: less. The colour is full at {FULL_COLOUR_NATS:g}"
        " nats.",
    )


def _keep_place() -> None:
    """Callback: keep in the URL where the browser has put the pair."""
    state = st.session_state.get(KEY)
    place = state.get("place") if isinstance(state, Mapping) else None
    if not isinstance(place, Mapping):
        return
    for name in ("pair", "update", "beta"):
        value = place.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            st.query_params[name] = number_text(value)
