"""The live figures of the site: the slider figures of the dashboard's pages on RLHF, DPO, IPO and
KTO, and GRPO. Some sliders have fewer values than in the dashboard, because the site holds every
combination.
"""

import json
from dataclasses import dataclass, replace

import plotly.graph_objects as go

from lab.analysis.recorded_results import load_result
from lab.dashboard.components.layout import source_text
from lab.dashboard.components.slider_figure import Slider
from lab.dashboard.pages.dpo import beta_runs, loss_figure
from lab.dashboard.pages.dpo import page as dpo_page
from lab.dashboard.pages.grpo import clipping, group_source, thinking
from lab.dashboard.pages.grpo import page as grpo_page
from lab.dashboard.pages.ipo_kto import kto_figure, margin_figure
from lab.dashboard.pages.ipo_kto import page as ipo_kto_page
from lab.dashboard.pages.rlhf_dpo import page as rlhf_page
from lab.figures.panel_layout import panel_layout
from lab.figures.token_credit import CLIPPED_SURROGATE_NARROW_LAYOUT
from lab.site.live_figure import LiveFigure

KTO_BETA = 0.1
UNDESIRABLE_WEIGHT = 1.0
RLHF_TEXT = (
    "RLHF learns a reward, and then a policy that earns much of it and stays near the reference."
    " DPO learns the same policy from the preferences alone. The figure computes both exactly in a"
    " world of five responses. Drag β, the price of leaving the reference."
)


@dataclass(frozen=True)
class ExplorerPage:
    """A page of the site with figures of one page of the dashboard.

    name: of its file
    title, question, text: its heading in the navigation, the heading of the page, and the text below it
    """

    name: str
    title: str
    question: str
    text: str
    figures: tuple[LiveFigure, ...]


def explorer_pages() -> tuple[ExplorerPage, ...]:
    """All pages with live figures, in the order of the dashboard."""
    return (
        ExplorerPage("rlhf", "RLHF and DPO", rlhf_page.QUESTION, RLHF_TEXT, (_policies(),)),
        ExplorerPage(
            "dpo", "DPO", dpo_page.QUESTION, dpo_page.SENTENCE, (_dpo_loss(), _beta_runs())
        ),
        ExplorerPage(
            "ipo-kto",
            "IPO and KTO",
            ipo_kto_page.QUESTION,
            ipo_kto_page.SENTENCE,
            (_margins(), _kto()),
        ),
        ExplorerPage(
            "grpo",
            "GRPO",
            grpo_page.QUESTION,
            grpo_page.SENTENCE,
            (_group(), _clipping(), _thinking()),
        ),
    )


def thinned(slider: Slider, every: int) -> Slider:
    """The slider with every `every`-th of its values, its start and its presets."""
    kept = {*slider.values[::every], slider.start, *slider.presets}
    return replace(slider, values=tuple(value for value in slider.values if value in kept))


def _policies() -> LiveFigure:
    return LiveFigure(
        "rlhf-policies",
        "Five responses: the optimal policy of RLHF, and the minimum of DPO",
        "Computed by `lab.analysis.derivation` in a world of five responses.",
        rlhf_page.draw_policies,
        rlhf_page.policies_sentence,
        (rlhf_page.BETA_SLIDER,),
        rlhf_page.ALT_TEXT,
        narrow=rlhf_page.NARROW_LAYOUT,
    )


def _dpo_loss() -> LiveFigure:
    run, record = next(iter(loss_figure.recorded_dpo_runs().items()))
    step = Slider("step", "step of the recorded run", tuple(record["steps"]), start=50, play=True)
    return LiveFigure(
        "dpo-loss",
        "The loss along the margin, and the pairs of a recorded run",
        source_text(load_result("margins"), "h is not multiplied by β."),
        loss_figure.draw_loss,
        loss_figure.loss_sentence,
        (loss_figure.BETA_SLIDER, thinned(step, 3)),
        loss_figure.ALT_TEXT,
        (run,),
        loss_figure.NARROW_LAYOUT,
    )


