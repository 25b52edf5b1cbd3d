"""Page IPO and KTO: a loss whose margin has a target, and a loss that needs no pairs."""

import itertools
import json

import pandas as pd
import streamlit as st

from lab.dashboard.components.layout import (
    ask_prediction,
    cannot_show,
    page_heading,
    page_link,
    what_to_look_at,
)
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

QUESTION = "Where does each loss stop?"
SENTENCE = (
    "DPO is never satisfied with a margin. IPO draws it to 1/(2β) and stops there. KTO drops the"
    " pairs: each completion is judged alone, against a reference point. Drag β and watch where"
    " IPO's parabola comes to rest."
)
GUESSES = ("β is small", "β is large", "never: for every β")


def page() -> None:
    """Show the page."""
    page_heading(QUESTION, SENTENCE)
    guess = ask_prediction(
        "Before you move it: y₁ is always preferred to y₂. When does DPO leave y₂ some of its"
        " probability, if it trains for ever?",
        GUESSES,
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
        f"Computed by `lab.algorithms.losses` and descent with Adam (step {STEP_SIZE:g}) from the"
        " reference, ½ and ½: arXiv 2310.12036, §5.4."
    )
    if guess:
        st.markdown(
            f"{'Right' if guess == GUESSES[2] else f'You said: {guess}. But never'}: for every β"
            " the DPO loss still falls to the right of any margin, so y₂ goes to 0. IPO leaves y₂"
            " the share 1 − σ(1/(2β)): about nothing at β = 0.05, 38 % at β = 1."
        )
    recorded_margins()
    kto_section(beta)
    data_section()
    what_to_look_at(
        "The dashed line at 1/(2β). Left of it IPO pushes harder the further away it is; at the"
        " line it stops, and beyond it pulls back. DPO only tires. In the recorded runs IPO's"
        " chosen completions hardly move, DPO's and KTO's become less likely."
    )
    cannot_show(
        "The parabola is drawn in units of its value at h = 0, so its absolute gradient cannot be"
        " compared with DPO's: Adam divides it out of training anyway. One seed for the runs. KTO's"
        " answer to unequal kinds is shown as a rule, not measured here: train it with"
        " `desirable_share` below 1."
    )
    page_link("train", "Train", "Try it: train IPO", method="ipo")
    page_link("train", "Train", "Try it: train KTO", method="kto")


@st.cache_data
def example_pair_rows(count: int = 4) -> list[dict[str, str]]:
    """The first `count` preference pairs that the lab ships."""
    with ChainTask.pairs_path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in itertools.islice(lines, count)]


def data_section() -> None:
    """Show the same data as preference pairs and as completions with a thumb up or down."""
    pairs = example_pair_rows()
    st.subheader("Where the data comes from", anchor=False)
    st.markdown(
        "“KTO doesn’t require paired preference data — it only needs to know whether each response"
        " is good or bad.” The same data, twice:"
    )
    left, right = st.columns(2, gap="medium")
    left.markdown("**Pairs**, for DPO and IPO: somebody compared two completions of one prompt.")
    left.dataframe(pd.DataFrame(pairs), hide_index=True, key="as-pairs")
    right.markdown(
        "**Thumbs**, for KTO: each completion was judged by itself, and prompts need not repeat."
    )
    thumbs = [
        {"prompt": pair["prompt"], "completion": pair[side], "thumb": thumb}
        for pair in pairs
        for side, thumb in (("chosen", "up"), ("rejected", "down"))
    ]
    right.dataframe(pd.DataFrame(thumbs), hide_index=True, key="as-thumbs")
