"""Sections of page GRPO about the update: what is clipped, what each token gets, and a run that
learns to think.
"""

import json

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from lab.dashboard.components.layout import figure, link, source
from lab.dashboard.components.slider_figure import Slider, explore
from lab.dashboard.pages.grpo.group_source import Drawn, pool
from lab.dashboard.state.shipped_runs import FOLDER
from lab.figures import token_credit as tokens
from lab.figures.palette import METHOD_COLOURS
from lab.figures.training_curves import RunCurves, axis, layout, training_curves
from lab.runs.folder import RunFolder
from lab.runs.metrics import columns_of
from lab.training.methods.grpo import GRPOConfig

WHEN = ("after 40 updates", "that wrote it")
RATIOS = tuple(i / 50 for i in range(1, 101))
EPSILONS = tuple(i / 50 for i in range(26))
LONGEST = GRPOConfig.max_completion_tokens
NATS = 3.0  # where the colours of a token's log-ratio end
RUN = RunFolder(FOLDER / "grpo")
LOSS_SAYS_NOTHING = (
    "With one update per rollout the GRPO loss does not measure progress: the ratio ρ is 1, so its"
    " value is fixed by rewards and lengths (exactly 0 with `sequence_mean`, since the advantages"
    " of a group sum to zero), while its gradient is not zero. Look at reward, gradient norm and KL"
    " instead."
)
THINKING = ("gold/accuracy", "gold/scratchpad_share", "gold/mean_length", "loss")


def draw_clipped(epsilon: float, epsilon_high: float) -> go.Figure:
    """The clipped loss at these two."""
    from lab.analysis.group_statistics import clip_curves

    return tokens.clipped(RATIOS, clip_curves(epsilon, epsilon_high, RATIOS), epsilon, epsilon_high)


def say_clipped(epsilon: float, epsilon_high: float) -> str:
    """Where it is flat, in numbers."""
    return (
        f"A token of a better answer is pushed up until it is {1 + epsilon_high:.2f} times as"
        " likely as when it was sampled; one of a worse answer is pushed down until it is"
        f" {1 - epsilon:.2f} times as likely. A token of probability 0.01 can become"
        f" {(1 + epsilon_high) / 100:.4g} in one rollout."
    )


def clipping() -> None:
    """The clipped objective of one token."""
    sliders = (
        Slider("eps", "ε, below 1", EPSILONS, 0.2, presets=(0.2,)),
        Slider("eps_high", "ε_high, above 1", EPSILONS, 0.2, presets=(0.2, 0.28)),
    )
    found = explore(
        draw_clipped,
        says=say_clipped,
        key="clip",
        sliders=sliders,
        narrow=tokens.STACKED,
        alt="The clipped surrogate of one token over its probability ratio, for A = 1 and A = −1.",
    )
    symbols = {"eps": r"\varepsilon", "eps_high": r"\varepsilon_{\mathrm{high}}"}
    low, high = (
        rf"\underbrace{{{found[name]:g}}}_{{{symbol}}}" for name, symbol in symbols.items()
    )
    with st.container(
        key="formula-new",
        horizontal=True,
        horizontal_alignment="center",
        vertical_alignment="center",
        gap="medium",
    ):
        st.latex(
            r"-\mathcal{L}_t=\min\big(\rho_t"
            rf" A_i,\,\mathrm{{clip}}(\rho_t,1-{low},1+{high})A_i\big)",
            width="content",
        )
        st.latex(r"\rho_t=\pi_\theta/\pi_{\mathrm{old}}", width="content")
    st.markdown(
        "With one update per rollout, the lab's default, ρ is 1 at every token: the open circle,"
        " where nothing is clipped. Clipping matters only when a rollout is used again"
        " (`updates_per_rollout`). The clip is one-sided: a good token that has become rarer, or a"
        " bad one that has become more likely, is always corrected. DAPO raises ε_high to 0.28"
        " (arXiv 2503.14476) so that rare tokens can grow faster."
    )
    st.caption("`lab.algorithms.losses.grpo`, the function that trains, on a grid of ρ with β = 0.")


