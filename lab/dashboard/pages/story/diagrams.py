"""The diagrams of the story: both architectures, the group of cards, and the map of the methods."""

import random

import streamlit as st

from lab.config.number_text import signed_number
from lab.dashboard.components.step_diagram import DiagramStep, bars, described, verdict_list
from lab.dashboard.components.svg_diagram import Arrow, Box, svg
from lab.dashboard.pages.data_flow import ALT_TEXTS, FEATURES, flow_picture
from lab.dashboard.pages.map.methods import METHOD_NODES
from lab.dashboard.pages.rlhf_dpo.architectures import recorded_updates
from lab.dashboard.pages.rlhf_dpo.diagrams import LIT_ELEMENTS, megabytes_text
from lab.dashboard.pages.rlhf_dpo.step_text import dpo_step_text, ppo_step_text
from lab.figures.palette import METHOD_COLOURS

SIZE = (384, 284)
EXAMPLE_SEED = 0  # of the rewards beyond the article's eight
GROUP_SIZES = (4, 8, 16, 32)
LONGEST_BAR = 2.5  # standard deviations
RLHF, DPO = METHOD_COLOURS["ppo"], METHOD_COLOURS["dpo"]
RLHF_BOXES = (
    Box("policy", 18, 8, 122, 50, "Policy π", ("trained",), RLHF),
    Box("completion", 224, 8, 142, 50, "Completion y", ("after a prompt x",)),
    Box("reference", 12, 114, 116, 54, "Reference", ("frozen",), RLHF, hollow=True),
    Box("reward model", 134, 114, 116, 54, "Reward model", ("frozen",), RLHF, hollow=True),
    Box("critic", 256, 114, 116, 54, "Critic V", ("trained",), RLHF),
    Box("advantage", 112, 226, 160, 50, "Advantage A", ("of every token",), RLHF),
)
RLHF_ARROWS = (
    Arrow("writes", ((140, 33), (224, 33)), "writes"),
    Arrow("to reference", ((295, 58), (295, 86), (70, 86), (70, 114))),
    Arrow("to reward model", ((295, 58), (295, 86), (192, 86), (192, 114))),
    Arrow("to critic", ((295, 58), (295, 86), (314, 86), (314, 114))),
    Arrow("from reference", ((70, 168), (70, 198), (160, 198), (160, 226))),
    Arrow("from reward model", ((192, 168), (192, 226))),
    Arrow("from critic", ((314, 168), (314, 198), (224, 198), (224, 226))),
    Arrow("update", ((112, 251), (4, 251), (4, 33), (18, 33))),
    Arrow("update critic", ((272, 251), (380, 251), (380, 141), (372, 141))),
)
DPO_BOXES = (
    Box("pair", 92, 8, 200, 50, "A fixed pair", ("chosen and rejected",), hollow=True),
    Box("policy", 36, 114, 140, 54, "Policy π", ("trained",), DPO),
    Box("reference", 208, 114, 140, 54, "Reference", ("frozen",), DPO, hollow=True),
    Box("loss", 102, 226, 180, 50, "DPO loss", ("no reward, no critic",), DPO),
)
DPO_ARROWS = (
    Arrow("to policy", ((192, 58), (192, 86), (106, 86), (106, 114))),
    Arrow("to reference", ((192, 58), (192, 86), (278, 86), (278, 114))),
    Arrow("from policy", ((106, 168), (106, 198), (165, 198), (165, 226))),
    Arrow("from reference", ((278, 168), (278, 198), (219, 198), (219, 226))),
    Arrow("update", ((102, 251), (6, 251), (6, 141), (36, 141))),
)
WALK = {
    "generate": "1 Generate",
    "score": "2 Score",
    "value": "3 Value",
    "advantage": "4 Advantage",
    "update": "5 Update",
}


def architecture_steps(theme: str) -> list[DiagramStep]:
    """One recorded update of RLHF in five steps, then DPO."""
    updates = recorded_updates()
    steps = []
    for name, label in WALK.items():
        words = ppo_step_text(name, updates["ppo"]).replace("`", "")
        picture = svg(RLHF_BOXES, RLHF_ARROWS, LIT_ELEMENTS[name][0], SIZE, theme)
        html = described(picture, f"RLHF, step {label}") + resource_bars()
        steps.append(DiagramStep(name, label, html, words))
    lit = {name for step in WALK for name in LIT_ELEMENTS[step][1]}
    words = dpo_step_text("score", updates["dpo"]).replace("`", "")
    picture = described(svg(DPO_BOXES, DPO_ARROWS, lit, SIZE, theme), "DPO")
    return [*steps, DiagramStep("dpo", "DPO", picture + resource_bars(), words)]


def resource_bars() -> str:
    """The models and the recorded bytes of RLHF, with four sets of weights, and of DPO, as bars."""
    updates = recorded_updates()
    memories = {"RLHF": updates["ppo"]["memory"]["separate"], "DPO": updates["dpo"]["memory"]}
    memories["DPO"] = memories["DPO"]["shared"]
    size = {
        name: sum(model["weights"] + model["training"] for model in memory.values())
        for name, memory in memories.items()
    }
    colours, most = {"RLHF": RLHF, "DPO": DPO}, max(size.values())
    return bars(
        [
            (
                name,
                size[name] / most,
                f"{len(memory)} models, {megabytes_text(size[name])}",
                colours[name],
            )
            for name, memory in memories.items()
        ]
    )


