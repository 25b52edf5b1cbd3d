"""Page GRPO: what a group says about each of its completions."""

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from lab.analysis.recorded_results import recorded_result
from lab.dashboard.components.layout import (
    ask_prediction,
    cannot_show,
    page_heading,
    what_to_look_at,
)
from lab.dashboard.components.slider_figure import Slider, slider_figure
from lab.dashboard.pages.grpo import arithmetic
from lab.dashboard.pages.grpo.clipping import clipping_section
from lab.dashboard.pages.grpo.group_size import (
    dead_groups_section,
    error_and_cost_section,
    prediction_answer,
    scaling_section,
)
from lab.dashboard.pages.grpo.group_source import GroupSource, pick_group_source
from lab.dashboard.pages.grpo.token_credit import token_section
from lab.dashboard.pages.grpo.update import thinking_section
from lab.figures.groups import Group, group_figure, signed_number

QUESTION = "Is this answer better than its neighbours?"
SENTENCE = "GRPO lets the policy answer a prompt G times and scores every answer with a rule. What it learns from is only how far each reward lies from the mean of its own group, so no critic is needed. Drag G."
LOOK_AT = (
    "**The mean moves with the group.** A right answer among right ones is worth little, a lone"
    " right one much: press Resample, and compare an easy prompt with a hard one. **The stems** in"
    " the upper half are r − mean; divided by the std, the grey band, they become the bars of the"
    " lower half. **Dead groups:** when all rewards are equal the band closes, every advantage is 0"
    " and the group teaches nothing. **The reward “length”** scores the same completions by their"
    " length: what would be learnt then is to ramble. **The sum** of a group's advantages is 0, so"
    " the loss says nothing about progress (Learning to think)."
)
CANNOT_SHOW = "One small model, one task with one right answer and a rule that can check it. With a reward model in place of the rule the rewards themselves are wrong at times, and no group, however large, averages that out. The size at which G stops to pay depends on how many prompts are neither solved nor hopeless."


def page() -> None:
    """The page from top to bottom."""
    page_heading(QUESTION, SENTENCE)
    guess = ask_prediction(
        "Before you drag: in groups four times as large, the error of an advantage falls",
        ("to a quarter", "to half", "hardly"),
    )
    drawn = pick_group_source()
    sizes = drawn.sizes
    slider = Slider("G", "G, completions in the group", sizes, min(8, sizes[-1]), presets=sizes)
    size = int(
        slider_figure(
            draw_group,
            says=group_sentence,
            key="group",
            sliders=(slider,),
            given=figure_arguments(drawn),
            alt=(
                f"Rewards and advantages of a group of completions, best first, for G from {sizes[0]} to {sizes[-1]}. The table below holds the numbers."
            ),
        )["G"]
    )
    found = best_first_group(size, *figure_arguments(drawn))
    with st.container(
        key="formula",
        horizontal=True,
        horizontal_alignment="center",
        vertical_alignment="center",
        gap="medium",
    ):
        for part in advantage_formula(found):
            st.latex(part, width="content")
    if guess:
        st.markdown(prediction_answer(guess))
    st.caption(drawn.source)
    with st.expander("The completions of this group"):
        st.dataframe(
            group_table(found),
            hide_index=True,
            key="completions",
            column_config={
                "reward r": st.column_config.NumberColumn(format="%.3g"),
                "advantage A": st.column_config.NumberColumn(format="%+.3f"),
            },
        )
    picked = further_sections(drawn, size)
    what_to_look_at(LOOK_AT)
    cannot_show(
        f"{CANNOT_SHOW}\n\n{arithmetic.CANNOT_SHOW}" if picked == arithmetic.TITLE else CANNOT_SHOW
    )


