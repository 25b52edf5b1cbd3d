"""Section of page RLHF and DPO: both architectures side by side, with one recorded update of each,
step by step.
"""

import re
from html import escape
from typing import Any

import streamlit as st

from lab.analysis.recorded_results import load_result
from lab.dashboard.components.layout import figure, source_caption, theme, url_choice
from lab.dashboard.components.step_diagram import DiagramStep, bars, described, step_diagram
from lab.dashboard.components.svg_diagram import svg
from lab.dashboard.pages.rlhf_dpo.diagrams import (
    DIAGRAM_SIZE,
    DPO_ARROWS,
    LIT_ELEMENTS,
    PPO_ARROWS,
    dpo_boxes,
    megabytes_text,
    ppo_boxes,
)
from lab.dashboard.pages.rlhf_dpo.step_text import dpo_step_text, ppo_step_text
from lab.figures.palette import METHOD_COLOURS
from lab.figures.ppo_credit import critic_credit_figure

STEP_LABELS = {
    "generate": "1 Generate",
    "score": "2 Score",
    "value": "3 Value",
    "advantage": "4 Advantage",
    "update": "5 Update",
}
LAYOUT_LABELS = {"shared": "one shared base", "separate": "four sets of weights"}


@st.cache_data
def recorded_updates() -> dict[str, Any]:
    """The recorded updates under "ppo" and "dpo", and under "table" the result that holds them."""
    table = load_result("one_update")
    return {row["name"]: row for row in reversed(table["rows"])} | {"table": table}


def architectures_section() -> None:
    """Show one recorded update of RLHF and of DPO, which the reader walks through; step and layout are
    in the URL.
    """
    st.subheader("One update of each, step by step", anchor=False)
    updates = recorded_updates()
    ppo, dpo = updates["ppo"], updates["dpo"]
    step = url_choice("step", STEP_LABELS, "generate")
    layout = url_choice("layout", LAYOUT_LABELS, "shared")
    st.segmented_control(
        "Weights of RLHF's models",
        list(LAYOUT_LABELS),
        format_func=LAYOUT_LABELS.__getitem__,
        key="layout",
        required=True,
    )
    steps = [
        DiagramStep(name, label, architectures_html(name, layout, theme()))
        for name, label in STEP_LABELS.items()
    ]
    at = list(STEP_LABELS).index(step)
    step_diagram("architectures", "Step of the update", steps, at, keep_step)
    if step in ("value", "advantage", "update"):
        credit_figure(ppo)
    source_caption(
        updates["table"],
        f"This is update {ppo['updates_before'] + 1} of a recorded run. The bytes count the tensors"
        " in memory: the weights, and to train them their gradients and optimizer state.",
    )
    st.markdown(
        "**The article says** that RLHF keeps 4 models on the GPU and DPO keeps 2."
        f" {model_count_sentence(ppo, dpo)}"
    )


def architectures_html(step: str, layout: str, theme_name: str) -> str:
    """Both architectures side by side at a step, what happens there, and their bytes as bars."""
    updates, (lit_ppo, lit_dpo) = recorded_updates(), LIT_ELEMENTS[step]
    ppo, dpo = updates["ppo"], updates["dpo"]
    memories = {"ppo": ppo["memory"][layout], "dpo": dpo["memory"]["shared"]}
    columns = (
        (
            "RLHF (PPO)",
            "ppo",
            ppo_boxes(ppo, layout),
            PPO_ARROWS,
            lit_ppo,
            ppo_step_text(step, ppo),
        ),
        ("DPO", "dpo", dpo_boxes(dpo), DPO_ARROWS, lit_dpo, dpo_step_text(step, dpo)),
    )
    most = max(map(bytes_of, memories.values()))
    parts = []
    for title, method, boxes, arrows, lit, text in columns:
        picture = svg(boxes, arrows, lit, DIAGRAM_SIZE, theme_name)
        size = bytes_of(memories[method])
        row = ("memory", size / most, megabytes_text(size), METHOD_COLOURS[method])
        parts.append(
            f"<div><h4>{title}: {memory_total_text(memories[method])}</h4>{bars([row])}"
            f"{described(picture, f'{title}, step {STEP_LABELS[step]}')}<p>{code_html(text)}</p></div>"
        )
    return f'<div class="lab-pair">{"".join(parts)}</div>'


def code_html(text: str) -> str:
    """A text as HTML, its parts between backticks as code."""
    return re.sub("`([^`]*)`", r"<code>\1</code>", escape(text, False))


def keep_step() -> None:
    """Callback: store the step that the browser reports."""
    step = st.session_state["architectures"].get("step")
    if step in STEP_LABELS:
        st.session_state["step"] = step


def credit_figure(ppo: dict[str, Any]) -> None:
    """Show the critic's value and the advantage of every token of the recorded completion."""
    import pandas as pd

    figure(
        critic_credit_figure(ppo["tokens"], ppo["values"], ppo["advantages"], ppo["score"]),
        "credit",
        f"For each of {len(ppo['tokens'])} tokens: the critic's prediction before the token, and the"
        f" advantage of the token. {ppo_step_text('advantage', ppo)}",
        pd.DataFrame(
            {
                "token": ppo["tokens"],
                "log π": ppo["logps"],
                "log π_ref": ppo["reference"],
                "reward r": ppo["rewards"],
                "value V": ppo["values"],
                "advantage A": ppo["advantages"],
                "log π after": ppo["after"],
            }
        ),
    )


def bytes_of(memory: dict[str, dict[str, int]]) -> int:
    """The bytes of all models of an algorithm."""
    return sum(model["weights"] + model["training"] for model in memory.values())


def memory_total_text(memory: dict[str, dict[str, int]]) -> str:
    """The number of models of an algorithm and their bytes, as text."""
    weights, training = (
        sum(model[kind] for model in memory.values()) for kind in ("weights", "training")
    )
    return (
        f"{len(memory)} models, {megabytes_text(weights)} of weights, and"
        f" {megabytes_text(training)} to train them."
    )


def model_count_sentence(ppo: dict[str, Any], dpo: dict[str, Any]) -> str:
    """The number of models in each algorithm, and the bytes of RLHF relative to DPO."""
    two, shared, separate = (
        bytes_of(dpo["memory"]["shared"]),
        bytes_of(ppo["memory"]["shared"]),
        bytes_of(ppo["memory"]["separate"]),
    )
    return (
        f"The lab's code has {len(ppo['memory']['shared'])} models for RLHF and"
        f" {len(dpo['memory']['shared'])} for DPO. The bytes depend on how the models are stored."
        " With LoRA adapters, the reference is the policy with its adapter switched off, and the"
        " reward model and the critic can be adapters on the same base. Measured, RLHF needs"
        f" {separate / two:.1f} times the bytes of DPO with four sets of weights, and"
        f" {shared / two:.1f} times with one shared base."
    )
