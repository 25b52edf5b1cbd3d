"""The first four chapters of the story: RLHF, the derivation of DPO, its loss, and IPO and KTO."""

from lab.dashboard.components.step_diagram import step_diagram_data
from lab.dashboard.components.story import Chapter, StoryFigure, StoryStep
from lab.dashboard.pages.story import formulas
from lab.dashboard.pages.story.claims import claims, claims_of_section
from lab.dashboard.pages.story.curves import (
    DERIVATION_SLIDER,
    IPO_BETA_SLIDER,
    LOSS_SLIDER,
    REFERENCE_POINT_SLIDER,
    curve_figure,
    slider_index,
)
from lab.dashboard.pages.story.diagrams import architecture_steps, index_of

BETA_MARKS = {"β": (".lab-slider-head",)}


def architectures(theme: str) -> Chapter:
    """RLHF with its four models, one update of it, and DPO beside it."""
    steps = architecture_steps(theme)
    return Chapter(
        "rlhf",
        "RLHF needs four models, DPO two",
        (StoryFigure("steps", step_diagram_data("architectures", "One update of RLHF", steps)),),
        (
            StoryStep(
                "[RLHF] made ChatGPT possible. It runs four models: the [policy] writes a"
                " [completion], and three others look at it.\nPress Play to walk through one recorded"
                " [update], or go on reading.",
                index_of(steps, "generate"),
                claims=claims("four-models", "training-complexity"),
            ),
            StoryStep(
                "The [reward model] scores the [completion]. The [reference], a copy of the [policy]"
                " before training, shows how far the [policy] has moved.\nThe [reward model] learnt"
                " from pairs that people compared. Where it is wrong, the [policy] learns its mistake.",
                index_of(steps, "score"),
                claims=claims("reward-model-ceiling", "reward-model-exploited"),
            ),
            StoryStep(
                "The [critic] predicts the score before each token. The [advantage] says by how much"
                " the result beat this prediction.",
                index_of(steps, "advantage"),
            ),
            StoryStep(
                "PPO then changes [policy] and [critic] in small, clipped steps. β, the clip range and"
                " the learning rates must fit together.",
                index_of(steps, "update"),
                claims=claims(
                    "ppo-unstable", "tuning-epsilon", "tuning-learning-rate", "tuning-beta"
                ),
            ),
            StoryStep(
                "Can one skip the [reward model] and PPO, and train the [policy] on the pairs"
                " directly? DPO keeps the [policy] and the [reference], and nothing else.",
                index_of(steps, "dpo"),
                claims=claims("skip-reward-model", "two-models"),
            ),
        ),
    )


def derivation() -> Chapter:
    """From RLHF's objective to the reward in terms of the policy, where Z cancels."""

    def at(beta: float) -> int:
        return slider_index(DERIVATION_SLIDER, beta)

    return Chapter(
        "derivation",
        "The best policy knows its reward",
        (curve_figure("derivation"),),
        (
            StoryStep(
                "RLHF looks for the [policy] with the highest [reward] that stays near the"
                " [reference]. [β] is the price of distance: at β = 5 the best [policy] hardly moves.",
                at(5.0),
                formula=formulas.OBJECTIVE,
            ),
            StoryStep(
                "This problem has a solution on paper. The best [policy] multiplies the probability of"
                " each response by an exponential of its [reward]. At β = 1 good responses win.",
                at(1.0),
                formula=formulas.OPTIMUM,
                claims=claims("closed-form"),
            ),
            StoryStep(
                "Solve the same equation for the [reward]: from a [policy] you can compute the [reward]"
                " for which it is the best one. Only [Z] is unknown. At β = 0.2 the best [policy] writes"
                " one response almost every time.",
                at(0.2),
                formula=formulas.INVERSE,
                claims=claims("reward-from-policy"),
            ),
            StoryStep(
                "People compare two responses to the same [prompt]. In the difference of their"
                " [rewards|reward], [Z] occurs twice and cancels. The diamonds show the policy with"
                " the lowest DPO loss: they lie on the bars at every [β].",
                at(0.7),
                formula=formulas.CANCELLATION,
                claims=claims("z-cancels"),
            ),
        ),
        BETA_MARKS
        | {
            "reference": (
                ".barlayer .trace:nth-child(1) path",
                ".legend .traces:nth-child(1) .legendtext",
            ),
            "policy": (
                ".barlayer .trace:nth-child(2) path",
                ".legend .traces:nth-child(2) .legendtext",
            ),
            "loss": (".scatterlayer path.point", ".legend .traces:nth-child(3) .legendtext"),
        },
    )


