"""Page IPO and KTO: a margin that stops, and completions that need no partner."""

import itertools
import json
from collections.abc import Mapping
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from lab.analysis.recorded_results import load_result
from lab.dashboard.components.layout import (
    cannot_show,
    figure,
    link,
    look_at,
    opening,
    predict,
    source,
)
from lab.dashboard.components.slider_figure import Slider, explore
from lab.figures.ipo import bounded_margin_figure, margins_over_steps
from lab.figures.kto import BALANCE_RULE, kto_value_figure
from lab.figures.palette import METHOD_NAMES
from lab.tasks.chain import ChainTask

QUESTION = "Where does each loss stop?"
SENTENCE = (
    "DPO is never satisfied with a margin. IPO draws it to 1/(2β) and stops there. KTO drops the"
    " pairs: each completion is judged alone, against a reference point. Drag β and watch where"
    " IPO's parabola comes to rest."
)
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
BETA = Slider("beta", "β", BETAS, start=0.1, presets=(0.05, 0.1, 0.2, 0.5, 1.0))
GRID = tuple(h / 4 for h in range(-40, 121))  # nats
UPDATES, RATE = tuple(range(0, 301, 4)), 0.2
RATIOS = tuple(r / 4 for r in range(-120, 201))
WEIGHTS = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.2, 1.33, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0, 9.0, 10.0, 12.0)
Z = Slider("z", "z, the reference point, nats", tuple(range(21)), start=0, presets=(0, 5, 10, 20))
UP = Slider("up", "λ_D, weight of a thumb up", WEIGHTS, start=1.0, presets=(0.1, 1.0, 10.0))
DOWN = Slider("down", "λ_U, weight of a thumb down", WEIGHTS, start=1.0, presets=(0.1, 1.0, 10.0))
SHARE = Slider(
    "share",
    "thumbs up in the data, %",
    (1, 2, *range(5, 100, 5), 98, 99),
    start=50,
    presets=(10, 50, 90),
)
GUESSES = ("β is small", "β is large", "never: for every β")
ALT = (
    "Left: the losses of DPO and IPO against the margin. DPO falls for ever; IPO is a parabola with"
    " its lowest point at 1/(2β). Right: the margin over updates in a world of two responses. DPO's"
    " rises on and on, IPO's stops at 1/(2β)."
)
ALT_RUNS = (
    "Recorded runs with β = 0.1. Left: the margins of fixed pairs over the updates, mean and middle"
    " four fifths, for DPO, IPO and KTO. Right: how far their chosen and rejected completions have"
    " moved from the reference."
)
ALT_KTO = (
    "Left: KTO's value of a desirable completion rises, that of an undesirable one falls with the"
    " log-ratio r; both are steepest at z. Right: the balance of the two kinds on a logarithmic"
    " scale, beside the band from 1 to 4/3."
)
WIDE = {"domain": [0, 1]}
NARROW = {
    "height": 720,
    "xaxis": WIDE,
    "xaxis2": WIDE,
    "yaxis": {"domain": [0.57, 1]},
    "yaxis2": {"domain": [0, 0.42]},
}
NARROW_RUNS = NARROW | {
    "height": 800,
    "yaxis": {"domain": [0.62, 1]},
    "yaxis2": {"domain": [0, 0.36]},
    "legend2": {"x": 0, "y": 0.37},
}
NARROW_KTO = NARROW | {"yaxis": {"domain": [0.4, 1]}, "yaxis2": {"domain": [0, 0.22]}}


@st.cache_data
def profile(
    method: str, beta: float, margins: tuple[float, ...] = GRID
) -> tuple[np.ndarray, np.ndarray]:
    """Loss and push along the margin; torch is loaded when the first is asked for."""
    from lab.analysis.loss_curves import along_margin

    found = along_margin(method, margins, beta=beta)
    return np.array(found.loss), np.array(found.push)


@st.cache_resource(show_spinner="Walking down both losses …")
def walks() -> dict[str, dict[float, list[float]]]:
    """The margin in a world of two responses, by method and β, at every one of `UPDATES`; nobody
    changes it.
    """
    from lab.analysis.loss_curves import PAIRWISE_LOSSES, two_actions

    return {
        method: dict(zip(BETAS, two_actions(method, BETAS, UPDATES, rate=RATE)))
        for method in PAIRWISE_LOSSES
    }


