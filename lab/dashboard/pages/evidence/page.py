"""Page Measurements: the lab's experiments beyond the comparison of the methods."""

import streamlit as st

from lab.analysis.recorded_results import is_recorded
from lab.dashboard.components.layout import cannot_show, page_heading, what_to_look_at
from lab.dashboard.pages.choose import reward_model_experiments
from lab.dashboard.pages.evidence.language_model import language_model_section
from lab.dashboard.pages.evidence.lora_rank import lora_rank_section
from lab.dashboard.pages.evidence.memory_estimator import memory_estimator

QUESTION = "How far can you trust the results?"
SENTENCE = (
    "These experiments test the comparison of the methods: with other values of each setting, with"
    " adapters (LoRA) of other ranks, with a reward model that is optimised for too long, and on a"
    " larger language model. The last tab estimates the memory of an update."
)
WORDS = (
    "policy",
    "reference",
    "reward model",
    "proxy reward",
    "rule",
    "gold accuracy",
    "gold reward",
    "held-out",
    "VADER",
    "KL",
    "nat",
    "update",
    "seed",
    "interval",
)
SECTIONS = {
    "Settings": reward_model_experiments.knobs_section,
    **({"LoRA rank": lora_rank_section} if is_recorded("lora_rank") else {}),
    "Reward models": reward_model_experiments.reward_models_section,
    "Language model": language_model_section,
    "Memory": memory_estimator,
}
"""By the name of its tab, the function that shows an experiment."""


def page() -> None:
    """Show the page. Only the open tab is computed; its name is in the URL."""
    page_heading(QUESTION, SENTENCE, WORDS)
    for tab, show in zip(
        st.tabs(list(SECTIONS), key="show", bind="query-params"), SECTIONS.values()
    ):
        if tab.open:
            with tab:
                show()
    what_to_look_at(
        "Look at the widths of the intervals before the order of the points. Each table names the"
        " command, the seeds and the device behind it."
    )
    cannot_show(
        "Each experiment changes one thing on one task. A setting that matters little here may matter on"
        " another task, with another model or a longer training. The memory is an estimate for shapes of"
        " the Llama family; page Choose a method shows what was measured."
    )
