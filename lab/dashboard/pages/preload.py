"""Imports the other pages and their slow libraries in the background, while a visitor reads the
first page.
"""

import importlib
import threading

import streamlit as st

from lab.dashboard.pages.registry import PAGES

ANALYSIS_MODULES = (  # pages import these inside of functions, because these import torch
    "lab.analysis.loss_curves",
    "lab.analysis.group_statistics",
    "lab.analysis.derivation",
)
PRELOAD_DELAY_SECONDS = 1.5  # the first page is drawn in this time


@st.cache_resource(show_spinner=False)
def start_preload() -> threading.Thread:
    """Start the imports in a background thread, once per server, and return the thread at once."""
    thread = threading.Timer(PRELOAD_DELAY_SECONDS, _import_modules)
    thread.daemon = True
    thread.start()
    return thread


def _import_modules() -> None:
    for page in PAGES:
        importlib.import_module(f"lab.dashboard.pages.{page.module}")
    for module in ANALYSIS_MODULES:
        importlib.import_module(module)
