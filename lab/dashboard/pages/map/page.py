"""Page Map: how the methods follow from each other, and each method's claims beside measurements."""

import streamlit as st

from lab.analysis.claims.claim import Measurement
from lab.analysis.claims.records import Records
from lab.analysis.claims.table import CLAIMS, claims_about
from lab.analysis.recorded_results import Comparison
from lab.analysis.tuned_view import TunedView, tuned_view
from lab.config.json_format import to_dict
from lab.config.methods import METHODS, make_config
from lab.dashboard.components import text as words
from lab.dashboard.components.layout import (
    cannot_show,
    figure,
    page_heading,
    page_link,
    source_caption,
    theme,
    url_choice,
    what_to_look_at,
)
from lab.dashboard.components.quiz import quiz
from lab.dashboard.pages.map.graph import NODE_TITLES, method_graph
from lab.dashboard.pages.map.methods import METHOD_NODES
from lab.dashboard.state.run_cache import run_record
from lab.dashboard.state.shipped_runs import shipped_run
from lab.figures.palette import METHOD_NAMES
from lab.figures.run_curves import RunCurves
from lab.figures.training_curves import training_curves
from lab.runs.metrics import METRICS

QUESTION = "Which problem did each method solve, and which new one did it bring?"
SENTENCE = (
    "The methods train a language model on feedback. RLHF came first. Each later method removes a"
    " part of an earlier one and has a new weak point instead. Pick a method on the map. Below it,"
    " each claim of the article stands beside the lab's own measurement."
)
WORDS = (
    "policy",
    "reference",
    "base model",
    "RLHF",
    "SFT",
    "reward model",
    "critic",
    "rule",
    "gold accuracy",
    "held-out",
    "KL",
    "nat",
    "scratchpad",
    "equal tokens",
    "seed",
    "interval",
)
CURVE_PANELS = ("gold/accuracy", "gold/kl")


def page() -> None:
    """Show the page."""
    page_heading(QUESTION, SENTENCE, WORDS)
    measured = tuned_comparison()
    quiz(
        "Before you look: each method has its best setting and equally many tokens, and a rule checks"
        " the answers. Which method ends with the highest accuracy?",
        ("RLHF (PPO)", "DPO", "GRPO", "no sure difference"),
        lambda guess: st.markdown(prediction_answer(guess, measured)),
    )
    method = url_choice("method", METHOD_NODES, next(iter(METHOD_NODES)))
    method_graph(method)
    st.segmented_control(
        "Method",
        list(METHOD_NODES),
        format_func=lambda name: NODE_TITLES[name],
        key="method",
        required=True,
        label_visibility="collapsed",
    )
    method_section(method, measured)
    claims_section(method)
    what_to_look_at(
        "Open a claim and read its numbers. There are five verdicts. **Holds**: it follows from the"
        " formulas or the code. **Holds here** and **fails here**: the lab's measurement supports or"
        " contradicts it. **Not decided here**: the difference could be chance; comparisons that belong"
        " together are corrected for their number (Holm). **Cannot be tested here**: the lab does not"
        " have what the claim speaks about. Read also the new problem of each method: none is without"
        " one."
    )
    cannot_show(
        f"The lab measured one small model on one task with an answer that can be checked, with"
        f" {measured.seeds} seeds. The order of the methods may differ on a large model, on"
        " open text or with human preferences. It also depends on the view: the page Choose a method"
        " shows default settings and equal KL beside it. Each claim names the records behind its numbers."
        " The arrows of the map show ideas, not dates: GRPO and online DPO appeared in the same month,"
        " February 2024."
    )


@st.cache_data
def tuned_comparison() -> TunedView:
    """All methods with tuned settings, at equal tokens."""
    return tuned_view("tokens")


@st.cache_resource(show_spinner=False)
def recorded() -> Records:
    """The records that measure the claims; each is read once."""
    return Records()


@st.cache_data
def measured_claim(key: str) -> tuple[Measurement, list[str]]:
    """The measurement of a claim and the commands that repeat it. A few of DPO's load torch."""
    claim, records = CLAIMS[key], recorded()
    return claim.measure(records), claim.commands(records)


