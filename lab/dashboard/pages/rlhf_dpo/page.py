"""Page RLHF and DPO: one update of both architectures, then the derivation with every step checked
in numbers.
"""

from typing import TYPE_CHECKING

import plotly.graph_objects as go
import streamlit as st

from lab.config.latex import PAIR_MARGIN
from lab.dashboard.components.layout import cannot_show, page_heading, what_to_look_at
from lab.dashboard.components.quiz import quiz
from lab.dashboard.components.slider_figure import Slider, slider_figure
from lab.dashboard.pages.rlhf_dpo.architectures import architectures_section
from lab.dashboard.pages.rlhf_dpo.step_text import unsigned_number
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
    "β, how much distance from the reference costs",
    BETA_VALUES,
    start=1.0,
    presets=(0.2, 0.5, 1.0, 2.0, 5.0, 10.0),
)
QUESTION = "Why does DPO need no reward model?"
SENTENCE = (
    "RLHF first trains a reward model on preferences, and then trains the policy on its scores. DPO"
    " trains the policy on the preferences directly. This works because the best policy of RLHF"
    " determines the rewards. You see one real update of each method, and then the proof in five"
    " steps, computed for a prompt with five possible responses."
)
WORDS = (
    "policy",
    "reference",
    "completion",
    "chosen and rejected",
    "RLHF",
    "reward model",
    "critic",
    "advantage",
    "rollout",
    "update",
    "adapter",
    "margin",
    "KL",
    "nat",
)
ALT_TEXT = (
    "Probability of five responses. Bars: under the reference, and under the optimal policy of"
    " RLHF. Diamonds: the minimum of the DPO loss; they lie on the tops of the optimal policy's"
    " bars at every β."
)

NARROW_LAYOUT = {"height": 480, "xaxis": {"tickangle": -90, "automargin": True}}
ROUNDING_ERROR = 1e-6  # smaller errors come from the computer's arithmetic and the descent's end


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
        f" the time; the reference writes it {reference[0]:.0%} of the time. The KL of the optimal"
        f" policy to the reference is {derivation.kl:.2f} nats. The DPO loss only sees how often"
        " each response is preferred to another. Its minimum is the same policy,"
        f" {_error_text(distance)}."
    ).replace("%", " %")


def page() -> None:
    """Show the page."""
    page_heading(QUESTION, SENTENCE, WORDS)
    quiz(
        "Before you move β: where is the optimal policy when β is larger?",
        ("nearer to the reference", "further from it"),
        prediction_answer,
        covers=("policies",),
    )
    architectures_section()
    st.subheader("Why both methods have the same optimum", anchor=False)
    beta = slider_figure(
        draw_policies,
        key="policies",
        alt=ALT_TEXT,
        sliders=[BETA_SLIDER],
        sentence=policies_sentence,
        narrow=NARROW_LAYOUT,
    )["beta"]
    derivation_steps(derivation_numbers(beta), five_responses()[2])
    what_to_look_at(
        "Look at step 4. PPO gives each token an advantage of its own; DPO has one margin for the"
        " whole pair. Then move β and look at the diamonds. They lie on the tops of the bars at"
        " every β: this is the result of the proof."
    )
    cannot_show(
        "The proof assumes that the policy can reach every distribution, that preferences are known"
        " exactly, and that training ends at the minimum. No real training fulfils this, so real"
        " runs of DPO and RLHF end differently. The pages Map and Choose a method measure such"
        " runs."
    )


def prediction_answer(guess: str) -> None:
    """Show, after a guess, what a larger β does."""
    st.markdown(
        f"{'Right.' if guess.startswith('nearer') else 'The opposite is true.'} At the optimum, a"
        " larger β keeps the policy nearer to the reference: compare β = 0.2 with β = 10. Inside the"
        " loss, the same β multiplies the margin, so a larger β gives a larger first gradient. The"
        " page DPO measures both effects in whole runs."
    )


def _error_text(error: float) -> str:
    """The error of an identity in words."""
    return "up to rounding" if error < ROUNDING_ERROR else f"with an error of {error:.0e}"


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
                "RLHF maximises the mean reward minus β times the KL (arXiv 2305.18290, Eq. 3). The"
                f" reference has the value {unsigned_number(derivation.reference_objective)}, the"
                f" optimal policy {unsigned_number(derivation.best_objective)}."
            ),
        ),
        (
            r"\pi^*(y|x)=\tfrac{1}{Z(x)}\,\pi_{\mathrm{ref}}(y|x)\,e^{r(x,y)/\beta}",
            (
                "This policy π* reaches the maximum (Eq. 4). Z is the sum that makes the"
                f" probabilities add up to 1; here log Z = {derivation.log_partition:.3f}. The value"
                f" at the maximum is β·log Z, {_error_text(derivation.errors['objective'])}."
            ),
        ),
        (
            r"r(x,y)=\beta\log\tfrac{\pi^*(y|x)}{\pi_{\mathrm{ref}}(y|x)}+\beta\log Z(x)",
            (
                "The same equation, solved for the reward (Eq. 5). For the first response it reads"
                f" {unsigned_number(derivation.implied[0])} +"
                f" {unsigned_number(derivation.beta * derivation.log_partition)} = {rewards[0]:g}."
                f" It holds for every response, {_error_text(derivation.errors['reward'])}."
            ),
        ),
        (
            r"p(y_w\succ y_l)=\sigma\big(r(x,y_w)-r(x,y_l)\big)",
            (
                "The Bradley-Terry model of preferences (Eq. 1) uses only the difference of two"
                " rewards, so β·log Z cancels. The first response is preferred to the last one"
                f" {100 * derivation.preferred:.1f} % of the time by the true rewards, and"
                f" {100 * derivation.preferred_by_policy:.1f} % by the rewards of step 3."
            ),
        ),
        (
            # two rows, so that a telephone shows them whole
            rf"\begin{{gathered}}\mathcal{{L}}_{{\mathrm{{DPO}}}}=-\log\sigma\big({beta}\,h\big)\\[4pt] "
            rf"{PAIR_MARGIN}\end{{gathered}}",
            (
                "Step 3, put into step 4, gives the DPO loss: the negative log-likelihood of the"
                " preferences (Eq. 7). It contains no reward and no Z. Its minimum is π*,"
                f" {_error_text(derivation.errors['dpo'])}."
            ),
        ),
    )
    for number, (formula, check) in enumerate(steps, 1):
        left, right = st.columns([1, 1], vertical_alignment="center")
        left.latex(formula)
        right.markdown(f"**{number}.** {check}")
