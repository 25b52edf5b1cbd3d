"""Imports what the pages need before they are opened: the pages themselves while the server starts, and
their slowest library in the background, while a visitor reads the first page.
"""

import importlib
import threading

import streamlit as st

from lab.dashboard.pages.registry import PAGES

ANALYSIS_MODULES = (  # pages import these inside of functions, because these import torch
    "lab.analysis.group_statistics",
    "lab.analysis.derivation",
)
PRELOAD_DELAY_SECONDS = 1.5  # the first page is drawn in this time


def import_pages() -> None:
    """Import all pages. This takes half a second, and torch is not among what they import."""
    importlib.import_module("pandas")  # Plotly looks for it when the first figure is drawn.
    _import_all([f"lab.dashboard.pages.{page.module}" for page in PAGES])


@st.cache_resource(show_spinner=False)
def start_preload() -> threading.Thread:
    """Start to import `ANALYSIS_MODULES` in a background thread, once per server, and return the thread
    at once.
    """
    thread = threading.Timer(PRELOAD_DELAY_SECONDS, _import_all, [ANALYSIS_MODULES])
    thread.daemon = True
    thread.start()
    return thread


def _import_all(modules: list[str] | tuple[str, ...]) -> None:
    for module in modules:
        importlib.import_module(module)
