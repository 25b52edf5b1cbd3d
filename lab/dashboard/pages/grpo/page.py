"""Page GRPO: how the rewards of a group become the advantages of its completions."""

import plotly.graph_objects as go
import streamlit as st

from lab.analysis.recorded_results import recorded_result
from lab.config.number_text import number_text, signed_number
from lab.dashboard.components.layout import cannot_show, page_heading, what_to_look_at
from lab.dashboard.components.quiz import quiz
from lab.dashboard.components.sample_table import completion_cell, sample_table
from lab.dashboard.components.slider_figure import Slider, slider_figure
from lab.dashboard.pages.grpo import arithmetic, sharpening
from lab.dashboard.pages.grpo.clipping import clipping_section
from lab.dashboard.pages.grpo.group_size import (
    dead_groups_section,
    error_and_cost_section,
    prediction_answer,
    scaling_section,
)
from lab.dashboard.pages.grpo.group_source import GroupSource, pick_group_source
from lab.dashboard.pages.grpo.own_prompt import own_group
from lab.dashboard.pages.grpo.thinking import thinking_section
from lab.dashboard.pages.grpo.token_credit import token_section
from lab.figures.groups import Group, group_figure

QUESTION = "Is this completion better than the rest of its group?"
SENTENCE = (
    "With GRPO the policy answers one prompt G times, and a rule gives each completion a reward."
    " GRPO compares each reward with the mean of its group. The difference, divided by the standard"
    " deviation (std), is the advantage. No critic is needed. Type a prompt, and make an update."
)
WORDS = (
    "policy",
    "reference",
    "base model",
    "completion",
    "rule",
    "group",
    "advantage",
    "dead group",
    "critic",
    "scratchpad",
    "rollout",
    "update",
    "gold accuracy",
    "held-out",
    "KL",
    "nat",
    "interval",
)
LOOK_AT = (
    "- **The mean depends on the group.** A right answer among many right ones has a small"
    " advantage. A single right answer has a large one. Press Resample, and compare an easy prompt"
    " with a hard one.\n"
    "- **The thin vertical lines** in the upper part are r − mean. Divided by the std (half the"
    " height of the grey band), they give the bars of the lower part.\n"
    "- **Dead groups.** When all rewards are equal, the std is 0 and every advantage is 0. Such a"
    " group teaches nothing.\n"
    "- **The reward “length”** scores the same completions by their length. Training with it"
    " would teach long texts, right or wrong."
)
CANNOT_SHOW = (
    "The lab measured one small model on one task with one right answer, which a rule can check. A"
    " reward model sometimes gives a wrong reward, and a larger group does not correct such errors."
    " The figures name no best G: with prompts that are rarely answered right, another G may do better."
)

GroupArguments = tuple[tuple[str, ...], tuple[float, ...], bool, tuple[int, ...]]


def page() -> None:
    """Show the page."""
    page_heading(QUESTION, SENTENCE, WORDS)
    source, size = shown_group()
    section = further_sections(source, size)
    what_to_look_at(LOOK_AT)
    limits = {arithmetic.TITLE: arithmetic.CANNOT_SHOW, sharpening.TITLE: sharpening.CANNOT_SHOW}
    cannot_show(f"{CANNOT_SHOW}\n\n{limits[section]}" if section in limits else CANNOT_SHOW)


def shown_group() -> tuple[GroupSource, int]:
    """Show the picker of the source and its group; returns the source and the size of the group."""
    source = pick_group_source()
    if source is not None:
        return source, recorded_group(source)
    answer = own_group()
    rows = answer["groups"][-1]["completions"]
    st.caption(
        "The base model samples here at temperature 1, with the same noise after every update. An"
        f" update is GRPO's, with learning rate {answer['learning_rate']:g}, on a scratch copy: the"
        " shipped model and the copies of other visitors stay as they are. The bar of a card is the"
        " probability of its text."
    )
    return (
        GroupSource(
            answer["prompt"],
            tuple(row["text"] for row in rows),
            tuple(row["reward"] for row in rows),
            "Your prompt",
        ),
        len(rows),
    )


def recorded_group(source: GroupSource) -> int:
    """Show a group of recorded completions, whose size a slider changes; returns the size."""
    quiz(
        "Before you drag: a group becomes four times as large. How does the random error of an"
        " advantage change?",
        ("to a quarter", "to half", "hardly"),
        lambda guess: st.markdown(prediction_answer(guess)),
        covers=("error", "error-table"),
    )
    sizes = source.sizes
    slider = Slider("G", "G, completions in the group", sizes, min(8, sizes[-1]), presets=sizes)
    size = int(
        slider_figure(
            draw_group,
            sentence=group_sentence,
            key="group",
            sliders=(slider,),
            arguments=figure_arguments(source),
            alt=(
                "Rewards and advantages of a group of completions, best first, for G from"
                f" {sizes[0]} to {sizes[-1]}. The table below holds the numbers."
            ),
        )["G"]
    )
    group_at_size = best_first_group(size, *figure_arguments(source))
    with st.container(
        key="formula",
        horizontal=True,
        horizontal_alignment="center",
        vertical_alignment="center",
        gap="medium",
    ):
        for formula in advantage_formula(group_at_size):
            st.latex(formula, width="content")
    st.caption(source.source)
    with st.expander("The completions of this group"):
        group_table(group_at_size)
    return size


