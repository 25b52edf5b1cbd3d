"""Figure of page DPO: the loss along the margin, with the pairs of a recorded run on it."""

from functools import lru_cache
from statistics import fmean
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import plotly.graph_objects as go
import streamlit as st

from lab.analysis.recorded_results import load_result
from lab.dashboard.components.slider_figure import Slider
from lab.figures.dpo import Curve, loss_and_pairs

if TYPE_CHECKING:
    import pandas as pd

BETA_PRESETS = (0.05, 0.1, 0.2, 0.5)  # the article's

BETA_DIGITS = (10, 11, 12, 13, 15, 17, 20, 22, 25, 28, 32, 36, 40, 45, 50, 56, 63, 70, 80, 90)

BETA_SLIDER = Slider(
    "beta",
    "β",
    (*(n / 1000 for n in BETA_DIGITS), *(n / 100 for n in BETA_DIGITS), 1.0),
    start=0.1,
    presets=BETA_PRESETS,
)

MARGINS = tuple(h / 4 for h in range(-80, 201))  # nats

ALT_TEXT = (
    "Upper left: the DPO loss over the margin of a pair. The curve falls from left to right, and"
    " the pairs of a recorded run are points on it. Lower left: how hard gradient descent pushes"
    " the margin up, on a logarithmic scale. Right: how far the chosen and the rejected completions"
    " of these pairs have moved from the reference, over the updates of the run."
)

FULL_WIDTH = {"domain": [0, 1]}

NARROW_LAYOUT = {
    "height": 900,
    "legend": {"y": 1.0},
    "legend2": {"x": 0, "y": 0.29, "yanchor": "bottom"},
    "annotations": [],
    "xaxis": FULL_WIDTH,
    "xaxis2": FULL_WIDTH,
    "yaxis": {"domain": [0.68, 0.97]},
    "yaxis2": {"domain": [0.42, 0.64]},
    "yaxis3": {"domain": [0, 0.28]},
}


@st.cache_resource(show_spinner=False)
def recorded_dpo_runs() -> dict[str, dict[str, Any]]:
    """The recorded DPO runs by title, with their steps and, at each step, the margins of fixed pairs
    and log π − log π_ref of both sides. Shared by all sessions; do not change it.
    """
    return {
        row["name"]: row
        for row in load_result("margins")["rows"]
        if row["method"] == "dpo" and row["seed"] == 0
    }


@lru_cache(maxsize=2000)
def loss_curve(
    beta: float, margins: tuple[float, ...] = MARGINS
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Margins h, DPO losses and pushes −dL/dh at `beta`, each of shape (number of margins,). Shared by
    all sessions; do not change it.
    """
    from lab.analysis.loss_curves import along_margin

    profile = along_margin("dpo", margins, beta=beta)
    return np.array(profile.x), np.array(profile.loss), np.array(profile.push)


def signed_nats(nats: float) -> str:
    """A signed number of nats with one decimal and a typographic minus, such as "−3.2"."""
    return f"{nats:+.1f}".replace("-", "−")


def draw_loss(beta: float, step: int, run: str) -> go.Figure:
    """The figure of the loss at `beta` with the pairs of the recorded `run` at `step`."""
    row = recorded_dpo_runs()[run]
    at = row["steps"].index(step)
    sides = {side: [fmean(values) for values in row[side]] for side in ("chosen", "rejected")}
    curve, pairs = loss_curve(beta), loss_curve(beta, tuple(row["margins"][at]))
    return loss_and_pairs(
        cast(Curve, curve),  # arrays, which plotly accepts as sequences
        [cast(Curve, loss_curve(preset)) for preset in BETA_PRESETS],
        cast(Curve, pairs),
        sides,
        row["steps"],
        step,
        beta,
        f"β = {', '.join(f'{b:g}' for b in BETA_PRESETS)}",
    )


def loss_sentence(beta: float, step: int, run: str) -> str:
    """What the figure shows at `beta` and `step`, in numbers."""
    row = recorded_dpo_runs()[run]
    at = row["steps"].index(step)
    margins = row["margins"][at]
    _, (start,), (push,) = loss_curve(beta, (0.0,))
    pushes = loss_curve(beta, tuple(margins))[2]
    weak = (pushes < push / 10).sum() or "none"
    chosen, rejected = fmean(row["chosen"][at]), fmean(row["rejected"][at])
    return (
        f"At β = {beta:g} and h = 0 the loss is {start:.3f} and the push is {push:.3g} per nat. The"
        f" run trained with β = {row['beta']:g}. After {step} updates, the mean margin of the"
        f" {len(margins)} pairs is {signed_nats(fmean(margins))} nats, and"
        f" {sum(h > 0 for h in margins)} margins are above 0. At β = {beta:g}, {weak} of the pairs"
        " get less than a tenth of the push at h = 0. The chosen completions changed by"
        f" {signed_nats(chosen)} nats, the rejected ones by {signed_nats(rejected)} nats. Gold"
        f" accuracy on held-out prompts is {row['gold/accuracy'][at]:.2f}."
    )


def pairs_table(beta: float, step: int, run: str) -> "pd.DataFrame":
    """The pairs of the figure at `beta` and `step` as a table."""
    import pandas as pd

    row = recorded_dpo_runs()[run]
    at = row["steps"].index(step)
    _, losses, pushes = loss_curve(beta, tuple(row["margins"][at]))
    return pd.DataFrame(
        {
            "pair": range(1, len(losses) + 1),
            "margin h, nats": row["margins"][at],
            f"loss at β = {beta:g}": losses,
            "push, per nat": pushes,
            "chosen, log π − log π_ref": row["chosen"][at],
            "rejected, log π − log π_ref": row["rejected"][at],
        }
    )
