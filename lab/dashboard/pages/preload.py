"""Imports pages and their slow libraries in the background: those of the page that a visitor opens
while the browser still loads Streamlit, and the others while the visitor reads the first page.
"""

import importlib
import threading

import pandas  # noqa: F401  Plotly takes a module that another thread still imports for a whole one.
import streamlit as st

from lab.dashboard.pages.registry import PAGES

ANALYSIS_MODULES = (  # pages import these inside of functions, because these import torch
    "lab.analysis.loss_curves",
    "lab.analysis.group_statistics",
    "lab.analysis.derivation",
)
PAGES_WITH_CURVES = ("story", "rlhf-dpo", "dpo", "ipo-kto", "grpo")  # they call the modules above
PRELOAD_DELAY_SECONDS = 1.5  # the first page is drawn in this time

_started: set[str] = set()


@st.cache_resource(show_spinner=False)
def start_preload() -> threading.Thread:
    """Start the imports in a background thread, once per server, and return the thread at once."""
    thread = threading.Timer(PRELOAD_DELAY_SECONDS, _import_modules)
    thread.daemon = True
    thread.start()
    return thread


def start_imports(url: str) -> threading.Thread | None:
    """Start to import what the page at `url` needs, unless that was started before, and return the
    thread at once. The empty URL is that of the first page; one that is no page's imports nothing.
    """
    entry = next((page for page in PAGES if url in (page.url, "" if page.default else None)), None)
    if entry is None or entry.url in _started:
        return None
    _started.add(entry.url)
    modules = [f"lab.dashboard.pages.{entry.module}"]
    modules += ANALYSIS_MODULES if url in PAGES_WITH_CURVES else ()
    thread = threading.Thread(target=_import_all, args=(modules,), daemon=True)
    thread.start()
    return thread


def _import_modules() -> None:
    _import_all([f"lab.dashboard.pages.{page.module}" for page in PAGES])
    _import_all(ANALYSIS_MODULES)


def _import_all(modules: list[str] | tuple[str, ...]) -> None:
    for module in modules:
        importlib.import_module(module)