@st.cache_data
def value(desirable: bool, beta: float, z: float, weight: float) -> np.ndarray:
    """λ − loss of KTO along r."""
    from lab.analysis.loss_curves import along_ratio

    return weight - np.array(
        along_ratio(desirable, RATIOS, beta=beta, z=float(z), weight=weight).loss
    )


@st.cache_resource(show_spinner=False)
def recorded() -> dict[str, dict[str, Any]]:
    """The recorded runs with the defaults of DPO, IPO and KTO; nobody changes them."""
    return {
        row["method"]: row
        for row in load_result("margins")["rows"]
        if row["seed"] == 0 and row["name"] == METHOD_NAMES[row["method"]]
    }


def drawn(beta: float) -> go.Figure:
    """Both losses and both walks at β."""
    losses = {}
    for method in walks():
        losses[method] = profile(method, beta)[0] / profile(method, beta, (0.0,))[0]
    return bounded_margin_figure(
        GRID,
        losses,
        UPDATES,
        {method: walk[beta] for method, walk in walks().items()},
        1 / (2 * beta),
    )


def sentence(beta: float) -> str:
    """Where both arrive at β, in numbers."""
    ends = {method: walk[beta][-1] for method, walk in walks().items()}
    push = profile("dpo", beta, (1 / (2 * beta),))[1][0]
    return (
        f"β = {beta:g}: IPO's target is 1/(2β) = {1 / (2 * beta):.3g} nats. After {UPDATES[-1]}"
        f" updates IPO stands at {ends['ipo']:.2f} and writes y₁ {share(ends['ipo'])} of the time,"
        f" where it stays; DPO stands at {ends['dpo']:.1f}, {share(ends['dpo'])}, and goes on: at"
        f" IPO's target it still pushes with {push:.2g} per nat."
    )


def share(log_odds: float) -> str:
    """A probability in percent with as many digits as tell it from 1."""
    rest = 100 / (1 + np.exp(log_odds))
    return (
        "more than 99.999 %"
        if rest < 1e-3
        else f"{100 - rest:.{max(0, int(np.ceil(-np.log10(rest))) + 1)}f} %"
    )


