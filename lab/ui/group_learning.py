"""Sections of page GRPO about the update: what is clipped, what each token gets, and a run that learns to think."""

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from lab.figures import tokens
from lab.figures.curves import RunCurves, layout, training_curves
from lab.figures.palette import METHOD_COLOURS
from lab.metrics import columns_of
from lab.paths import RECORDED
from lab.results import load_result
from lab.runs import RunFolder
from lab.ui import words
from lab.ui.drawn import Drawn
from lab.ui.explorer import Slider, explore
from lab.ui.page import figure, source

RATIOS = tuple(i / 50 for i in range(1, 101))
EPSILONS = tuple(i / 50 for i in range(26))
NATS = 3.0  # where the colours of a token's log-ratio end
THINKING = ("gold/accuracy", "gold/scratchpad_share", "gold/mean_length", "loss")


def draw_clipped(epsilon: float, epsilon_high: float) -> go.Figure:
    """The clipped loss at these two."""
    from lab.groups import clip_curves

    return tokens.clipped(RATIOS, clip_curves(epsilon, epsilon_high, RATIOS), epsilon, epsilon_high)


def say_clipped(epsilon: float, epsilon_high: float) -> str:
    """Where it is flat, in numbers."""
    return (f"A token of a better answer is pushed up until it is {1 + epsilon_high:.2f} times as likely as when it was sampled; one of a worse answer is pushed down "
            f"until it is {1 - epsilon:.2f} times as likely. A token that was 1 % likely can become {(1 + epsilon_high) / 100:.2%} in one rollout.").replace("%", " %").replace("1  %", "1 %")


def clipping() -> None:
    """The clipped objective of one token."""
    sliders = (Slider("eps", "ε, below 1", EPSILONS, 0.2, presets=(0.2,)), Slider("eps_high", "ε_high, above 1", EPSILONS, 0.2, presets=(0.2, 0.28)))
    explore(draw_clipped, says=say_clipped, key="clip", sliders=sliders, alt="The clipped surrogate of one token over its probability ratio, for A = 1 and A = −1.",
            narrow=tokens.STACKED)
    st.latex(r"-\mathcal{L}_t=\min\big(\rho_t A_i,\ \mathrm{clip}(\rho_t,\,1-\varepsilon,\,1+\varepsilon_{\mathrm{high}})\,A_i\big),\qquad\rho_t=\pi_\theta/\pi_{\mathrm{old}}")
    st.markdown("With one update per rollout, the lab's default, ρ is 1 at every token: the open circle, where nothing is clipped. Clipping matters only when a rollout "
                "is used again (`updates_per_rollout`). The clip is one-sided: a good token that has become rarer, or a bad one more likely, is always corrected. "
                "DAPO raises ε_high to 0.28 (arXiv 2503.14476) so that rare tokens can grow faster.")
    st.caption("`lab.objectives.grpo`, the function that trains, on a grid of ρ with β = 0.")


def token_view(drawn: Drawn, size: int) -> None:
    """One completion token by token, and what a token of each completion gets."""
    if not drawn.tokens:
        st.markdown("Log-probabilities of single tokens are recorded for the pool only. Pick one of its policies above.")
        return
    from lab.groups import advantages, token_credit

    order = sorted(range(size), key=lambda i: -drawn.rewards[i])
    left, right = st.columns([3, 2], vertical_alignment="bottom")
    place = left.selectbox("Completion", range(size), format_func=lambda i: f"{i + 1}: {drawn.texts[order[i]]}", key="completion")
    when = right.segmented_control("π is the policy", ("after training", "that wrote it"), default="after training", required=True, key="when", bind="query-params")
    row = drawn.tokens[order[place]]
    ratios = [a - b for a, b in zip(row["end_logps" if when == "after training" else "old_logps"], row["reference_logps"])]
    figure(tokens.log_ratios(row["tokens"], ratios, NATS), "log-ratios", "The tokens of one completion, coloured by their log-ratio.",
           pd.DataFrame({"token": row["tokens"], "log π − log π_ref, nats": ratios}))
    most = max(range(len(ratios)), key=lambda i: abs(ratios[i]))
    st.text(f"Whole completion: {sum(ratios):+.2f} nats in {len(ratios)} tokens. Most changed: token {most + 1}, “{row['tokens'][most]}”, {ratios[most]:+.2f} nats. "
            "‹ opens a scratchpad, › closes it; the last token ends the completion.")
    lengths, own = [len(drawn.tokens[i]["tokens"]) for i in order], advantages([drawn.rewards[i] for i in order], "group")
    found = {name: token_credit(own, lengths, name, 64) for name in tokens.REDUCTIONS}
    labels = [f"{i + 1}: {n}" for i, n in enumerate(lengths)]
    figure(tokens.credit(labels, found), "credit", "What one token of each completion gets under three reductions.",
           pd.DataFrame({"completion": [drawn.texts[i] for i in order], "tokens": lengths, "A": own} | {tokens.REDUCTIONS[n]: v for n, v in found.items()}))
    st.markdown("Every token of a completion gets the same credit, the lucky guess as much as the step that was wrong: GRPO does not know which token earned the reward. "
                "The reduction decides how much: `sequence_mean` divides by the completion's own length, so a token of a long wrong answer is pushed down less.")
    st.caption("Minus the gradient of `lab.objectives.grpo`, reduced, for that token's log-probability at ρ = 1; 64 tokens are the longest allowed.")
    source(load_result("pool"))


