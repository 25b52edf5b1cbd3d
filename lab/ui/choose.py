"""Page Choose: the article's comparison beside the measured one."""

from typing import Any

import pandas as pd
import streamlit as st

from lab.figures.comparison import article_beside_measured, gold_against_kl
from lab.results import load_result, relative

QUESTION = "Which method, at what price?"
SENTENCE = ("The article compares RLHF, DPO and GRPO in a table and a bar chart. Here the same comparison is measured: one task, one base model, "
            "equal budgets, several seeds.")
ARMS = {"ppo": "ppo", "dpo": "dpo", "grpo": "grpo"}
TITLES = {"ppo": "RLHF (PPO)", "dpo": "DPO", "grpo": "GRPO"}
MODELS = {"ppo": 4, "dpo": 2, "grpo": 2}  # Policy and reference; RLHF also reward model and critic. A test counts them in the code.


def page() -> None:
    """The page from top to bottom."""
    st.title(QUESTION, anchor=False)
    st.markdown(SENTENCE)
    table = load_result("chain-tokens")
    theme = "dark" if st.context.theme.type == "dark" else "light"
    measured = {"models": {name: {"mean": count, "half": 0} for name, count in MODELS.items()},
                "time": relative(table, "seconds", ARMS, "ppo")}
    st.plotly_chart(article_beside_measured(measured, TITLES, theme), config={"displayModeBar": False}, key="article")
    st.markdown(sentence(table, measured))
    st.subheader("What each method reached", anchor=False)
    st.plotly_chart(gold_against_kl(table["methods"], table["base"], theme), config={"displayModeBar": False}, key="reached")
    st.caption(source(table))
    with st.expander("As a table"):
        st.dataframe(as_frame(table), hide_index=True, key="table")
    with st.expander("Paired differences in gold accuracy"):
        st.dataframe(differences(table), hide_index=True, key="differences")
    with st.expander("What this cannot show"):
        st.markdown("One small model and one task with a checkable answer. On a large model weights dominate memory, sampling dominates the time of the online "
                    "methods, and a rule that scores completions may not exist. Use `python -m lab compare` on your own model and data.")


def sentence(table: dict[str, Any], measured: dict[str, dict[str, dict[str, float]]]) -> str:
    """What the two charts say, in numbers."""
    gold = {row["method"]: row["gold/accuracy"] for row in table["methods"]}
    time = measured["time"]
    reached = {name: f"{gold[arm]['mean']:.2f} ± {gold[arm]['half']:.2f}" for name, arm in ARMS.items()}
    return (f"At {table['plan']['amount']:,.0f} completion tokens trained on, DPO takes {time['dpo']['mean']:.0f} % of the time of RLHF (the article says "
            f"30 %) and GRPO {time['grpo']['mean']:.0f} % (60 %). Gold accuracy went from {table['base']['gold/accuracy']:.2f} to {reached['ppo']} with RLHF, "
            f"{reached['dpo']} with DPO and {reached['grpo']} with GRPO.")


def source(table: dict[str, Any]) -> str:
    """Where the numbers come from."""
    return (f"`{table['command']}` on {table['device']}, torch {table['torch']}; {table['plan']['seeds']} seeds, bars are 95 % intervals "
            f"(of time: the range over seeds); {table['evaluation']}.")


def as_frame(table: dict[str, Any]) -> pd.DataFrame:
    """The comparison as a table."""
    names = {"gold/accuracy": "gold accuracy", "kl": "KL, nats", "proxy": "proxy reward", "scratchpad_share": "scratchpads",
             "completions/mean_length": "length, tokens", "updates": "updates", "tokens": "tokens", "seconds": "seconds"}
    return pd.DataFrame([{"method": row["title"]} | {word: f"{row[name]['mean']:.3g} ± {row[name]['half']:.2g}" for name, word in names.items()}
                         for row in table["methods"]])


def differences(table: dict[str, Any]) -> pd.DataFrame:
    """First minus second, seed by seed."""
    titles = {row["method"]: row["title"] for row in table["methods"]}
    return pd.DataFrame([{"first": titles[d["first"]], "second": titles[d["second"]], "difference": f"{d['mean']:+.3f} ± {d['half']:.3f}",
                          "sure": "yes" if abs(d["mean"]) > d["half"] else "the interval holds 0"} for d in table["differences in gold/accuracy"]])
