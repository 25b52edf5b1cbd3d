"""Section of page Choose: the article's bar chart beside the measured one."""

from typing import TYPE_CHECKING, Any

import streamlit as st

from lab.analysis.recommend import model_count
from lab.analysis.recorded_results import (
    load_result,
    peak_memory_by_arm,
    recorded_result,
    relative_cost,
)
from lab.dashboard.components.layout import figure, source_text, theme
from lab.dashboard.pages.choose.method_comparison import NUMBERS_TITLE
from lab.figures.comparison import (
    ARTICLE_CLAIMS,
    COST_PANELS,
    article_beside_measured,
    comparison_narrow_layout,
)

if TYPE_CHECKING:
    import pandas as pd

ARM_OF_TITLE = {"ppo": "ppo", "dpo": "dpo", "grpo": "grpo"}
METHOD_TITLES = {"ppo": "RLHF (PPO)", "dpo": "DPO", "grpo": "GRPO"}
MEMORY_ARMS = {"ppo": "ppo.separate", "dpo": "dpo", "grpo": "grpo"}
"""By method, its arm in the measured resources: RLHF with four sets of weights, as in the article."""


def article_chart(table: dict[str, Any], measured: dict[str, Any]) -> None:
    """Show the article's chart beside the measured one, and what both say."""
    text = cost_sentence(table, measured)
    figure(
        article_beside_measured(measured, METHOD_TITLES, theme()),
        "article",
        f"The article's chart and the measured one. {text}",
        narrow=comparison_narrow_layout([panel for panel in COST_PANELS if panel in measured]),
    )
    fold = st.expander(NUMBERS_TITLE, on_change="rerun", key="article-numbers")
    if not fold.open:
        return
    with fold:
        st.dataframe(bars_table(measured), hide_index=True, key="article-table")
        with st.container(key="article-sentence"):
            st.markdown(text)
        st.caption(
            f"{times_source()} The bars of the times show the range over seeds.{memory_source()}"
        )


def measured_panels(table: dict[str, Any]) -> dict[str, Any]:
    """The measurements for the article's panels: models, time and, if it is recorded, memory. `table`:
    the comparison at equal tokens.
    """
    panels = {
        "models": {
            name: {"mean": model_count(arm), "half": 0} for name, arm in ARM_OF_TITLE.items()
        },
        "time": relative_cost(table, "seconds", ARM_OF_TITLE, "ppo"),
    }
    if peak := peak_memory_by_arm():
        panels["memory"] = {
            name: {"mean": 100 * peak[arm] / peak[MEMORY_ARMS["ppo"]], "half": 0}
            for name, arm in MEMORY_ARMS.items()
        }
    return panels


def times_source() -> str:
    """Where the measured times come from."""
    times = load_result("chain-tokens")
    plan = times["plan"]
    return source_text(
        times,
        f"{plan['seeds']} seeds, default settings, {plan['amount']:,.0f} completion tokens trained on; the"
        " commit was not recorded.",
    )


def memory_source() -> str:
    """Where the measured memory comes from; empty if it is not recorded."""
    resources = recorded_result("resources")
    return (
        ""
        if resources is None
        else (
            f" Memory: `{resources['command']}` on {resources['device']}, with"
            f" {resources['completions']} completions in each update; RLHF has four sets of weights."
        )
    )


def bars_table(measured: dict[str, Any]) -> "pd.DataFrame":
    """The article's bars and the measured ones as a table."""
    import pandas as pd

    return pd.DataFrame(
        [
            {
                "what": COST_PANELS[panel],
                "method": METHOD_TITLES[name],
                "article": claimed,
                "measured": round(measured[panel][name]["mean"], 1),
                "±": round(measured[panel][name]["half"], 1),
            }
            for panel in COST_PANELS
            if panel in measured
            for name, claimed in ARTICLE_CLAIMS[panel].items()
        ]
    )


def cost_sentence(table: dict[str, Any], measured: dict[str, Any]) -> str:
    """Time and memory of the methods, in numbers."""
    time, memory = measured["time"], measured.get("memory")
    memory_text = (
        f" The peak memory of DPO is {memory['dpo']['mean']:.0f} % of RLHF's (the article says"
        f" 40 %), and that of GRPO is {memory['grpo']['mean']:.0f} % (the article says 60 %)."
        if memory
        else ""
    )
    return (
        f"With {table['plan']['amount']:,.0f} completion tokens of training, DPO takes"
        f" {time['dpo']['mean']:.0f} % of the time of RLHF (the article says 30 %), and GRPO takes"
        f" {time['grpo']['mean']:.0f} % (the article says 60 %).{memory_text}"
    )
