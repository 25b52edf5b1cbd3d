"""Section of page GRPO: the clipped objective of one token."""

import plotly.graph_objects as go
import streamlit as st

from lab.dashboard.components.slider_figure import Slider, slider_figure
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
        f"A token of a better answer is pushed up until it is {1 + epsilon_high:.2f} times as"
        " likely as when it was sampled; one of a worse answer is pushed down until it is"
        f" {1 - epsilon:.2f} times as likely. A token of probability 0.01 can become"
        f" {(1 + epsilon_high) / 100:.4g} in one rollout."
    )


def clipping_section() -> None:
    """Show the clipped objective of one token, with sliders for both bounds."""
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
        alt="The clipped surrogate of one token over its probability ratio, for A = 1 and A = −1.",
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
        "With one update per rollout, the lab's default, ρ is 1 at every token: the open circle,"
        " where nothing is clipped. Clipping matters only when a rollout is used again"
        " (`updates_per_rollout`). The clip is one-sided: a good token that has become rarer, or a"
        " bad one that has become more likely, is always corrected. DAPO raises ε_high to 0.28"
        " (arXiv 2503.14476) so that rare tokens can grow faster."
    )
    st.caption("`lab.algorithms.losses.grpo`, the function that trains, on a grid of ρ with β = 0.")
