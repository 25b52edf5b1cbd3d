"""The two architectures of page RLHF and DPO, side by side: one recorded update of each, step by
step, in numbers.
"""

from typing import Any

import pandas as pd
import streamlit as st

from lab.analysis.recorded_results import load_result
from lab.dashboard.components.layout import figure, in_url, source, theme
from lab.dashboard.components.svg_diagram import Arrow, Box, diagram
from lab.figures.palette import METHOD_COLOURS
from lab.figures.ppo_credit import critic_credit_figure

STEPS = {
    "generate": "1 Generate",
    "score": "2 Score",
    "value": "3 Value",
    "advantage": "4 Advantage",
    "update": "5 Update",
}
LAYOUTS = {"shared": "one shared base", "separate": "four sets of weights"}
SIZE = (484, 330)
LIT = {
    "generate": ({"policy", "completion", "writes"}, {"pair"}),
    "score": (
        {"reward model", "reference", "to reward model", "to reference"},
        {"policy", "reference", "to policy", "to reference"},
    ),
    "value": ({"critic", "to critic"}, set()),
    "advantage": (
        {"advantage", "from reward model", "from reference", "from critic"},
        {"loss", "from policy", "from reference"},
    ),
    "update": (
        {"policy", "critic", "advantage", "update", "update critic"},
        {"policy", "loss", "update"},
    ),
}
"""What is lit at each step, in RLHF and in DPO."""


@st.cache_data
def recorded() -> dict[str, Any]:
    """The recorded update of PPO and the one of DPO, and the table that they come from."""
    table = load_result("one_update")
    return {row["name"]: row for row in reversed(table["rows"])} | {"table": table}


