"""Section of page Measurements: LoRA of every rank against full fine-tuning."""

from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from lab.analysis.lora_rank import comparison_text, rank_sentence, summary_sentence
from lab.analysis.recorded_results import load_result, recorded_result
from lab.analysis.statistics import NOT_NEGATIVE, SHARE, Interval
from lab.dashboard.components.layout import folded_table, source_caption
from lab.dashboard.components.slider_figure import Slider, slider_figure
from lab.figures.lora_rank import NARROW_LAYOUT, lora_rank_figure

ALT_TEXT = (
    "Left: gold accuracy of LoRA at every rank and of full fine-tuning, with intervals. Right: gold"
    " accuracy of the picked rank and of full fine-tuning at every learning rate that they tried."
)


@st.cache_resource(show_spinner=False)
def rank_table() -> dict[str, Any]:
    """The recorded table. Shared by all sessions; do not change it."""
    return load_result("lora_rank")


def draw_rank(rank: float) -> go.Figure:
    """The figure with one rank picked."""
    return lora_rank_figure(rank, rank_table())


def picked_sentence(rank: float) -> str:
    """The picked rank in numbers."""
    return rank_sentence(rank_table(), int(rank))


def lora_rank_section() -> None:
    """Show the ranks, with a slider over them; nothing if the experiment is not recorded."""
    if recorded_result("lora_rank") is None:
        return
    table = rank_table()
    ranks = tuple(float(row["rank"]) for row in table["rows"] if row["rank"])
    st.subheader("LoRA of each rank against full fine-tuning", anchor=False)
    slider_figure(
        draw_rank,
        key="lora-rank",
        alt=ALT_TEXT,
        sliders=[Slider("rank", "rank of LoRA", ranks, start=8.0)],
        sentence=picked_sentence,
        narrow=NARROW_LAYOUT,
    )
    st.markdown(summary_sentence(table))
    numbers = pd.DataFrame(
        [
            {
                "rank": row["title"],
                "trained weights": f"{row['trained_weights']:,}",
                "learning rate": f"{row['learning_rate']:g}",
                "gold accuracy": Interval(**row["gold/accuracy"]).text(3, SHARE),
                "minus full": comparison_text(table, row["rank"]),
                "KL, nats": Interval(**row["kl"]).text(2, NOT_NEGATIVE),
            }
            for row in table["rows"]
        ]
    )
    folded_table(lambda: numbers, "lora-rank-table")
    source_caption(
        table,
        "DPO, one pass over the pairs. Bars are 95 % intervals. A diamond marks the learning rate that the"
        " tuning prompts chose; the left panel shows other prompts and other seeds. The words hold for all"
        f" {len(table['comparisons'])} ranks together.",
    )
