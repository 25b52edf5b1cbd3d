"""The figures of the story that sliders move, drawn from the lab's own functions."""

from dataclasses import replace
from functools import lru_cache
from typing import Any, cast

import plotly.graph_objects as go

from lab.analysis.recorded_results import load_result
from lab.dashboard.components.slider_figure import Slider, slider_figure_data
from lab.dashboard.components.story import StoryFigure
from lab.dashboard.pages.choose.article_chart import METHOD_TITLES, measured_panels
from lab.dashboard.pages.dpo.loss_figure import BETA_PRESETS, BETA_SLIDER, loss_curve
from lab.dashboard.pages.ipo_kto.kto_figure import LOG_RATIOS, REFERENCE_POINT_SLIDER, kto_value
from lab.dashboard.pages.ipo_kto.margin_figure import BETA_SLIDER as IPO_BETA_SLIDER
from lab.dashboard.pages.ipo_kto.margin_figure import UPDATES, margin_paths, margin_sentence
from lab.dashboard.pages.rlhf_dpo.page import derivation_numbers, five_responses, policies_sentence
from lab.figures import article
from lab.figures.comparison import COST_PANELS, article_beside_measured
from lab.figures.derivation import policies

RESPONSES = (
    "right,<br>with steps",
    "right,<br>at once",
    "right,<br>rambling",
    "wrong,<br>with steps",
    "wrong,<br>at once",
)
DERIVATION_SLIDER = Slider(
    "beta", "β", (0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0), 5.0, (0.2, 1.0, 5.0)
)
LOSS_SLIDER = replace(BETA_SLIDER, start=0.1)
PAIR_MARGIN = 5.0  # nats; of the pair that the figure of the loss shows
MARGINS = tuple(h / 2 for h in range(-40, 81))
KTO_BETA = 0.1
SHORT = {"height": 250, "margin": {"l": 45, "r": 6, "t": 34, "b": 40}}
"""The layout of a figure on a telephone, where text stands below it."""


def draw_policies(beta: float) -> go.Figure:
    """The five responses of the derivation under reference, optimal policy and DPO at `beta`."""
    numbers, (_, reference, _) = derivation_numbers(beta), five_responses()
    return policies(RESPONSES, reference, numbers.optimal, numbers.dpo)


@lru_cache(maxsize=200)
def _loss(beta: float, margins: tuple[float, ...]) -> article.Points:
    h, loss, _ = loss_curve(beta, margins)
    return cast(article.Points, (h, loss))


def draw_loss(beta: float) -> go.Figure:
    """The DPO loss at `beta`, with the article's other values of β."""
    others = {other: _loss(other, MARGINS) for other in BETA_PRESETS}
    pair = (PAIR_MARGIN, float(_loss(beta, (PAIR_MARGIN,))[1][0]))
    return article.loss_along_margin(_loss(beta, MARGINS), others, beta, pair)


def loss_sentence(beta: float) -> str:
    """The loss and the push of two pairs at `beta`, in numbers."""
    _, losses, pushes = loss_curve(beta, (0.0, PAIR_MARGIN))
    return (
        f"At β = {beta:g} a pair with margin 0 has the loss {losses[0]:.2f} and is pushed with"
        f" {pushes[0]:.3f} per nat. A pair with margin {PAIR_MARGIN:g} has the loss {losses[1]:.2f}"
        f" and is pushed with {pushes[1]:.3f}."
    )


def draw_margins(beta: float) -> go.Figure:
    """The margins of DPO and IPO over updates at `beta`, with two responses."""
    walks = {method: paths[beta] for method, paths in margin_paths().items()}
    return article.margins_over_updates(UPDATES, walks, 1 / (2 * beta))


def draw_kto(z: float) -> go.Figure:
    """KTO's value of a good and of a bad completion, with the reference point `z`."""
    values = {
        name: cast(Any, kto_value(desirable, KTO_BETA, z, 1.0))
        for name, desirable in (("good (thumb up)", True), ("bad (thumb down)", False))
    }
    return article.kto_values(LOG_RATIOS, values, z)


def kto_sentence(z: float) -> str:
    """Where KTO pushes hardest, in words."""
    return (
        f"The reference point is z = {z:g} nats. A good completion gains value when it moves right of"
        " z, a bad one when it moves left. Both curves are steepest at z."
    )


def curve_figure(name: str) -> StoryFigure:
    """The figure "derivation", "loss", "ipo" or "kto"."""
    draw, sentence, slider, alt = {
        "derivation": (
            draw_policies,
            policies_sentence,
            DERIVATION_SLIDER,
            "Probabilities of five responses: reference, optimal policy, minimum of the DPO loss.",
        ),
        "loss": (draw_loss, loss_sentence, LOSS_SLIDER, "The DPO loss over the margin of a pair."),
        "ipo": (
            draw_margins,
            margin_sentence,
            IPO_BETA_SLIDER,
            "Margin over updates. That of DPO always rises; that of IPO stops at 1/(2β).",
        ),
        "kto": (
            draw_kto,
            kto_sentence,
            replace(REFERENCE_POINT_SLIDER, label="z, nats"),
            "KTO's value over the log-ratio, of a good and of a bad completion.",
        ),
    }[name]
    return StoryFigure(
        "slider",
        slider_figure_data(
            draw,
            (slider.start,),
            key=f"story-{name}",
            alt=alt,
            sliders=[slider],
            sentence=sentence,
            narrow=SHORT,
        ),
    )


def resource_figures(theme: str) -> list[StoryFigure]:
    """One panel of the article's chart after the other, beside the lab's measurement."""
    figures = []
    measured = measured_panels(load_result("chain-tokens"))
    for panel in (name for name in COST_PANELS if name in measured):
        chart = article_beside_measured({panel: measured[panel]}, METHOD_TITLES, theme)
        chart.update_layout(height=400)
        figures.append(
            StoryFigure(
                "slider",
                slider_figure_data(
                    chart,
                    (),
                    key=f"story-{panel}",
                    alt=f"The article's numbers beside the measured ones: {panel}.",
                    narrow=SHORT,
                ),
            )
        )
    return figures


def slider_index(slider: Slider, value: float) -> int:
    """The place of a value of a slider."""
    return slider.values.index(value)
