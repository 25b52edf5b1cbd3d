"""The other pages, and the formulas that they draw with torch, which takes seconds to load: they
are loaded while the first page is read.
"""

import importlib
import threading

import streamlit as st

MODULES = (
    "lab.dashboard.pages.map.page",
    "lab.dashboard.pages.rlhf_dpo.page",
    "lab.dashboard.pages.dpo",
    "lab.dashboard.pages.ipo_kto",
    "lab.dashboard.pages.grpo.page",
    "lab.dashboard.pages.online_offline",
    "lab.dashboard.pages.choose.page",
    "lab.dashboard.pages.runs.page",
    "lab.dashboard.pages.talk.page",
    "lab.analysis.loss_curves",
    "lab.analysis.group_statistics",
    "lab.analysis.derivation",
)  # the other pages, and what pages import when they need it
SECONDS = 1.5  # after the first page, in which it is drawn


@st.cache_resource(show_spinner=False)
def load_formulas() -> threading.Thread:
    """Load them in a thread of their own, once a server; returns at once."""
    thread = threading.Timer(SECONDS, _load)
    thread.daemon = True
    thread.start()
    return thread


def _load() -> None:
    for module in MODULES:
        importlib.import_module(module)
