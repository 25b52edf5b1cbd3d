"""Imports what the pages need before they are opened: the pages themselves while the server starts, and
their slowest library in the background, while a visitor reads the first page.
"""

import asyncio
import importlib
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import streamlit as st

from lab.dashboard.pages.registry import PAGES
from lab.dashboard.state.tcp_nodelay import send_without_delay

ANALYSIS_MODULES = (  # pages import these inside of functions, because these import torch
    "lab.analysis.group_statistics",
    "lab.analysis.derivation",
)
DELAY_AFTER_PAGE, DELAY_AFTER_START = 1.5, 5.0
"""Seconds before the background imports begin, after the first page and after the start of the server:
the first page is drawn in this time, whether a browser asks for it at once or not.
"""


@asynccontextmanager
async def pages_imported(app: st.App) -> AsyncIterator[None]:
    """The life of the server: import all pages before it answers, and their slowest library behind that.
    Streamlit's caches exist by now, which the pages use. This takes half a second, and torch is not
    among what the pages import.
    """
    send_without_delay(asyncio.get_running_loop())
    importlib.import_module("pandas")  # Plotly looks for it when the first figure is drawn.
    _import_all([f"lab.dashboard.pages.{page.module}" for page in PAGES])
    preload_later(DELAY_AFTER_START)
    yield


@st.cache_resource(show_spinner=False)
def start_preload() -> threading.Thread:
    """Start to import `ANALYSIS_MODULES` after the first page, once per server; see `preload_later`."""
    return preload_later(DELAY_AFTER_PAGE)


def preload_later(delay: float) -> threading.Thread:
    """Import `ANALYSIS_MODULES` in `delay` seconds in a background thread, and return the thread at once.
    Modules that another thread imports already are waited for, not imported twice.
    """
    thread = threading.Timer(delay, _import_all, [ANALYSIS_MODULES])
    thread.daemon = True
    thread.start()
    return thread


def _import_all(modules: list[str] | tuple[str, ...]) -> None:
    for module in modules:
        importlib.import_module(module)
