"""Section of page IPO and KTO: KTO's values, its reference point and the balance of its two classes."""

from collections.abc import Sequence
from typing import cast

import numpy as np
import plotly.graph_objects as go
import streamlit as st

from lab.dashboard.components.slider_figure import Slider, slider_figure
from lab.dashboard.pages.ipo_kto.margin_figure import NARROW_LAYOUT as MARGIN_LAYOUT
from lab.figures.kto import BALANCE_RULE, kto_value_figure

LOG_RATIOS = tuple(r / 4 for r in range(-120, 201))

CLASS_WEIGHTS = (
    0.1,
    0.2,
    0.3,
    0.5,
    0.7,
    1.0,
    1.2,
    1.33,
    1.5,
    2.0,
    3.0,
    4.0,
    5.0,
    7.0,
    9.0,
    10.0,
    12.0,
)

REFERENCE_POINT_SLIDER = Slider(
    "z", "z, the reference point, nats", tuple(range(21)), start=0, presets=(0, 5, 10, 20)
)

DESIRABLE_WEIGHT_SLIDER = Slider(
    "up", "λ_D, weight of a thumb up", CLASS_WEIGHTS, start=1.0, presets=(0.1, 1.0, 10.0)
)

UNDESIRABLE_WEIGHT_SLIDER = Slider(
    "down", "λ_U, weight of a thumb down", CLASS_WEIGHTS, start=1.0, presets=(0.1, 1.0, 10.0)
)

DESIRABLE_SHARE_SLIDER = Slider(
    "share",
    "share of thumbs up in the data, %",
    (1, 2, *range(5, 100, 5), 98, 99),
    start=50,
    presets=(10, 50, 90),
)

ALT_TEXT = (
    "Left: KTO's value over the log-ratio r. The value of a desirable completion rises with r, the"
    " value of an undesirable one falls. Both are steepest at z. Right: the balance of the two"
    " kinds on a logarithmic scale, with the recommended range from 1 to 4/3."
)

NARROW_LAYOUT = MARGIN_LAYOUT | {"yaxis": {"domain": [0.4, 1]}, "yaxis2": {"domain": [0, 0.22]}}


@st.cache_data
def kto_value(desirable: bool, beta: float, z: float, weight: float) -> np.ndarray:
    """KTO's value λ − loss at each of `LOG_RATIOS`, where λ is `weight`."""
    from lab.analysis.loss_curves import along_ratio

    return weight - np.array(
        along_ratio(desirable, LOG_RATIOS, beta=beta, z=float(z), weight=weight).loss
    )


def class_balance(up: float, down: float, percent: float) -> float:
    """The balance λ_D·n_D / (λ_U·n_U) of desirable and undesirable completions; `percent` of the
    completions are desirable.
    """
    return up * percent / (down * (100 - percent))


def draw_kto(z: float, up: float, down: float, percent: float, beta: float) -> go.Figure:
    """The figure of KTO's two values and the balance of its classes."""
    return kto_value_figure(
        LOG_RATIOS,
        cast(Sequence[float], kto_value(True, beta, z, up)),  # an array, which plotly accepts
        cast(Sequence[float], kto_value(False, beta, z, down)),
        z,
        class_balance(up, down, percent),
    )


def kto_sentence(z: float, up: float, down: float, percent: float, beta: float) -> str:
    """Whether the weights follow the rule 1 to 4/3, and which λ_D would, in numbers."""
    balance, (low, high) = class_balance(up, down, percent), BALANCE_RULE
    rule_weights = [end * down * (100 - percent) / percent for end in BALANCE_RULE]
    position = "inside" if low <= balance <= high + 0.005 else "outside"
    return (
        f"With {percent:g} % thumbs up the balance λ_D·n_D / (λ_U·n_U) is {balance:.3g}, {position} the"
        f" recommended range from 1 to 4/3. With λ_U = {down:g} that range needs a λ_D from"
        f" {rule_weights[0]:.3g} to {rule_weights[1]:.3g}. At r = z = {z:g} both kinds have half of"
        f" their highest value, λ_D/2 = {up / 2:g} and λ_U/2 = {down / 2:g}. The push is largest"
        f" there: {beta * up / 4:.3g} per nat up and {beta * down / 4:.3g} per nat down at β ="
        f" {beta:g}. Far from z the push goes to 0."
    )


def kto_section(beta: float) -> None:
    """Show KTO's values, with sliders for the reference point, the weights and the balance."""
    st.subheader("KTO: every completion on its own", anchor=False)
    st.markdown(
        "KTO gives every completion a value. The value depends on the log-ratio r = log π − log"
        " π_ref of the completion, and on the reference point z. A desirable completion (thumb up)"
        " should lie above z, an undesirable one (thumb down) below z. n_D and n_U are the numbers"
        " of both kinds in the data; λ_D and λ_U are their weights."
    )
    slider_figure(
        draw_kto,
        key="kto",
        alt=ALT_TEXT,
        sliders=[
            REFERENCE_POINT_SLIDER,
            DESIRABLE_WEIGHT_SLIDER,
            UNDESIRABLE_WEIGHT_SLIDER,
            DESIRABLE_SHARE_SLIDER,
        ],
        sentence=kto_sentence,
        arguments=(beta,),
        narrow=NARROW_LAYOUT,
    )
    st.caption(
        "The curves are `lab.algorithms.losses.kto_loss` (arXiv 2402.01306, Eq. 7 and 8) with the β"
        " of the first figure. Training estimates z in every batch: it puts each completion of the"
        " batch behind the prompt of another row, takes the mean log-ratio, and uses 0 if the mean"
        " is negative."
    )
