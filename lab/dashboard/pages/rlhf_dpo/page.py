"""Page RLHF and DPO: one update of both architectures, then the derivation with every step checked
in numbers.
"""

from typing import TYPE_CHECKING

import plotly.graph_objects as go
import streamlit as st

from lab.config.latex import PAIR_MARGIN
from lab.dashboard.components.layout import (
    ask_prediction,
    cannot_show,
    page_heading,
    what_to_look_at,
)
from lab.dashboard.components.slider_figure import Slider, slider_figure
from lab.dashboard.pages.rlhf_dpo.architectures import architectures_section
from lab.figures.derivation import policies

if TYPE_CHECKING:  # the module imports torch
    from lab.analysis.derivation import Derivation

BETA_VALUES = (
    0.2,
    0.25,
    0.3,
    0.4,
    0.5,
    0.6,
    0.7,
    0.8,
    0.9,
    1.0,
    1.2,
    1.5,
    2.0,
    2.5,
    3.0,
    4.0,
    5.0,
    6.0,
    7.0,
    8.0,
    9.0,
    10.0,
)
BETA_SLIDER = Slider(
    "beta",
    "β, the price of leaving the reference",
    BETA_VALUES,
    start=1.0,
    presets=(0.2, 0.5, 1.0, 2.0, 5.0, 10.0),
)
QUESTION = "Why does DPO need no reward model?"
SENTENCE = (
    "RLHF learns a reward and then a policy. DPO notices that the best policy already says what the"
    " reward was. First one real update of each, then the derivation, every step computed exactly"
    " in a world of five responses."
)
ALT_TEXT = (
    "Probability of five responses. Bars: under the reference, and under the optimal policy of"
    " RLHF. Diamonds: the minimum of the DPO loss; they lie on the tops of the optimal policy's"
    " bars at every β."
)

NARROW_LAYOUT = {"height": 480, "xaxis": {"tickangle": -90, "automargin": True}}


@st.cache_data(show_spinner="Computing the derivation …")
def derivation_numbers(beta: float) -> "Derivation":
    """The derivation at `beta`. The first call imports torch."""
    from lab.analysis.derivation import derive

    return derive(beta)


@st.cache_data
def five_responses() -> tuple[tuple[str, ...], tuple[float, ...], tuple[float, ...]]:
    """The five responses, their reference probabilities and their rewards."""
    from lab.analysis.derivation import REFERENCE_POLICY, RESPONSES, REWARDS

    return RESPONSES, REFERENCE_POLICY, REWARDS


def draw_policies(beta: float) -> go.Figure:
    """The figure of the five responses under the reference, the optimal policy and DPO at `beta`."""
    derivation, (responses, reference, _) = derivation_numbers(beta), five_responses()
    return policies(responses, reference, derivation.optimal, derivation.dpo)


def policies_sentence(beta: float) -> str:
    """What the figure shows at `beta`, in numbers."""
    derivation, (responses, reference, _) = derivation_numbers(beta), five_responses()
    distance = derivation.errors["dpo"]
    return (
        f"At β = {beta:g} the optimal policy writes “{responses[0]}” {derivation.optimal[0]:.0%} of"
        f" the time instead of {reference[0]:.0%}, at a KL of {derivation.kl:.2f} nats. The minimum"
        " of the DPO loss, which sees only which response is preferred how often, lies"
        f" {f'{distance:.0e} away from it' if distance else 'exactly there'}."
    ).replace("%", " %")


def page() -> None:
    """Show the page."""
    page_heading(QUESTION, SENTENCE)
    guess = ask_prediction(
        "Before you move it: with a larger β the optimal policy stays",
        ("nearer to the reference", "further from it"),
    )
    architectures_section()
    st.subheader("Why the two agree", anchor=False)
    beta = slider_figure(
        draw_policies,
        key="policies",
        alt=ALT_TEXT,
        sliders=[BETA_SLIDER],
        sentence=policies_sentence,
        narrow=NARROW_LAYOUT,
    )["beta"]
    if guess:
        st.markdown("Right." if guess.startswith("nearer") else "It is the other way round.")
        st.markdown(
            "At the optimum a larger β keeps the policy nearer to the reference: compare β = 0.2"
            " with β = 10. Inside the loss the same β multiplies the margin, so the first push"
            " grows with β. Which of the two shows in a whole run is measured on the page DPO."
        )
    derivation_steps(derivation_numbers(beta), five_responses()[2])
    what_to_look_at(
        "Step 4: the advantage of PPO names the token that earned the score, the margin of DPO only"
        " the whole completion. And the diamonds below: they lie on the bars at every β, which is"
        " the derivation in one picture."
    )
    cannot_show(
        "A real policy cannot reach every distribution, real preferences are a finite sample, and"
        " training stops early. Then DPO and RLHF part ways: that is what the runs on the Train"
        " page measure."
    )


def _error_text(error: float) -> str:
    """The error of an identity in words."""
    return f"to {error:.0e}" if error else "exactly"


def derivation_steps(derivation: "Derivation", rewards: tuple[float, ...]) -> None:
    """Show the derivation: one formula per step, each with its check in numbers."""
    beta = f"{derivation.beta:g}"
    steps = (
        (
            (
                rf"\max_\pi\ \mathbb{{E}}_\pi[r(x,y)]-\underbrace{{{beta}}}_{{\beta}}"
                r"\,\mathrm{KL}(\pi\|\pi_{\mathrm{ref}})"
            ),
            (
                "RLHF's objective (arXiv 2305.18290, Eq. 3). The reference scores"
                f" {derivation.reference_objective:.4f}, the optimal policy"
                f" {derivation.best_objective:.4f}."
            ),
        ),
        (
            r"\pi^*(y|x)=\tfrac{1}{Z(x)}\,\pi_{\mathrm{ref}}(y|x)\,e^{r(x,y)/\beta}",
            (
                f"Its maximum (Eq. 4). Here log Z = {derivation.log_partition:.4f}, and the"
                f" objective there is β·log Z, {_error_text(derivation.errors['objective'])}."
            ),
        ),
        (
            r"r(x,y)=\beta\log\tfrac{\pi^*(y|x)}{\pi_{\mathrm{ref}}(y|x)}+\beta\log Z(x)",
            (
                f"Solved for the reward (Eq. 5). For the first response {derivation.implied[0]:.4f}"
                f" + {derivation.beta * derivation.log_partition:.4f} = {rewards[0]:g}; for every"
                f" response it holds {_error_text(derivation.errors['reward'])}."
            ),
        ),
        (
            r"p(y_w\succ y_l)=\sigma\big(r(x,y_w)-r(x,y_l)\big)",
            (
                "Bradley-Terry (Eq. 1) sees only the difference, so β·log Z cancels: the first"
                f" response beats the last {derivation.preferred:.4f} of the time by the true"
                f" rewards, {derivation.preferred_by_policy:.4f} by the policy's."
            ),
        ),
        (
            # two rows, so that a telephone shows them whole
            rf"\begin{{gathered}}\mathcal{{L}}_{{\mathrm{{DPO}}}}=-\log\sigma\big({beta}\,h\big)\\[4pt] "
            rf"{PAIR_MARGIN}\end{{gathered}}",
            (
                "Maximum likelihood of the preferences (Eq. 7). No reward and no Z is left. Its"
                f" minimum is π*, {_error_text(derivation.errors['dpo'])}."
            ),
        ),
    )
    for number, (formula, check) in enumerate(steps, 1):
        left, right = st.columns([1, 1], vertical_alignment="center")
        left.latex(formula)
        right.markdown(f"**{number}.** {check}")
