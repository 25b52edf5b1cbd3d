"""Section of page GRPO: the clipped objective of one token, and the clip under random rewards."""

import plotly.graph_objects as go
import streamlit as st

from lab.dashboard.components.slider_figure import Slider, slider_figure
from lab.dashboard.pages.grpo.random_rewards import random_rewards_part
from lab.figures import token_credit as tokens

PROBABILITY_RATIOS = tuple(i / 50 for i in range(1, 101))

EPSILONS = tuple(i / 50 for i in range(26))


def draw_clipped_loss(epsilon: float, epsilon_high: float) -> go.Figure:
    """The figure of the clipped objective at `epsilon` and `epsilon_high`."""
    from lab.analysis.group_statistics import clip_curves

    return tokens.clipped_surrogate_figure(
        PROBABILITY_RATIOS,
        clip_curves(epsilon, epsilon_high, PROBABILITY_RATIOS),
        epsilon,
        epsilon_high,
    )


def clipping_sentence(epsilon: float, epsilon_high: float) -> str:
    """Where the clipped objective is flat, in numbers."""
    return (
        "A token of a completion with a positive advantage is pushed up until it is"
        f" {1 + epsilon_high:.2f} times as likely as when it was sampled. A token of a completion"
        f" with a negative advantage is pushed down until it is {1 - epsilon:.2f} times as likely."
        f" For example, the push up stops when a token of probability 0.01 has reached"
        f" {(1 + epsilon_high) / 100:.4g}."
    )


def clipping_section() -> None:
    """Show the clipped objective of one token, with sliders for both bounds, and random rewards with and
    without the clip.
    """
    sliders = (
        Slider("eps", "ε, below 1", EPSILONS, 0.2, presets=(0.2,)),
        Slider("eps_high", "ε_high, above 1", EPSILONS, 0.2, presets=(0.2, 0.28)),
    )
    values = slider_figure(
        draw_clipped_loss,
        sentence=clipping_sentence,
        key="clip",
        sliders=sliders,
        narrow=tokens.CLIPPED_SURROGATE_NARROW_LAYOUT,
        alt="The clipped objective of one token over its probability ratio, for A = 1 and A = −1.",
    )
    symbols = {"eps": r"\varepsilon", "eps_high": r"\varepsilon_{\mathrm{high}}"}
    low, high = (
        rf"\underbrace{{{values[name]:g}}}_{{{symbol}}}" for name, symbol in symbols.items()
    )
    with st.container(
        key="formula-new",
        horizontal=True,
        horizontal_alignment="center",
        vertical_alignment="center",
        gap="medium",
    ):
        st.latex(
            r"-\mathcal{L}_t=\min\big(\rho_t"
            rf" A_i,\,\mathrm{{clip}}(\rho_t,1-{low},1+{high})A_i\big)",
            width="content",
        )
        st.latex(r"\rho_t=\pi_\theta/\pi_{\mathrm{old}}", width="content")
    st.markdown(
        "ρ is the probability of a token now, divided by its probability when it was sampled. By"
        " default the lab makes one update on each rollout. Then ρ is 1 at every token (the open"
        " circle), and nothing is clipped. Clipping only matters when a rollout is used for several"
        " updates (setting `updates_per_rollout`). The clip works on one side. It never stops the"
        " correction of a good token that has become less likely, or of a bad token that has become"
        " more likely. DAPO raises ε_high to 0.28 (arXiv 2503.14476), so that rare tokens can"
        " become more likely faster.\n\nWith β > 0 the loss also gets β times an estimate of the KL to"
        " the reference at every token. The lab's default is the paper's estimate k3 = π_ref/π − log"
        " (π_ref/π) − 1. As a term of the loss its mean gradient is that of KL(π_ref‖π). TRL's default is"
        " now the corrected estimate ρ·k3, whose gradient is that of KL(π‖π_ref) (setting"
        " `kl_estimator`, value `k3_corrected`)."
    )
    st.caption(
        "The curves are `lab.algorithms.losses.grpo`, the function that trains, for many values of"
        " ρ with β = 0."
    )
    random_rewards_part()