def further_sections(drawn: GroupSource, size: int) -> str | None:
    """The section that is picked, and its name."""
    sections = {
        "Accuracy and cost": error_and_cost_section,
        "Scaling": lambda: scaling_section(drawn, size),
        "Dead groups": dead_groups_section,
        "Clipping": clipping_section,
        "Tokens": lambda: token_section(drawn, size),
        "Learning to think": thinking_section,
    } | ({arithmetic.TITLE: arithmetic.arithmetic_section} if recorded_result("arithmetic") else {})
    st.subheader("Further", anchor=False)
    picked = st.segmented_control(
        "Further",
        list(sections),
        default="Accuracy and cost",
        key="more",
        bind="query-params",
        label_visibility="collapsed",
    )
    if picked:
        sections[picked]()
    return picked


def figure_arguments(drawn: GroupSource) -> tuple:
    """What the figure of a group is made of, beside G."""
    return drawn.texts, drawn.rewards, drawn.population, drawn.sizes


def best_first_group(
    size: int,
    texts: tuple[str, ...],
    rewards: tuple[float, ...],
    population: bool,
    sizes: tuple[int, ...],
) -> Group:
    """The first `size` completions as a group, the best reward first."""
    from lab.analysis.group_statistics import advantages_by_variant, mean_and_std

    own = rewards[: int(size)]
    found = advantages_by_variant(own, "population" if population else "group")
    order = sorted(range(len(own)), key=lambda i: -own[i])
    return Group(
        [completion_label(texts[i]) for i in order],
        [texts[i] for i in order],
        [own[i] for i in order],
        [found[i] for i in order],
        *mean_and_std(own, population),
    )


def completion_label(text: str) -> str:
    """A completion in a few letters: its answer, after … when it thought first; of text without an
    answer the end.
    """
    _, thought, prediction_answer = text.rpartition("</think>")
    return ("…" if thought else "") + prediction_answer.split(" ")[-1][-3:]


def draw_group(size: int, *drawn) -> go.Figure:
    """The figure of a group of G, on axes that hold those of every G."""
    return group_figure(
        best_first_group(size, *drawn), [best_first_group(other, *drawn) for other in drawn[-1]]
    )


def group_sentence(size: int, *drawn) -> str:
    """What the figure shows at this G, in numbers."""
    found = best_first_group(size, *drawn)
    above, below, _ = found.sides
    text = f"G = {size:g}: mean {found.mean:.3f}, std {found.std:.3f}. "
    if not above:
        return (
            text
            + "All rewards are equal, so every advantage is 0: a dead group, from which nothing is learnt."
        )
    best = f"({found.rewards[0]:.4g} − {found.mean:.3f}) / {found.std:.3f} = {signed_number(found.advantages[0])}".replace(
        " ", "\u00a0"
    )
    return (
        text
        + f"{len(above)} of {size:g} lie above the mean{thinking_count_text(found, above)} and become more likely, {len(below)} below it{thinking_count_text(found, below)} and become less likely. The best has A = {best}, the worst {signed_number(found.advantages[-1])}; the sum is 0."
    )


def thinking_count_text(found: Group, places: list[int]) -> str:
    """How many of these thought before they answered; nothing of a group in which none did."""
    thought = [text.startswith("<think>") for text in found.texts]
    return f" ({sum(thought[i] for i in places)} thought first)" if any(thought) else ""


def advantage_formula(found: Group) -> list[str]:
    """The advantage in LaTeX: of any completion, then of the best one with the numbers in their
    places.
    """
    numbers = rf"\frac{{{found.rewards[0]:.4g}-{found.mean:.3f}}}{{{found.std:.3f}}}={signed_number(found.advantages[0])}"
    return [
        r"A_i=\frac{r_i-\mathrm{mean}(r)}{\mathrm{std}(r)}",
        "A_1=" + (numbers if found.std else r"0\quad\text{(all rewards are equal)}"),
    ]


def group_table(found: Group) -> pd.DataFrame:
    """The group as a table."""
    return pd.DataFrame(
        {"completion": found.texts, "reward r": found.rewards, "advantage A": found.advantages}
    )