def claims_section(method: str) -> None:
    """Show each claim about the method, with its verdict; its numbers and command open with a press."""
    st.markdown(f"**What the article says about {NODE_TITLES[method]}, and what the lab measured**")
    for claim in claims_about(method):
        measurement, commands = measured_claim(claim.key)
        with st.expander(f"**{measurement.verdict.capitalize()}:** “{claim.sentence}”"):
            st.markdown(measurement.text)
            st.caption("Measure again: " + "; ".join(f"`{command}`" for command in commands))


def method_section(method: str, measured: Comparison) -> None:
    """Show the selected method: what it solved and introduced, its loss, links and a shipped run."""
    node = METHOD_NODES[method]
    left, right = st.columns([1, 1], gap="large")
    with left:
        st.subheader(NODE_TITLES[method], anchor=False)
        st.markdown(f"**Problem solved.** {node.solved}")
        st.markdown(f"**New problem.** {node.introduced}")
        with st.container(
            key="formula", horizontal=True, vertical_alignment="center", gap="medium"
        ):
            for formula in METHODS[method].formula(to_dict(make_config(method))):
                st.latex(formula, width="content")
        with st.container(horizontal=True, gap="medium"):
            page_link("train", "Train", f"Try it: train {METHOD_NAMES[method]}", method=method)
            page_link(*node.page, f"Look inside: {node.page[1]}")
    with right:
        shipped_run_section(method, node.arm, measured)
    source_caption(
        measured.table,
        "Each method has the best of twelve settings and 60,000 completion tokens, sampled or trained"
        " on. The number behind ± is half the width of the 95 % interval over seeds and test prompts."
        " The recorded run and the claims have other settings: their texts name them.",
    )


def shipped_run_section(method: str, arm: str, measured: Comparison) -> None:
    """Show the result of the method's arm in the comparison, and the curves of a shipped run of the
    method if there is one.
    """
    import pandas as pd

    st.markdown(
        f"{measured.title(arm)}: gold accuracy (the share of right answers on held-out prompts) goes"
        f" from {measured.base['gold/accuracy']:.2f} to **{measured.text(arm)}**. KL, the distance"
        f" from the reference, ends at {measured.text(arm, 'kl')} nats. The policy sampled"
        f" {measured.mean(arm, 'sampled'):,.0f} completion tokens in training, and"
        f" {measured.mean(arm, 'trained'):,.0f} were trained on."
    )
    run = shipped_run(method)
    if run is None:
        return
    now = run_record(str(run.path)).snapshot()
    panels = [name for name in CURVE_PANELS if name in now.columns]
    curves = RunCurves(run.name, method, run.name, now.columns, now.events, 0, now.config["steps"])
    table = pd.DataFrame(
        {"step": now.columns[panels[0]][0]}
        | {METRICS[name].label: now.columns[name][1] for name in panels}
    )
    text = words.run_caption(now)
    figure(
        training_curves([curves], panels, columns=2, theme=theme()),
        "recorded",
        f"Recorded run {run.name}. {text}",
        table,
    )
    st.caption(f"Recorded run `{run.name}`. {text}")


def prediction_answer(guess: str, measured: Comparison) -> str:
    """The guessed best method beside the measured one."""
    best, told = _most_accurate(measured)
    return (
        f"{'Right' if guess == best else f'You said {guess}'}. PPO reaches"
        f" {measured.text('ppo@gold')}, GRPO {measured.text('grpo')} and DPO"
        f" {measured.text('dpo')}. {told}"
    )


def _most_accurate(measured: Comparison) -> tuple[str, str]:
    """The option that names the method better than both others, or no sure difference; and the
    comparisons that decide it.
    """
    names = {"ppo@gold": "RLHF (PPO)", "grpo": "GRPO", "dpo": "DPO"}
    ppo_grpo, ppo_dpo, grpo_dpo = measured.judge(
        [("ppo@gold", "grpo"), ("ppo@gold", "dpo"), ("grpo", "dpo")]
    )
    wins = {
        "ppo@gold": (ppo_grpo.word, ppo_dpo.word) == ("better", "better"),
        "grpo": (ppo_grpo.word, grpo_dpo.word) == ("worse", "better"),
        "dpo": (ppo_dpo.word, grpo_dpo.word) == ("worse", "worse"),
    }
    best = next((names[arm] for arm, has_won in wins.items() if has_won), "no sure difference")
    told = (
        f"PPO minus GRPO is {ppo_grpo.text(3)}; PPO minus DPO is {ppo_dpo.text(3)}; GRPO minus DPO is"
        f" {grpo_dpo.text(3)}."
    )
    return best, told
