"""Section of page GRPO: a recorded run that learns to think, step by step."""

import json

import plotly.graph_objects as go
import streamlit as st

from lab.dashboard.components.layout import page_link, source_caption
from lab.dashboard.components.sample_table import held_out_table
from lab.dashboard.components.slider_figure import Slider, slider_figure
from lab.dashboard.state.shipped_runs import SHIPPED_RUNS_FOLDER
from lab.figures.base import axis_name
from lab.figures.palette import METHOD_COLOURS
from lab.figures.panel_layout import panel_layout
from lab.figures.run_curves import RunCurves
from lab.figures.training_curves import training_curves
from lab.runs.folder import RunFolder
from lab.runs.records import columns_of

SHIPPED_GRPO_RUN = RunFolder(SHIPPED_RUNS_FOLDER / "grpo")
LOSS_SAYS_NOTHING = (
    "With one update per rollout the GRPO loss does not measure progress. The ratio ρ is 1, so only"
    " the rewards and the lengths of the rollout fix the loss. With `sequence_mean` it is exactly"
    " 0, because the advantages of a group sum to 0. But its gradient is not 0. Look at reward,"
    " gradient norm and KL instead."
)
THINKING_METRICS = ("gold/accuracy", "gold/scratchpad_share", "gold/mean_length", "loss")


@st.cache_data(show_spinner=False)
def grpo_run_curves() -> RunCurves:
    """The curves of the shipped GRPO run."""
    rows = SHIPPED_GRPO_RUN.history()
    return RunCurves(
        "grpo",
        "grpo",
        "GRPO",
        columns_of(rows),
        [row for row in rows if row["type"] == "event"],
        steps=SHIPPED_GRPO_RUN.config.steps,
    )


def draw_thinking(step: int) -> go.Figure:
    """The figure of the run's curves, with a ring on each curve at `step`."""
    run = grpo_run_curves()
    chart = training_curves([run], THINKING_METRICS, columns=2)
    for panel, name in enumerate(THINKING_METRICS, 1):
        steps, values = run.columns[name]
        nearest = min(range(len(steps)), key=lambda i: abs(steps[i] - step))
        chart.add_scatter(
            x=[steps[nearest]],
            y=[values[nearest]],
            xaxis=axis_name("x", panel),
            yaxis=axis_name("y", panel),
            mode="markers",
            showlegend=False,
            hoverinfo="skip",
            cliponaxis=False,
            marker={
                "symbol": "circle-open",
                "size": 17,
                "color": METHOD_COLOURS["grpo"],
                "line": {"width": 3},
            },
        )
    return chart


def thinking_sentence(step: int) -> str:
    """The run's measures after `step` updates, in a sentence."""
    columns = grpo_run_curves().columns
    measures = {name: dict(zip(*columns[name])).get(step) for name in THINKING_METRICS}
    loss = (
        ""
        if measures["loss"] is None
        else f" The loss is {measures['loss']:.3f}.".replace("-", "−")
    )
    return (
        f"After {step:g} updates, {measures['gold/accuracy']:.0%} of the held-out prompts get the"
        f" right answer, {measures['gold/scratchpad_share']:.0%} of the completions have a"
        " scratchpad (written working before the answer), and a completion has"
        f" {measures['gold/mean_length']:.0f} tokens on average."
    ).replace("%", " %") + loss


def thinking_section() -> None:
    """Show the run that learns to think, with a slider over its updates."""
    run = grpo_run_curves()
    steps = tuple(run.columns["gold/accuracy"][0])
    one_column = {
        name: value
        for name, value in panel_layout(THINKING_METRICS, 1, steps[-1]).items()
        if name != "template"
    }
    slider = Slider("update", "update", steps, steps[-1], play=True)
    alt = (
        f"Gold accuracy, share of scratchpads, length and loss over {steps[-1]} updates."
        f" {thinking_sentence(steps[0])} {thinking_sentence(steps[-1])}"
    )
    step = slider_figure(
        draw_thinking,
        sentence=thinking_sentence,
        key="thinking",
        sliders=(slider,),
        narrow=one_column,
        alt=alt,
    )["update"]
    st.markdown(
        "The article says: “DeepSeek-R1 used GRPO with rule-based rewards to train a model that"
        " exhibited emergent thinking capabilities”. Here the reward is 1 for a right answer, with"
        " or without a scratchpad. But the base model already writes some scratchpads, and with"
        " them it is right more often. So these completions lie above the mean of their group and"
        " become more likely. GRPO strengthens a habit that the base model already had."
    )
    losses = run.columns["loss"][1]
    st.markdown(
        f"The loss is {losses[0]:.2f} in the first update and {losses[-1]:.2f} in the last. ".replace(
            "-", "−"
        )
        + LOSS_SAYS_NOTHING
    )
    rows = [
        row for row in SHIPPED_GRPO_RUN.samples() if row.get("held_out") and row["step"] == step
    ]
    held_out_table(
        rows, f"After {step:g} updates: one completion for each of some held-out prompts"
    )
    origin = json.loads((SHIPPED_GRPO_RUN.path / "recorded.json").read_text("utf-8"))
    page_link("train", "Train", "Start this run yourself", method="grpo")
    source_caption(
        origin,
        f"Run `{SHIPPED_GRPO_RUN.name}`, seed {SHIPPED_GRPO_RUN.config.seed},"
        f" {origin['seconds']:.0f} s of training.",
    )