@st.cache_data(show_spinner=False)
def recorded_run() -> RunCurves:
    """The recorded GRPO run with the defaults."""
    folder = RunFolder(RECORDED / "grpo")
    rows = folder.history()
    return RunCurves("grpo", "grpo", "GRPO", columns_of(rows), [row for row in rows if row["type"] == "event"], steps=folder.config.steps)


def draw_thinking(step: int) -> go.Figure:
    """The run's curves, and a ring on each where the step is."""
    run = recorded_run()
    chart = training_curves([run], THINKING, columns=2)
    for place, name in enumerate(THINKING, 1):
        steps, values = run.columns[name]
        near = min(range(len(steps)), key=lambda i: abs(steps[i] - step))
        chart.add_scatter(x=[steps[near]], y=[values[near]], xaxis=f"x{place}", yaxis=f"y{place}", mode="markers", showlegend=False, hoverinfo="skip",
                          marker={"symbol": "circle-open", "size": 17, "color": METHOD_COLOURS["grpo"], "line": {"width": 3}})
    return chart


def say_thinking(step: int) -> str:
    """Where the run is at this update."""
    columns = recorded_run().columns
    at = {name: dict(zip(*columns[name])).get(step) for name in THINKING}
    loss = "" if at["loss"] is None else f" The loss reads {at['loss']:+.3f}.".replace("-", "−")
    return (f"After {step:g} updates {at['gold/accuracy']:.0%} of the held-out answers are right, {at['gold/scratchpad_share']:.0%} think first, and a completion has "
            f"{at['gold/mean_length']:.0f} tokens.").replace("%", " %") + loss


def thinking() -> None:
    """The recorded run that learns to think, step by step."""
    run = recorded_run()
    steps = tuple(run.columns["gold/accuracy"][0])
    one_column = layout(THINKING, 1, steps[-1])
    slider = Slider("update", "update", steps, steps[-1], play=True)
    step = explore(draw_thinking, says=say_thinking, key="thinking", sliders=(slider,), narrow={n: v for n, v in one_column.items() if n != "template"}, alt=(
        f"Gold accuracy, share of scratchpads, length and loss over {steps[-1]} updates. {say_thinking(steps[0])} {say_thinking(steps[-1])}"))["update"]
    st.markdown("Nothing in the reward mentions thinking; it pays 1 for a right answer. The base already thinks at times and is right more often when it does, so "
                "those completions lie above their group's mean: the rule amplifies a habit that was there. Nothing new is invented here.")
    st.caption(words.LOSS_SAYS_NOTHING)
    rows = [row for row in RunFolder(RECORDED / "grpo").samples() if row.get("held_out") and row["step"] == step]
    st.dataframe(pd.DataFrame({"prompt": [r["prompt"] for r in rows], "completion": [r["completion"] for r in rows], "gold": [r.get("answer", "") for r in rows],
                               "right": [bool(r.get("gold")) for r in rows]}), hide_index=True, key="thoughts")