def token_view(drawn: Drawn, size: int) -> None:
    """One completion token by token, and what a token of each completion gets."""
    if not drawn.tokens:
        st.markdown(
            "Log-probabilities of single tokens are recorded for the pool only. Pick one of its"
            " policies above."
        )
        return
    from lab.analysis.group_statistics import advantages, token_credit

    order = sorted(range(size), key=lambda i: -drawn.rewards[i])
    left, right = st.columns([3, 2], vertical_alignment="bottom")
    longest = max(range(size), key=lambda i: len(drawn.tokens[order[i]]["tokens"]))
    place = left.selectbox(
        "Completion",
        range(size),
        index=longest,
        format_func=lambda i: f"{i + 1}: {drawn.texts[order[i]]}",
        key="completion",
    )
    when = (
        right.segmented_control(
            "π is the policy", WHEN, default=WHEN[0], required=True, key="when", bind="query-params"
        )
        or WHEN[0]
    )
    row = drawn.tokens[order[place]]
    ratios = [
        a - b
        for a, b in zip(
            row["end_logps" if when == WHEN[0] else "old_logps"], row["reference_logps"]
        )
    ]
    figure(
        tokens.log_ratios(row["tokens"], ratios, NATS),
        "log-ratios",
        "The tokens of one completion, coloured by their log-ratio.",
        pd.DataFrame({"token": row["tokens"], "log π − log π_ref, nats": ratios}),
    )
    most = max(range(len(ratios)), key=lambda i: abs(ratios[i]))
    st.text(
        f"Whole completion: {sum(ratios):+.2f} nats in {len(ratios)} tokens. Most changed: token"
        f" {most + 1}, “{row['tokens'][most]}”, {ratios[most]:+.2f} nats. ‹ opens a scratchpad, ›"
        " closes it, ¶ ends the completion."
    )
    lengths, own = (
        [len(drawn.tokens[i]["tokens"]) for i in order],
        advantages([drawn.rewards[i] for i in order], "group"),
    )
    found = {name: token_credit(own, lengths, name, LONGEST) for name in tokens.REDUCTIONS}
    labels = [f"{i + 1}: {n}" for i, n in enumerate(lengths)]
    figure(
        tokens.credit(labels, found),
        "credit",
        "What one token of each completion gets under three reductions.",
        pd.DataFrame(
            {"completion": [drawn.texts[i] for i in order], "tokens": lengths, "A": own}
            | {tokens.REDUCTIONS[n]: v for n, v in found.items()}
        ),
    )
    st.markdown(
        "Every token of a completion gets the same credit, the step that went wrong as much as"
        " those that were right: GRPO does not know which token earned the reward. The reduction"
        " decides how much that is: `sequence_mean` divides by the completion's own length, so a"
        " token of a long wrong answer is pushed down less."
    )
    st.caption(
        "Minus the gradient of `lab.algorithms.losses.grpo`, reduced, for that token's"
        f" log-probability at ρ = 1; {LONGEST} tokens are the longest allowed."
    )
    source(pool())


@st.cache_data(show_spinner=False)
def recorded_run() -> RunCurves:
    """The recorded GRPO run with the defaults."""
    rows = RUN.history()
    return RunCurves(
        "grpo",
        "grpo",
        "GRPO",
        columns_of(rows),
        [row for row in rows if row["type"] == "event"],
        steps=RUN.config.steps,
    )


def draw_thinking(step: int) -> go.Figure:
    """The run's curves, and a ring on each where the step is."""
    run = recorded_run()
    chart = training_curves([run], THINKING, columns=2)
    for place, name in enumerate(THINKING, 1):
        steps, values = run.columns[name]
        near = min(range(len(steps)), key=lambda i: abs(steps[i] - step))
        chart.add_scatter(
            x=[steps[near]],
            y=[values[near]],
            xaxis=axis("x", place),
            yaxis=axis("y", place),
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


def say_thinking(step: int) -> str:
    """Where the run is at this update."""
    columns = recorded_run().columns
    at = {name: dict(zip(*columns[name])).get(step) for name in THINKING}
    loss = "" if at["loss"] is None else f" The loss reads {at['loss']:.3f}.".replace("-", "−")
    return (
        f"After {step:g} updates {at['gold/accuracy']:.0%} of the held-out answers are right,"
        f" {at['gold/scratchpad_share']:.0%} think first, and a completion has"
        f" {at['gold/mean_length']:.0f} tokens."
    ).replace("%", " %") + loss


def thinking() -> None:
    """The recorded run that learns to think, step by step."""
    run = recorded_run()
    steps = tuple(run.columns["gold/accuracy"][0])
    one_column = {
        name: value for name, value in layout(THINKING, 1, steps[-1]).items() if name != "template"
    }
    slider = Slider("update", "update", steps, steps[-1], play=True)
    alt = (
        f"Gold accuracy, share of scratchpads, length and loss over {steps[-1]} updates."
        f" {say_thinking(steps[0])} {say_thinking(steps[-1])}"
    )
    step = explore(
        draw_thinking,
        says=say_thinking,
        key="thinking",
        sliders=(slider,),
        narrow=one_column,
        alt=alt,
    )["update"]
    st.markdown(
        "The article: “DeepSeek-R1 used GRPO with rule-based rewards to train a model that"
        " exhibited emergent thinking capabilities”. Here the reward pays 1 for a right answer and"
        " mentions no thinking. But the base already thinks at times and is right more often when"
        " it does, so those completions lie above their group's mean: the rule amplifies a habit"
        " that was there. Nothing is invented from nothing."
    )
    losses = run.columns["loss"][1]
    st.markdown(
        f"Beside it the loss: {losses[0]:.2f} at the first update, {losses[-1]:.2f} at the last. ".replace(
            "-", "−"
        )
        + LOSS_SAYS_NOTHING
    )
    rows = [row for row in RUN.samples() if row.get("held_out") and row["step"] == step]
    st.text(f"What it wrote to held-out prompts after {step:g} updates:")
    st.dataframe(
        pd.DataFrame(
            {
                "prompt": [r["prompt"] for r in rows],
                "completion": [r["completion"] for r in rows],
                "gold": [r.get("answer", "") for r in rows],
                "right": [bool(r.get("gold")) for r in rows],
            }
        ),
        hide_index=True,
        key="thoughts",
    )
    facts = json.loads((RUN.path / "recorded.json").read_text("utf-8"))
    link("train", "Train", "Start this run yourself", method="grpo")
    source(
        facts, f"Run `{RUN.name}`, seed {RUN.config.seed}, {facts['seconds']:.0f} s of training."
    )
