"""The dashboard: page config and navigation. Start it with `make app`."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import streamlit as st

from lab.ui import train
from lab.ui.element import plotly_address
from lab.ui.formulas import load_formulas

st.set_page_config(page_title="Alignment lab", page_icon=str(Path(__file__).parent / "static" / "icon.svg"), layout="wide", initial_sidebar_state="collapsed")

STYLE = """<style>
.stMainBlockContainer { padding: 2.5rem clamp(1rem, 4vw, 4rem) 3rem; max-width: 1700px; }
.stMultiSelect [data-tag] { background: #5F6B7A; color: #FFFFFF; }
[data-testid="stCaptionContainer"] { color: inherit; opacity: 0.85; }
[data-testid="stBaseButton-primary"] { color: canvas; }
.st-key-formula .katex, .st-key-formula-new .katex { font-size: clamp(0.66rem, 2.7vw, 1rem); }
</style>"""
FETCH = f"""<script>
document.head.append(Object.assign(document.createElement("link"), {{ rel: "preload", as: "script", href: "{plotly_address()}" }}));
</script>"""  # plotly.js comes while the page is still being laid out


def later(name: str) -> Callable[[], None]:
    """The page of a module that is loaded when it is first visited, or while the first page is read."""
    return lambda: import_module(f"lab.ui.{name}").page()


st.html(STYLE + FETCH, unsafe_allow_javascript=True)
st.navigation([
    st.Page(later("map"), title="Map", url_path="map"),
    st.Page(later("derivation"), title="RLHF and DPO", url_path="rlhf-dpo"),
    st.Page(later("dpo"), title="DPO", url_path="dpo"),
    st.Page(later("ipo_kto"), title="IPO and KTO", url_path="ipo-kto"),
    st.Page(later("grpo"), title="GRPO", url_path="grpo"),
    st.Page(later("online_offline"), title="Online and offline", url_path="online"),
    st.Page(later("choose"), title="Choose a method", url_path="choose"),
    st.Page(train.page, title="Train", url_path="start", default=True),  # at the address without a path
    st.Page(train.lead_here, title="Train", url_path="train", visibility="hidden"),
    st.Page(later("runs"), title="Runs", url_path="runs"),
    st.Page(later("talk"), title="Talk", url_path="talk"),
], position="top").run()
load_formulas()