def _beta_runs() -> LiveFigure:
    looks = tuple(beta_runs.beta_rows("dpo")[0]["steps"])
    return LiveFigure(
        "dpo-runs",
        "What β did to whole runs",
        source_text(load_result("beta"), "Bars are 95 % intervals."),
        beta_runs.draw_beta_runs,
        beta_runs.beta_sentence,
        (Slider("after", "after updates", looks, start=looks[-1], play=True),),
        beta_runs.ALT_TEXT,
        ("dpo", ()),
        beta_runs.NARROW_LAYOUT,
    )


def _margins() -> LiveFigure:
    return LiveFigure(
        "ipo-margin",
        "IPO: the margin has a target",
        "Computed by `lab.algorithms.losses` and descent with Adam"
        f" (step {margin_figure.STEP_SIZE:g}) from the reference, ½ and ½: the example"
        " with two actions in arXiv 2310.12036.",
        margin_figure.draw_losses_and_paths,
        margin_figure.margin_sentence,
        (margin_figure.BETA_SLIDER,),
        margin_figure.ALT_TEXT,
        narrow=margin_figure.NARROW_LAYOUT,
    )


def _draw_kto(z: float, up: float, percent: float) -> go.Figure:
    return kto_figure.draw_kto(z, up, UNDESIRABLE_WEIGHT, percent, KTO_BETA)


def _kto_sentence(z: float, up: float, percent: float) -> str:
    return kto_figure.kto_sentence(z, up, UNDESIRABLE_WEIGHT, percent, KTO_BETA)


def _kto() -> LiveFigure:
    return LiveFigure(
        "kto-value",
        "KTO: each completion is judged alone",
        f"`lab.algorithms.losses.kto` at β = {KTO_BETA:g}; arXiv 2402.01306, Eq. 7 and 8.",
        _draw_kto,
        _kto_sentence,
        (
            thinned(kto_figure.REFERENCE_POINT_SLIDER, 4),
            thinned(kto_figure.DESIRABLE_WEIGHT_SLIDER, 3),
            thinned(kto_figure.DESIRABLE_SHARE_SLIDER, 4),
        ),
        kto_figure.ALT_TEXT,
        narrow=kto_figure.NARROW_LAYOUT,
    )


def _group() -> LiveFigure:
    row = group_source.completion_pool()["rows"][0]
    source = group_source.from_pool(row, row["prompts"][0], "answer", 0)
    sizes = source.sizes
    return LiveFigure(
        "grpo-group",
        "A group of completions of one prompt",
        f"The prompt is `{source.prompt}`. {source.source}",
        grpo_page.draw_group,
        grpo_page.group_sentence,
        (Slider("G", "G, completions in the group", sizes, min(8, sizes[-1]), presets=sizes),),
        f"Rewards and advantages of a group of completions, best first, for G from {sizes[0]} to {sizes[-1]}.",
        grpo_page.figure_arguments(source),
    )


def _clipping() -> LiveFigure:
    sliders = (
        Slider("eps", "ε, below 1", clipping.EPSILONS, 0.2, presets=(0.2,)),
        Slider("eps_high", "ε_high, above 1", clipping.EPSILONS, 0.2, presets=(0.2, 0.28)),
    )
    return LiveFigure(
        "grpo-clipping",
        "Clipping: the objective of one token",
        "`lab.algorithms.losses.grpo`, the function that trains, on a grid of ρ with β = 0.",
        clipping.draw_clipped_loss,
        clipping.clipping_sentence,
        tuple(thinned(slider, 2) for slider in sliders),
        "The clipped surrogate of one token over its probability ratio, for A = 1 and A = −1.",
        narrow=CLIPPED_SURROGATE_NARROW_LAYOUT,
    )


def _thinking() -> LiveFigure:
    run = thinking.SHIPPED_GRPO_RUN
    steps = tuple(thinking.grpo_run_curves().columns["gold/accuracy"][0])
    one_column = panel_layout(thinking.THINKING_METRICS, 1, steps[-1])
    return LiveFigure(
        "grpo-thinking",
        "A recorded run that learns to think",
        source_text(json.loads((run.path / "recorded.json").read_text("utf-8"))),
        thinking.draw_thinking,
        thinking.thinking_sentence,
        (Slider("update", "update", steps, steps[-1], play=True),),
        f"Gold accuracy, share of scratchpads, length and loss over {steps[-1]} updates."
        f" {thinking.thinking_sentence(steps[0])} {thinking.thinking_sentence(steps[-1])}",
        narrow={name: value for name, value in one_column.items() if name != "template"},
    )