def architectures() -> None:
    """Both architectures at the picked step; the step and the layout are in the URL."""
    st.subheader("One update of each, step by step", anchor=False)
    found = recorded()
    ppo, dpo = found["ppo"], found["dpo"]
    in_url("step", STEPS, "generate")
    in_url("layout", LAYOUTS, "shared")
    a, b, c = st.columns([9, 3, 10], vertical_alignment="bottom")
    step = a.segmented_control(
        "Step of the update",
        list(STEPS),
        format_func=STEPS.get,
        key="step",
        required=True,
        wrap=True,
    )
    b.button("Next step", key="next", on_click=advance, type="primary")
    layout = c.segmented_control(
        "RLHF keeps its models on",
        list(LAYOUTS),
        format_func=LAYOUTS.get,
        key="layout",
        required=True,
    )
    left, right = st.columns(2, gap="large")
    lit_ppo, lit_dpo = LIT[step]
    with left:
        text = ppo_says(step, ppo)
        st.markdown(f"**RLHF** (PPO): {total(ppo['memory'][layout])}")
        diagram(
            ppo_boxes(ppo, layout),
            PPO_ARROWS,
            lit_ppo,
            SIZE,
            f"RLHF, step {STEPS[step]}. {text}",
            theme(),
        )
        st.markdown(text)
    with right:
        text = dpo_says(step, dpo)
        st.markdown(f"**DPO**: {total(dpo['memory']['shared'])}")
        diagram(
            dpo_boxes(dpo), DPO_ARROWS, lit_dpo, SIZE, f"DPO, step {STEPS[step]}. {text}", theme()
        )
        st.markdown(text)
    if step in ("value", "advantage", "update"):
        figure(
            critic_credit_figure(ppo["tokens"], ppo["values"], ppo["advantages"], ppo["score"]),
            "credit",
            f"For each of {len(ppo['tokens'])} tokens the critic's value before it and the"
            f" advantage of writing it. {ppo_says('advantage', ppo)}",
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
    source(
        found["table"],
        f"Update {ppo['updates_before'] + 1} of a run; bytes are those of the tensors in memory:"
        " weights, and gradients with optimizer state.",
    )
    st.markdown(
        f"**The article says** that RLHF keeps 4 models on the GPU and DPO 2. {counted(ppo, dpo)}"
    )


def advance() -> None:
    """Callback: the next step; after the last the first."""
    names = list(STEPS)
    now = st.session_state.get("step")
    st.session_state["step"] = (
        names[(names.index(now) + 1) % len(names)] if now in names else names[0]
    )


def megabytes(count: int) -> str:
    """Such as "1.46 MB"."""
    return f"{count / 1e6:.2f} MB"


def total(memory: dict[str, dict[str, int]]) -> str:
    """Models and bytes of an algorithm."""
    weights, training = (
        sum(part[kind] for part in memory.values()) for kind in ("weights", "training")
    )
    return (
        f"{len(memory)} models, {megabytes(weights)} of weights, {megabytes(training)} to train"
        " them."
    )


def counted(ppo: dict[str, Any], dpo: dict[str, Any]) -> str:
    """Models as the algorithm counts them, and copies of the weights as memory does."""

    def bytes_of(memory: dict[str, dict[str, int]]) -> int:
        return sum(part["weights"] + part["training"] for part in memory.values())

    two, shared, separate = (
        bytes_of(dpo["memory"]["shared"]),
        bytes_of(ppo["memory"]["shared"]),
        bytes_of(ppo["memory"]["separate"]),
    )
    return (
        f"Counted in the code: {len(ppo['memory']['shared'])} and {len(dpo['memory']['shared'])}."
        " In bytes it depends on how they are kept: with LoRA the reference is the policy with its"
        " adapter off, and reward model and critic can be adapters on the same base. Measured,"
        f" RLHF takes {separate / two:.1f} times the bytes of DPO with four sets of weights and"
        f" {shared / two:.1f} times with a shared base."
    )


def held(memory: dict[str, dict[str, int]], name: str) -> tuple[str, ...]:
    """The two lines of a model's box: its weights, and what training them takes."""
    part = memory[name]
    weights = f"{megabytes(part['weights'])} weights" if part["weights"] else "policy, adapter off"
    return weights, f"+ {megabytes(part['training'])} to train" if part["training"] else "frozen"


def shorten(text: str, length: int) -> str:
    """`text` cut to `length` characters."""
    return text if len(text) <= length else text[: length - 1] + "…"


def ppo_boxes(row: dict[str, Any], layout: str) -> list[Box]:
    """The boxes of RLHF with their bytes."""
    colour, memory = METHOD_COLOURS["ppo"], row["memory"][layout]
    return [
        Box("policy", 24, 10, 166, 70, "Policy π", held(memory, "policy"), colour),
        Box(
            "completion",
            262,
            10,
            198,
            70,
            shorten(row["prompt"], 20),
            (shorten(row["completion"], 24),),
        ),
        Box(
            "reference",
            24,
            134,
            140,
            76,
            "Reference π_ref",
            held(memory, "reference"),
            colour,
            hollow=True,
        ),
        Box(
            "reward model",
            172,
            134,
            140,
            76,
            "Reward model",
            held(memory, "reward model"),
            colour,
            hollow=True,
        ),
        Box("critic", 320, 134, 140, 76, "Critic V", held(memory, "critic"), colour),
        Box("advantage", 132, 268, 220, 50, "Advantage A", ("of every token",), colour),
    ]


PPO_ARROWS = (
    Arrow("writes", ((190, 45), (262, 45)), "writes"),
    Arrow("to reference", ((361, 80), (361, 107), (94, 107), (94, 134))),
    Arrow("to reward model", ((361, 80), (361, 107), (242, 107), (242, 134))),
    Arrow("to critic", ((361, 80), (361, 107), (390, 107), (390, 134))),
    Arrow("from reference", ((94, 210), (94, 239), (200, 239), (200, 268))),
    Arrow("from reward model", ((242, 210), (242, 268))),
    Arrow("from critic", ((390, 210), (390, 239), (284, 239), (284, 268))),
    Arrow("update", ((132, 293), (10, 293), (10, 45), (24, 45))),
    Arrow("update critic", ((352, 293), (474, 293), (474, 172), (460, 172))),
)


def dpo_boxes(row: dict[str, Any]) -> list[Box]:
    """The boxes of DPO with their bytes."""
    colour, memory = METHOD_COLOURS["dpo"], row["memory"]["shared"]
    chosen, rejected = (row[side].removesuffix("<eos>") for side in ("chosen", "rejected"))
    return [
        Box(
            "pair",
            122,
            10,
            240,
            70,
            f"A pair: {shorten(row['prompt'], 18)}",
            (shorten(chosen, 30), f"before {shorten(rejected, 20)}"),
            hollow=True,
        ),
        Box("policy", 34, 134, 190, 76, "Policy π", held(memory, "policy"), colour),
        Box(
            "reference",
            260,
            134,
            190,
            76,
            "Reference π_ref",
            held(memory, "reference"),
            colour,
            hollow=True,
        ),
        Box("loss", 132, 268, 220, 50, "DPO loss", ("no reward model, no critic",), colour),
    ]


DPO_ARROWS = (
    Arrow("to policy", ((242, 80), (242, 107), (129, 107), (129, 134))),
    Arrow("to reference", ((242, 80), (242, 107), (355, 107), (355, 134))),
    Arrow("from policy", ((129, 210), (129, 239), (200, 239), (200, 268))),
    Arrow("from reference", ((355, 210), (355, 239), (284, 239), (284, 268))),
    Arrow("update", ((132, 293), (10, 293), (10, 172), (34, 172))),
)


def signed(value: float) -> str:
    """Two digits, with a minus sign that is one."""
    return f"{value:+.2f}".replace("-", "−")


def plain(value: float) -> str:
    """Two digits; no plus."""
    return f"{value:.2f}".replace("-", "−")


def ppo_says(step: str, row: dict[str, Any]) -> str:
    """What happens in RLHF at a step, with the recorded numbers."""
    best = max(range(len(row["tokens"])), key=lambda i: row["advantages"][i])
    others = [a for i, a in enumerate(row["advantages"]) if i != best]
    token, last = row["tokens"][best], row["metrics"]["last"]
    return {
        "generate": (
            f"The policy writes {len(row['tokens'])} tokens after `{row['prompt']}`:"
            f" `{row['completion']}`. The whole rollout has {row['completions']} completions,"
            f" {row['rollout_tokens']:,} tokens."
        ),
        "score": (
            f"The reward model gives the completion {plain(row['score'])}. Under the reference it"
            f" has log π_ref = {plain(sum(row['reference']))} nats, under the policy"
            f" {plain(sum(row['logps']))}: at β = {row['beta']:g} the difference takes"
            f" {plain(row['score'] - sum(row['rewards']))} away from the score."
        ),
        "value": (
            f"Before the first token the critic expects {plain(row['values'][0])}; after"
            f" `{row['tokens'][0]}` it expects {plain(row['values'][1])}, and before the last token"
            f" {plain(row['values'][-1])}."
        ),
        "advantage": (
            f"What came minus what was expected, token by token (GAE, λ = {row['lam']:g}):"
            f" `{token}` was worth {signed(row['advantages'][best])}, every other token between"
            f" {signed(min(others))} and {signed(max(others))}. The update makes tokens above zero"
            " more likely."
        ),
        "update": (
            f"{row['minibatches']} updates later log π of `{token}` is {plain(row['after'][best])}"
            f" instead of {plain(row['logps'][best])}, and the critic expects"
            f" {plain(row['values_after'][0])} at the start instead of {plain(row['values'][0])}."
            f" The ratio stays at {last['ratio']:.3f} on average;"
            f" {last['clip_ratio/region_mean']:.1%} of the tokens are clipped.".replace("%", " %")
        ),
    }[step]


def dpo_says(step: str, row: dict[str, Any]) -> str:
    """What happens in DPO at a step, with the recorded numbers."""
    (chosen, rejected), (ref_chosen, ref_rejected), (chosen_after, rejected_after) = (
        row["logps"],
        row["reference"],
        row["after"],
    )
    return {
        "generate": (
            "Nothing is generated: a pair is read that the base model wrote before training,"
            f" `{row['chosen'].removesuffix('<eos>')}` before"
            f" `{row['rejected'].removesuffix('<eos>')}`, one of {row['pairs']} in the batch."
        ),
        "score": (
            f"Policy and reference read both. Chosen: log π = {plain(chosen)}, log π_ref ="
            f" {plain(ref_chosen)}. Rejected: {plain(rejected)} and {plain(ref_rejected)} nats. The"
            " log-ratios are the reward: nobody else is asked."
        ),
        "value": "Nothing: there is no critic. The pair is its own baseline.",
        "advantage": (
            f"The margin h is {plain(row['margin'])} nats, so the loss −log σ(β·h) is"
            f" {row['loss']:.3f} at β = {row['beta']:g}, and its gradient pulls chosen up and"
            f" rejected down with weight {row['weight']:.3f}."
        ),
        "update": (
            f"One update later log π of the chosen completion is {plain(chosen_after)} instead of"
            f" {plain(chosen)}, of the rejected one {plain(rejected_after)} instead of"
            f" {plain(rejected)}; the pair's loss is {row['loss_after']:.3f}."
        ),
    }[step]
