"""The last four chapters of the story: GRPO, offline and online, the map, and the resources."""

from lab.dashboard.components.step_diagram import step_diagram_data
from lab.dashboard.components.story import Chapter, StoryFigure, StoryStep
from lab.dashboard.pages.grpo.group_size import error_by_group_size
from lab.dashboard.pages.grpo.group_source import SLIDER_GROUP_SIZES
from lab.dashboard.pages.story import formulas
from lab.dashboard.pages.story.claims import claims
from lab.dashboard.pages.story.curves import resource_figures
from lab.dashboard.pages.story.diagrams import flow_steps, group_steps, index_of, map_steps


def groups() -> Chapter:
    """GRPO's group: sampled, scored, compared with its own mean; then other sizes."""
    steps = group_steps()
    error = dict(zip(SLIDER_GROUP_SIZES, error_by_group_size()[0]))
    return Chapter(
        "grpo",
        "GRPO compares a group with itself",
        (StoryFigure("steps", step_diagram_data("group", "Group of GRPO", steps)),),
        (
            StoryStep(
                "GRPO samples a [group] of G completions of the same [prompt] from the present"
                " [policy].",
                index_of(steps, "sample"),
            ),
            StoryStep(
                "A [rule] or a [reward model] gives each completion a [reward].",
                index_of(steps, "score"),
            ),
            StoryStep(
                "The mean of the [group] takes the place of the [critic]. The [advantage] is the"
                " distance from the mean in units of the [std]. A [clip] limits each [update], as in"
                " PPO.",
                index_of(steps, "G8"),
                formula=formulas.ADVANTAGE,
                claims=claims("no-critic", "ranking", "printed-advantages"),
            ),
            StoryStep(
                "A small [group] is cheap, but its mean is uncertain. On this lab's recorded"
                f" completions the error of an [advantage] is {error[4]:.2f} standard deviations at"
                " G = 4.",
                index_of(steps, "G4"),
                claims=claims("group-size"),
            ),
            StoryStep(
                f"It falls to {error[16]:.2f} at G = 16 and {error[32]:.2f} at G = 32. The cost of"
                " sampling grows in proportion to G.",
                index_of(steps, "G32"),
                claims=claims("larger-group", "linear-cost", "critic-memory", "emergent-thinking"),
            ),
        ),
        {
            "group": (".lab-card",),
            "advantage": (".lab-card span",),
            "reward": (".lab-card b",),
            "std": (".lab-says",),
        },
    )


def data_flow(theme: str) -> Chapter:
    """DPO's fixed pairs and GRPO's fresh samples, with what each is good at."""
    steps = flow_steps(theme)
    return Chapter(
        "offline-online",
        "Offline learns from the past, online from the present",
        (StoryFigure("steps", step_diagram_data("flow", "Where the data comes from", steps)),),
        (
            StoryStep(
                "DPO is offline ([online and offline]): the pairs are collected before training, and"
                " the [policy] never sees a judgement of what it writes now.",
                index_of(steps, "offline"),
                claims=claims("offline-data", "distribution-shift"),
            ),
            StoryStep(
                "GRPO is online: each [update] trains on completions that the [policy] has just"
                " written. This costs sampling, and something must give each one a [reward].",
                index_of(steps, "online"),
                claims=claims("online-no-shift"),
            ),
        ),
        {"reward": ('[data-name="reward"]',)},
    )


def evolution(theme: str) -> Chapter:
    """The map of the methods: each removes a part and brings a new weak point."""
    steps = map_steps(theme)
    texts = {
        "ppo": "[RLHF] came first. It turns comparisons into a [reward], and the [reward] into a"
        " [policy]. The price is four models.",
        "dpo": "DPO removes the [reward model] and the sampling. Its new problem: the data is old.",
        "ipo": "IPO ends the endless growth of the [margin]. Its new problem: somebody must choose the"
        " unit of the target.",
        "kto": "KTO removes the pairs. It brings a [reference point] that each batch can only estimate.",
        "grpo": "GRPO removes the [critic] and brings fresh data. It needs a [group] for each [prompt]"
        " and something that can score it.\nNo method is without a weak point: the choice depends on"
        " your data, your memory and your goal.",
    }
    judged = {
        "ppo": ("rlhf-best",),
        "dpo": ("dpo-fast", "dpo-stable"),
        "grpo": ("grpo-reasoning", "r1-potential", "grpo-stable", "no-perfect-method"),
    }
    return Chapter(
        "map",
        "Each method solves one problem and brings a new one",
        (StoryFigure("steps", step_diagram_data("map", "Methods", steps)),),
        tuple(
            StoryStep(texts[step.name], at, claims=claims(*judged.get(step.name, ())))
            for at, step in enumerate(steps)
        ),
        boxes={"RLHF": "ppo", "group": "grpo", "margin": "ipo", "reference point": "kto"},
    )


def resources(theme: str) -> Chapter:
    """The article's chart of models, memory and time beside the measured one."""
    texts = {
        "models": "The article counts the models: four for [RLHF], two for DPO and for GRPO. The lab's"
        " code has the same numbers. Hatched bars are the article's, filled bars are measured.",
        "memory": "About memory the article says that DPO needs 40 % and GRPO 60 % of [RLHF]. The article gives"
        " no source for these numbers. In this lab's small model most memory holds activations, which"
        " every method needs.",
        "time": "About training time it says 30 % and 60 %. The lab measured the time with [equal tokens],"
        " default settings and three [seeds|seed]. Hover or tap a bar to read it.",
    }
    judged = {
        "models": ("complexity", "data-requirements"),
        "memory": ("memory-dpo", "memory-grpo", "memory-order"),
        "time": ("time-dpo", "time-grpo", "online-ceiling"),
    }
    figures = resource_figures(theme)
    return Chapter(
        "resources",
        "What each method costs",
        tuple(figures),
        tuple(
            StoryStep(texts[panel], None, at, claims=claims(*judged[panel]))
            for at, panel in enumerate(
                figure.data["key"].removeprefix("story-") for figure in figures
            )
        ),
    )
