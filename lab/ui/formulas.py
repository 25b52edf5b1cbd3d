"""The other pages, and the formulas that they draw with torch, which takes seconds to load: they are loaded while the first page is read."""

import importlib
import threading

import streamlit as st

MODULES = ("lab.ui.map", "lab.ui.derivation", "lab.ui.dpo", "lab.ui.ipo_kto", "lab.ui.grpo", "lab.ui.online_offline", "lab.ui.choose", "lab.ui.runs",
           "lab.ui.talk", "lab.profiles", "lab.groups", "lab.derivation")  # the other pages, and what pages import when they need it
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
