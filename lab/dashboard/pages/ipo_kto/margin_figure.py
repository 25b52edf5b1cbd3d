"""Figure of page IPO and KTO: the losses of DPO and IPO, and the margin that each of them reaches."""

import numpy as np
import plotly.graph_objects as go
import streamlit as st

from lab.dashboard.components.slider_figure import Slider
from lab.figures.ipo import bounded_margin_figure

BETAS = (
    0.03,
    0.035,
    0.04,
    0.045,
    0.05,
    0.06,
    0.07,
    0.08,
    0.09,
    0.1,
    0.11,
    0.12,
    0.13,
    0.15,
    0.17,
    0.2,
    0.22,
    0.25,
    0.28,
    0.32,
    0.36,
    0.4,
    0.45,
    0.5,
    0.6,
    0.7,
    0.8,
    0.9,
    1.0,
)

BETA_SLIDER = Slider("beta", "β", BETAS, start=0.1, presets=(0.05, 0.1, 0.2, 0.5, 1.0))

MARGINS = tuple(h / 4 for h in range(-40, 121))  # nats

UPDATES, STEP_SIZE = tuple(range(0, 301, 4)), 0.2

ALT_TEXT = (
    "Left: the losses of DPO and IPO over the margin. The DPO loss always falls. The IPO loss is a"
    " parabola with its lowest point at 1/(2β). Right: the margin over updates with only two"
    " responses. The margin of DPO always rises; the margin of IPO stops at 1/(2β)."
)

FULL_WIDTH = {"domain": [0, 1]}

NARROW_LAYOUT = {
    "height": 720,
    "xaxis": FULL_WIDTH,
    "xaxis2": FULL_WIDTH,
    "yaxis": {"domain": [0.57, 1]},
    "yaxis2": {"domain": [0, 0.42]},
}


@st.cache_data
def loss_and_push(
    method: str, beta: float, margins: tuple[float, ...] = MARGINS
) -> tuple[np.ndarray, np.ndarray]:
    """Loss and push −dL/dh of a method along `margins`, each of shape (number of margins,)."""
    from lab.analysis.loss_curves import along_margin

    profile = along_margin(method, margins, beta=beta)
    return np.array(profile.loss), np.array(profile.push)


@st.cache_resource(show_spinner="Minimising both losses …")
def margin_paths() -> dict[str, dict[float, list[float]]]:
    """By method and β, the margin between two responses at each of `UPDATES` under gradient descent.
    Shared by all sessions; do not change it.
    """
    from lab.analysis.loss_curves import PAIRWISE_LOSSES, two_actions

    return {
        method: dict(zip(BETAS, two_actions(method, BETAS, UPDATES, rate=STEP_SIZE)))
        for method in PAIRWISE_LOSSES
    }


def draw_losses_and_paths(beta: float) -> go.Figure:
    """The figure of both losses and both paths of the margin at `beta`."""
    losses = {}
    for method in margin_paths():
        losses[method] = loss_and_push(method, beta)[0] / loss_and_push(method, beta, (0.0,))[0]
    return bounded_margin_figure(
        MARGINS,
        losses,
        UPDATES,
        {method: paths[beta] for method, paths in margin_paths().items()},
        1 / (2 * beta),
    )


def margin_sentence(beta: float) -> str:
    """The margins that DPO and IPO reach at `beta`, in numbers."""
    ends = {method: paths[beta][-1] for method, paths in margin_paths().items()}
    push = loss_and_push("dpo", beta, (1 / (2 * beta),))[1][0]
    return (
        f"At β = {beta:g} IPO's target is 1/(2β) = {1 / (2 * beta):.3g} nats. After {UPDATES[-1]}"
        f" updates, IPO has the margin {ends['ipo']:.2f} nats and writes y₁"
        f" {probability_text(ends['ipo'])} of the time. DPO has the margin {ends['dpo']:.1f} nats"
        f" and writes y₁ {probability_text(ends['dpo'])} of the time. At IPO's target the DPO loss"
        f" still pushes, with {push:.2g} per nat."
    )


def probability_text(log_odds: float) -> str:
    """A probability in percent, given its log-odds, with enough digits to tell it from 100 %."""
    rest = 100 / (1 + np.exp(log_odds))
    return (
        "more than 99.999 %"
        if rest < 1e-3
        else f"{100 - rest:.{max(0, int(np.ceil(-np.log10(rest))) + 1)}f} %"
    )