@st.cache_data(show_spinner=False)
def group_steps() -> list[DiagramStep]:
    """The article's group of eight: sampled, scored, compared; then groups of other sizes. The first
    call imports torch.
    """
    steps = [
        DiagramStep("sample", "sample", cards(8, "sample"), "Eight completions of one prompt."),
        DiagramStep("score", "score", cards(8, "score"), "Each gets a reward."),
    ]
    for size in (8, 4, 16, 32):
        steps.append(
            DiagramStep(f"G{size}", f"G = {size}", cards(size, "advantage"), _group_text(size))
        )
    return steps


def example_rewards(size: int) -> list[float]:
    """The first `size` rewards of an example: the article's eight in random order, then others with the
    same mean and standard deviation.
    """
    from lab.analysis.group_statistics import ARTICLE_REWARDS, mean_and_std, shuffled_indices

    order = shuffled_indices(len(ARTICLE_REWARDS), EXAMPLE_SEED)
    mean, std = mean_and_std(ARTICLE_REWARDS, True)
    noise = random.Random(EXAMPLE_SEED)
    more = [noise.gauss(mean, std) for _ in range(max(GROUP_SIZES) - len(order))]
    return ([ARTICLE_REWARDS[i] for i in order] + more)[:size]


def cards(size: int, phase: str) -> str:
    """The cards of a group as HTML. `phase`: "sample", "score", or "advantage", where the cards are
    sorted and each has its advantage.
    """
    from lab.analysis.group_statistics import advantages_by_variant

    rewards = example_rewards(size)
    if phase == "advantage":
        rewards.sort(reverse=True)
    parts = []
    for i, (reward, advantage) in enumerate(
        zip(rewards, advantages_by_variant(rewards, "population"))
    ):
        score = f"<b>{reward:.1f}</b>" if phase != "sample" else f"<b>y{_subscript(i + 1)}</b>"
        if phase != "advantage":
            parts.append(f'<div class="lab-card" style="--i:{i}">{score}</div>')
            continue
        side = "above" if advantage > 0 else "below"
        style = f"--i:{i};--length:{min(1.0, abs(advantage) / LONGEST_BAR):.3f}"
        line = f'<i class="lab-track"></i><span>{signed_number(round(advantage, 2))}</span>'
        parts.append(
            f'<div class="lab-card" style="{style}" data-side="{side}">{score}{line}</div>'
        )
    return f'<div class="lab-cards" data-phase="{phase}">{"".join(parts)}</div>'


def _subscript(number: int) -> str:
    return str(number).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))


def _group_text(size: int) -> str:
    from lab.analysis.group_statistics import mean_and_std

    mean, std = mean_and_std(example_rewards(size), True)
    example = " These are the article's example." if size == 8 else ""
    return (
        f"On each card: reward, distance from the mean as a bar, and advantage. mean(r) = {mean:.2f},"
        f" std(r) = {std:.2f}.{example}"
    )


def flow_steps(theme: str) -> list[DiagramStep]:
    """Offline, then online, each with its advantages and issues."""
    return [
        DiagramStep(
            mode,
            mode.capitalize(),
            described(flow_picture(mode, theme), ALT_TEXTS[mode]) + verdict_list(*FEATURES[mode]),
        )
        for mode in FEATURES
    ]


MAP_BOXES = {
    "ppo": (4, 10, "RLHF", "four models"),
    "dpo": (136, 98, "DPO", "no reward model"),
    "ipo": (60, 188, "IPO", "a finite margin"),
    "kto": (212, 188, "KTO", "no pairs"),
    "grpo": (266, 10, "GRPO", "no critic"),
}
MAP_ARROWS = (
    Arrow("grpo", ((118, 36), (266, 36))),
    Arrow("dpo", ((61, 62), (61, 124), (136, 124))),
    Arrow("ipo", ((166, 150), (130, 188))),
    Arrow("kto", ((220, 150), (256, 188))),
)


def map_steps(theme: str) -> list[DiagramStep]:
    """The map of the article's methods, one method after the other."""
    boxes = [
        Box(name, x, y, 114, 52, title, (change,), METHOD_COLOURS[name])
        for name, (x, y, title, change) in MAP_BOXES.items()
    ]
    return [
        DiagramStep(
            name,
            title,
            described(
                svg(boxes, MAP_ARROWS, {name}, (384, 250), theme),
                f"Map of the methods; {title} is picked.",
            ),
            f"Solved: {METHOD_NODES[name].solved} Introduced: {METHOD_NODES[name].introduced}",
        )
        for name, (_, _, title, _) in MAP_BOXES.items()
    ]


def index_of(steps: list[DiagramStep], name: str) -> int:
    """The place of a step."""
    return [step.name for step in steps].index(name)