def further_sections(source: GroupSource, size: int) -> str | None:
    """Show the picker of the further sections and the picked section; returns its name."""
    sections = {
        "Accuracy and cost": error_and_cost_section,
        "Scaling": lambda: scaling_section(source, size),
        "Dead groups": dead_groups_section,
        "Clipping": clipping_section,
        "Tokens": lambda: token_section(source, size),
        "Learning to think": thinking_section,
    }
    if recorded_result("pass_at_k"):
        sections[sharpening.TITLE] = sharpening.sharpening_section
    if recorded_result("arithmetic"):
        sections[arithmetic.TITLE] = arithmetic.arithmetic_section
    st.subheader("More about GRPO", anchor=False)
    section = st.segmented_control(
        "Section",
        list(sections),
        default="Accuracy and cost",
        key="more",
        bind="query-params",
        label_visibility="collapsed",
    )
    if section:
        sections[section]()
    return section


def figure_arguments(source: GroupSource) -> GroupArguments:
    """The arguments of `draw_group` and `group_sentence` after G."""
    return source.texts, source.rewards, source.population, source.sizes


def best_first_group(
    size: int,
    texts: tuple[str, ...],
    rewards: tuple[float, ...],
    population: bool,
    sizes: tuple[int, ...],
) -> Group:
    """The first `size` completions as a group, best reward first. `population`: whether advantages
    are divided by the population's std instead of the unbiased one.
    """
    from lab.analysis.group_statistics import advantages_by_variant, mean_and_std

    group_rewards = rewards[: int(size)]
    group_advantages = advantages_by_variant(group_rewards, "population" if population else "group")
    order = sorted(range(len(group_rewards)), key=lambda i: -group_rewards[i])
    return Group(
        [completion_label(texts[i]) for i in order],
        [texts[i] for i in order],
        [group_rewards[i] for i in order],
        [group_advantages[i] for i in order],
        *mean_and_std(group_rewards, population),
    )


def completion_label(text: str) -> str:
    """A completion in a few characters: its answer, after "…" if it has a scratchpad; the end of a
    text without an answer.
    """
    _, end_of_scratchpad, answer = text.rpartition("</think>")
    return ("…" if end_of_scratchpad else "") + answer.split(" ")[-1][-3:]


def draw_group(
    size: int,
    texts: tuple[str, ...],
    rewards: tuple[float, ...],
    population: bool,
    sizes: tuple[int, ...],
) -> go.Figure:
    """The figure of a group of G = `size`, on axes that are the same for every G."""
    groups = [best_first_group(other, texts, rewards, population, sizes) for other in sizes]
    return group_figure(best_first_group(size, texts, rewards, population, sizes), groups)


def group_sentence(
    size: int,
    texts: tuple[str, ...],
    rewards: tuple[float, ...],
    population: bool,
    sizes: tuple[int, ...],
) -> str:
    """What the figure shows at G = `size`, in numbers."""
    group_at_size = best_first_group(size, texts, rewards, population, sizes)
    above, below, _ = group_at_size.sides
    text = f"G = {size:g}: mean {group_at_size.mean:.3f}, std {group_at_size.std:.3f}. "
    if not above:
        return (
            text + "All rewards are equal, so every advantage is 0. This group is dead: it teaches"
            " nothing."
        )
    best = (
        f"({group_at_size.rewards[0]:.4g} − {group_at_size.mean:.3f}) / {group_at_size.std:.3f} ="
        f" {signed_number(group_at_size.advantages[0])}".replace(" ", "\u00a0")
    )
    return (
        text + f"{len(above)} of {size:g} completions lie above the"
        f" mean{thinking_count_text(group_at_size, above)} and become more likely. {len(below)} lie"
        f" below it{thinking_count_text(group_at_size, below)} and become less likely. The best"
        f" completion has the advantage A = {best}, the worst one"
        f" {signed_number(group_at_size.advantages[-1])}. All advantages together give 0."
    )


def thinking_count_text(group: Group, places: list[int]) -> str:
    """How many of the completions at `places` have a scratchpad; empty if no completion of the
    group has one.
    """
    has_scratchpad = [text.startswith("<think>") for text in group.texts]
    count = sum(has_scratchpad[i] for i in places)
    return f" ({count} with a scratchpad)" if any(has_scratchpad) else ""


def advantage_formula(group: Group) -> list[str]:
    """The advantage in LaTeX: the definition, then the best completion's advantage in numbers."""
    best = group.rewards[0]
    fraction = rf"\frac{{{best:.4g}-{group.mean:.3f}}}{{{group.std:.3f}}}"
    numbers = f"{fraction}={signed_number(group.advantages[0])}"
    return [
        r"A_i=\frac{r_i-\mathrm{mean}(r)}{\mathrm{std}(r)}",
        "A_1=" + (numbers if group.std else r"0\quad\text{(all rewards are equal)}"),
    ]


def group_table(group: Group) -> None:
    """Show the completions of a group with rewards and advantages."""
    rows = zip(group.texts, group.rewards, group.advantages)
    sample_table(
        f"G = {len(group.texts)} completions, the best reward first",
        "completions",
        ["reward r", "advantage A", "completion"],
        [
            {
                "reward r": {"text": number_text(reward)},
                "advantage A": {"text": signed_number(advantage)},
                "completion": completion_cell(completion, is_chain=False),
            }
            for completion, reward, advantage in rows
        ],
    )
