"""Page IPO and KTO: a loss whose margin has a target, and a loss that needs no pairs."""

import itertools
import json
import math

import streamlit as st

from lab.dashboard.components.layout import cannot_show, page_heading, page_link, what_to_look_at
from lab.dashboard.components.quiz import quiz
from lab.dashboard.components.sample_table import sample_table
from lab.dashboard.components.slider_figure import slider_figure
from lab.dashboard.pages.ipo_kto.kto_figure import kto_section
from lab.dashboard.pages.ipo_kto.margin_figure import (
    ALT_TEXT,
    BETA_SLIDER,
    NARROW_LAYOUT,
    STEP_SIZE,
    draw_losses_and_paths,
    margin_sentence,
)
from lab.dashboard.pages.ipo_kto.recorded_margins import recorded_margins
from lab.tasks.chain import ChainTask

QUESTION = "At which margin does each loss stop pushing?"
SENTENCE = (
    "The margin h of a pair says how much more the policy prefers the chosen completion than the"
    " reference does. The DPO loss always asks for a larger margin. The IPO loss asks for the"
    " margin 1/(2β) and then stops. The KTO loss needs no pairs: it compares each completion with a"
    " reference point. Drag β and watch the lowest point of IPO's parabola."
)
WORDS = (
    "policy",
    "reference",
    "chosen and rejected",
    "log-ratio",
    "margin",
    "push",
    "nat",
    "gold accuracy",
    "held-out",
    "update",
    "seed",
)
GUESSES = ("when β is small", "when β is large", "never")


def page() -> None:
    """Show the page."""
    page_heading(QUESTION, SENTENCE, WORDS)
    quiz(
        "Before you move β: there are two responses, and y₁ is always preferred to y₂. DPO trains"
        " without end. When does y₂ keep some probability?",
        GUESSES,
        prediction_answer,
        covers=("bounded",),
    )
    beta = slider_figure(
        draw_losses_and_paths,
        key="bounded",
        alt=ALT_TEXT,
        sliders=[BETA_SLIDER],
        sentence=margin_sentence,
        narrow=NARROW_LAYOUT,
    )["beta"]
    st.caption(
        "Left: the functions of `lab.algorithms.losses`. Right: Adam with learning rate"
        f" {STEP_SIZE:g} minimises them. The reference gives both responses the probability ½"
        " (arXiv 2310.12036, section 5)."
    )
    recorded_margins()
    kto_section(beta)
    data_section()
    what_to_look_at(
        "Look at the dotted line at 1/(2β). Left of it, IPO pushes harder when the margin is"
        " further away. At the line IPO stops, and beyond it IPO pulls the margin back. DPO pushes"
        " less and less, but never stops. Then compare the recorded runs: right, you see how far"
        " the chosen completions of each method have moved."
    )
    cannot_show(
        "Each loss is drawn in units of its value at h = 0. So you cannot compare the gradients of"
        " DPO and IPO in this figure; Adam divides by the size of the gradient in any case. The"
        " recorded runs have one seed. The figure shows KTO's rule for unequal numbers of thumbs;"
        " it does not measure it. To measure it, train KTO with `desirable_share` below 1."
    )
    page_link("train", "Train", "Try it: train IPO", method="ipo")
    page_link("train", "Train", "Try it: train KTO", method="kto")


def prediction_answer(guess: str) -> None:
    """Show, after a guess, when each loss stops."""
    shares = [100 / (1 + math.exp(1 / (2 * b))) for b in (0.05, 1.0)]
    st.markdown(
        f"{'Right' if guess == GUESSES[2] else f'You said {guess}'}. For every β, the DPO loss"
        " falls further as the margin grows, so the probability of y₂ goes to 0. IPO leaves y₂"
        f" the probability 1 − σ(1/(2β)): {shares[0]:.3f} % at β = 0.05 and {shares[1]:.0f} %"
        " at β = 1."
    )


@st.cache_data
def example_pair_rows(count: int = 4) -> list[dict[str, str]]:
    """The first `count` preference pairs that the lab ships."""
    with ChainTask.pairs_path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in itertools.islice(lines, count)]


def data_section() -> None:
    """Show the same data as preference pairs and as completions with a thumb up or down."""
    pairs = example_pair_rows()
    st.subheader("The data of both kinds", anchor=False)
    st.markdown(
        "“KTO doesn’t require paired preference data — it only needs to know whether each response"
        " is good or bad.” Here is the same data in both forms:"
    )
    left, right = st.columns(2, gap="medium")
    left.markdown("**Pairs** for DPO and IPO: somebody compared two completions of one prompt.")
    with left:
        _text_table(f"{len(pairs)} pairs", "as-pairs", pairs)
    right.markdown(
        "**Thumbs** for KTO: somebody rated each completion alone. A prompt may occur only once."
    )
    thumbs = [
        {"prompt": pair["prompt"], "completion": pair[side], "thumb": thumb}
        for pair in pairs
        for side, thumb in (("chosen", "up"), ("rejected", "down"))
    ]
    with right:
        _text_table(f"The same completions with {len(thumbs)} thumbs", "as-thumbs", thumbs)


def _text_table(heading: str, key: str, rows: list[dict[str, str]]) -> None:
    cells = [{name: {"text": text} for name, text in row.items()} for row in rows]
    sample_table(heading, key, list(rows[0]), cells)