def dpo_loss() -> Chapter:
    """The DPO loss at the article's values of β, and what the article says for and against DPO."""

    def at(beta: float) -> int:
        return slider_index(LOSS_SLIDER, beta)

    return Chapter(
        "loss",
        "One loss on fixed pairs",
        (curve_figure("loss"),),
        (
            StoryStep(
                "The DPO [loss] compares the [chosen and rejected] completion of a pair by one number,"
                " the [margin]. A larger [margin] means a smaller [loss].",
                at(0.1),
                formula=formulas.DPO_LOSS + formulas.MARGIN_FORMULA,
            ),
            StoryStep(
                "With a small [β] the curve is flat. It pushes gently, and it goes on pushing far to"
                " the right.",
                at(0.05),
                claims=claims("beta-deviation"),
            ),
            StoryStep(
                "With a larger [β] the curve is steeper: it reacts more to a difference, and it becomes"
                " flat at a smaller [margin]. All curves meet at a [margin] of 0, where the [loss] is log 2.",
                at(0.2),
                claims=claims("beta-steeper"),
            ),
            StoryStep(
                "The curve never stops falling: the [loss] always asks for a larger [margin], also of pairs that"
                " were wrongly labelled or that it has seen many times.",
                at(0.5),
                claims=claims_of_section(
                    "Advantages and issues of DPO", ("two-models", "distribution-shift")
                ),
            ),
        ),
        BETA_MARKS
        | {
            "margin": (".xtitle",),
            "loss": (".ytitle", ".scatterlayer .trace:nth-child(5) .js-line"),
            "chosen and rejected": (".annotation-text",),
        },
    )


def ipo_and_kto() -> Chapter:
    """IPO's finite margin, and KTO's single judgements."""

    def at(beta: float) -> int:
        return slider_index(IPO_BETA_SLIDER, beta)

    return Chapter(
        "ipo-kto",
        "IPO stops, KTO needs no pairs",
        (curve_figure("ipo"), curve_figure("kto")),
        (
            StoryStep(
                "IPO gives the [margin] a target, 1/(2β). With two responses of which one is always"
                " preferred, the [margin] rises for ever with DPO. With IPO it stops.",
                at(0.1),
                formula=formulas.IPO_LOSS,
            ),
            StoryStep(
                "[β] sets the target: at β = 0.05 it is 10 nats, twice as far.",
                at(0.05),
                claims=claims("ipo-margin", "ipo-overfitting"),
            ),
            StoryStep(
                "KTO needs no pairs. Each completion has a thumb up or down, and its [log-ratio] is"
                " compared with the [reference point] z.",
                slider_index(REFERENCE_POINT_SLIDER, 0),
                1,
                formulas.KTO_LOSS,
            ),
            StoryStep(
                "When the whole [policy] moves, z moves with it. So a completion must do better than"
                " the others.",
                slider_index(REFERENCE_POINT_SLIDER, 10),
                1,
                claims=claims("kto-unpaired", "kto-annotation"),
            ),
        ),
        BETA_MARKS
        | {
            "margin": (".ytitle",),
            "log-ratio": (".xtitle",),
            "reference point": (".annotation-text", ".shapelayer path", ".lab-slider-head"),
        },
    )