def page() -> None:
    """The page from top to bottom."""
    opening(QUESTION, SENTENCE)
    guess = predict(
        "Before you move it: y₁ is always preferred to y₂. When does DPO leave y₂ some of its"
        " probability, if it trains for ever?",
        GUESSES,
    )
    beta = explore(drawn, key="bounded", alt=ALT, sliders=[BETA], says=sentence, narrow=NARROW)[
        "beta"
    ]
    st.caption(
        f"Computed by `lab.algorithms.losses` and descent with Adam (step {RATE:g}) from the"
        " reference, ½ and ½: arXiv 2310.12036, §5.4."
    )
    if guess:
        st.markdown(
            f"{'Right' if guess == GUESSES[2] else f'You said: {guess}. But never'}: for every β"
            " the DPO loss still falls to the right of any margin, so y₂ goes to 0. IPO leaves y₂"
            " the share 1 − σ(1/(2β)): about nothing at β = 0.05, 38 % at β = 1."
        )
    runs()
    kto(beta)
    data()
    look_at(
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
    link("train", "Train", "Try it: train IPO", method="ipo")
    link("train", "Train", "Try it: train KTO", method="kto")


def runs() -> None:
    """The margins of recorded runs."""
    rows, table = recorded(), load_result("margins")
    st.subheader("Recorded runs: the margin of the same pairs", anchor=False)
    target = 1 / (2 * rows["ipo"]["beta"])
    frame = pd.DataFrame(
        [
            {
                "method": METHOD_NAMES[method],
                "step": step,
                "margin, mean": fmean(row["margins"][at]),
                "margin, largest": max(row["margins"][at]),
                "chosen, mean": fmean(row["chosen"][at]),
                "rejected, mean": fmean(row["rejected"][at]),
                "gold accuracy": row["gold/accuracy"][at],
            }
            for method, row in rows.items()
            for at, step in enumerate(row["steps"])
        ]
    )
    figure(
        margins_over_steps(list(rows.values()), target), "runs", ALT_RUNS, frame, narrow=NARROW_RUNS
    )
    st.markdown(ran(rows, target))
    source(table, "Bands hold the middle four fifths of the pairs; h is not multiplied by β.")


def ran(rows: Mapping[str, Mapping[str, Any]], target: float) -> str:
    """What the recorded runs show, in numbers, beside the article."""
    dpo, ipo = rows["dpo"], rows["ipo"]
    over = sum(h > target for h in dpo["margins"][-1])
    return (
        "“IPO adds a regularization term … so the model doesn’t need to push the margin of"
        f" preference pairs to infinity”: after {dpo['steps'][-1]} updates DPO has {over} of"
        f" {len(dpo['margins'][-1])} margins beyond {target:g} nats, the largest at"
        f" {max(dpo['margins'][-1]):.0f}; IPO has {sum(h > target for h in ipo['margins'][-1])},"
        f" the largest at {max(ipo['margins'][-1]):.1f}. Right on held-out prompts: DPO"
        f" {dpo['gold/accuracy'][-1]:.2f}, IPO {ipo['gold/accuracy'][-1]:.2f}, KTO"
        f" {rows['kto']['gold/accuracy'][-1]:.2f}."
    )


def balance(up: float, down: float, percent: float) -> float:
    """λ_D·n_D / (λ_U·n_U)."""
    return up * percent / (down * (100 - percent))


def judged(z: float, up: float, down: float, percent: float, beta: float) -> go.Figure:
    """KTO's two values and the balance of the kinds."""
    return kto_value_figure(
        RATIOS, value(True, beta, z, up), value(False, beta, z, down), z, balance(up, down, percent)
    )


def verdict(z: float, up: float, down: float, percent: float, beta: float) -> str:
    """Whether the weights follow the rule, and what would."""
    found, (low, high) = balance(up, down, percent), BALANCE_RULE
    need = [end * down * (100 - percent) / percent for end in BALANCE_RULE]
    held = "inside" if low <= found <= high + 0.005 else "outside"
    return (
        f"At {percent:g} % thumbs up the balance λ_D·n_D / (λ_U·n_U) is {found:.3g}, {held} the"
        f" rule’s 1 to 4/3; with λ_U = {down:g} the rule asks for λ_D from {need[0]:.3g} to"
        f" {need[1]:.3g}. At r = z = {z:g} both kinds have half their value, λ_D/2 = {up / 2:g} and"
        f" λ_U/2 = {down / 2:g}, and feel the hardest push, {beta * up / 4:.3g} up and"
        f" {beta * down / 4:.3g} down per nat at β = {beta:g}; far from z neither feels any."
    )


def kto(beta: float) -> None:
    """KTO's values, reference point and imbalance."""
    st.subheader("KTO: judged alone", anchor=False)
    explore(
        judged,
        key="kto",
        alt=ALT_KTO,
        sliders=[Z, UP, DOWN, SHARE],
        says=verdict,
        given=(beta,),
        narrow=NARROW_KTO,
    )
    st.caption(
        "`lab.algorithms.losses.kto_loss`, arXiv 2402.01306, Eq. 7 and 8; β is the one above. In"
        " training z is measured in every batch, on its own completions of both kinds, each beside"
        " the prompt of another row."
    )


@st.cache_data
def shipped(count: int = 4) -> list[dict[str, str]]:
    """The first pairs that the lab ships."""
    with ChainTask.pairs_path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in itertools.islice(lines, count)]


def data() -> None:
    """The same data as pairs and as judged completions."""
    pairs = shipped()
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
    single = [
        {"prompt": pair["prompt"], "completion": pair[side], "thumb": thumb}
        for pair in pairs
        for side, thumb in (("chosen", "up"), ("rejected", "down"))
    ]
    right.dataframe(pd.DataFrame(single), hide_index=True, key="as-thumbs")
