"""Page Map: how the methods follow from each other, and each method's claims beside measurements."""

import pandas as pd
import streamlit as st

from lab.analysis.recorded_results import (
    Comparison,
    load_result,
    peak_memory_by_arm,
    recorded_result,
)
from lab.config.json_format import to_dict
from lab.config.methods import METHODS, make_config
from lab.dashboard.components import text as words
from lab.dashboard.components.layout import (
    ask_prediction,
    cannot_show,
    figure,
    page_heading,
    page_link,
    source_caption,
    theme,
    url_choice,
    what_to_look_at,
)
from lab.dashboard.pages.map.claims import CLAIM_VERDICTS, RecordedTables
from lab.dashboard.pages.map.graph import NODE_TITLES, method_graph
from lab.dashboard.pages.map.methods import METHOD_NODES
from lab.dashboard.state.run_cache import run_record
from lab.dashboard.state.shipped_runs import shipped_run
from lab.figures.palette import METHOD_NAMES
from lab.figures.run_curves import RunCurves
from lab.figures.training_curves import training_curves
from lab.runs.metrics import METRICS

QUESTION = "What did each method solve, and what did it introduce?"
SENTENCE = (
    "RLHF came first; each later method took something away from it and paid for that with"
    " something else. Pick a method on the map: every claim of the article stands beside what this"
    " lab measured for it."
)
CURVE_PANELS = ("gold/accuracy", "gold/kl")


def page() -> None:
    """Show the page."""
    page_heading(QUESTION, SENTENCE)
    guess = ask_prediction(
        "Before you look: at equal tokens, with the rule as judge, which ends highest?",
        ("RLHF (PPO)", "DPO", "GRPO", "no sure difference"),
    )
    method = url_choice("method", METHOD_NODES, "dpo")
    method_graph(method)
    st.segmented_control(
        "Method",
        list(METHOD_NODES),
        format_func=lambda name: NODE_TITLES[name],
        key="method",
        required=True,
        label_visibility="collapsed",
    )
    tables = recorded_tables()
    if guess:
        st.markdown(prediction_answer(guess, tables.tokens))
    method_section(method, tables)
    what_to_look_at(
        "The claims with their verdict, not the names: where an interval holds zero, the lab says"
        " so and decides nothing. And the price in the column “introduced”: none of the methods is"
        " free."
    )
    cannot_show(
        "One small model, one task with a checkable answer, three seeds. The order of the methods"
        " may differ on a large model, on open text, or with human preferences. The map shows"
        " ideas, not dates: GRPO and online DPO appeared in the same month, February 2024."
    )


@st.cache_data
def recorded_tables() -> RecordedTables:
    """The recorded results that measure the claims."""
    return RecordedTables(
        Comparison(load_result("chain-tokens")),
        Comparison(load_result("chain-cpu")),
        {row["method"]: row for row in load_result("drift")["rows"]},
        peak_memory_by_arm(),
        recorded_result("sensitivity"),
        recorded_result("overoptimisation"),
    )


def method_section(method: str, tables: RecordedTables) -> None:
    """Show the selected method: what it solved and introduced, its loss, links, a shipped run, and
    its claims.
    """
    node = METHOD_NODES[method]
    left, right = st.columns([1, 1], gap="large")
    with left:
        st.subheader(NODE_TITLES[method], anchor=False)
        st.markdown(f"**Solved.** {node.solved}")
        st.markdown(f"**Introduced.** {node.introduced}")
        with st.container(
            key="formula", horizontal=True, vertical_alignment="center", gap="medium"
        ):
            for formula in METHODS[method].formula(to_dict(make_config(method))):
                st.latex(formula, width="content")
        with st.container(horizontal=True, gap="medium"):
            page_link("train", "Train", f"Try it: train {METHOD_NAMES[method]}", method=method)
            page_link(*node.page, f"Look inside: {node.page[1]}")
    with right:
        shipped_run_section(method, node.arm, tables.tokens)
    for claim in node.claims:
        measurement, holds = claim.measure(tables)
        left, right = st.columns([2, 5], gap="medium")
        left.markdown(f"“{claim.article}”")
        right.markdown(f"**{CLAIM_VERDICTS[holds].capitalize()}.** {measurement}")
    source_caption(
        tables.tokens.table,
        f"{tables.tokens.seeds} seeds, ± is half the 95 % interval; equal tokens unless the text"
        " says otherwise.",
    )


def shipped_run_section(method: str, arm: str, measured: Comparison) -> None:
    """Show the result of the method's arm in the comparison, and the curves of a shipped run of the
    method if there is one.
    """
    st.markdown(
        f"Gold accuracy {measured.base['gold/accuracy']:.2f} → **{measured.text(arm)}** at a KL of"
        f" {measured.text(arm, 'kl')} nats, after {measured.mean(arm, 'tokens'):,.0f} completion"
        f" tokens and {measured.mean(arm, 'seconds'):.0f} s of training"
        f" ({next(row['title'] for row in measured.table['methods'] if row['method'] == arm)})."
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
    gap = measured.difference("grpo", "ppo@gold")
    best = {None: "no sure difference", True: "GRPO", False: "RLHF (PPO)"}[gap.is_positive()]
    return (
        f"{'Right' if guess == best else f'You said {guess}'}: PPO reaches"
        f" {measured.text('ppo@gold')}, GRPO {measured.text('grpo')} (GRPO minus PPO"
        f" {gap.signed()}: {best}), DPO {measured.text('dpo')}."
    )
