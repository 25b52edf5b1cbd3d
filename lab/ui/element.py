"""The elements of the page that are not Streamlit's own: their script, their styles, and plotly.js from this server."""

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import plotly
import streamlit as st

HERE = Path(__file__).parent
STATIC = HERE.parents[1] / "static"


def element(name: str) -> Callable[..., Any]:
    """The element drawn by `name`.js, which may use all of element.js, and dressed by `name`.css."""
    script = (HERE / "element.js").read_text("utf-8") + (HERE / f"{name}.js").read_text("utf-8")
    return st.components.v2.component(f"lab_{name}", js=script, css=(HERE / f"{name}.css").read_text("utf-8"), isolate_styles=False)


def serve_plotly(folder: Path = STATIC) -> str:
    """The address of plotly.js; it is copied from the installed package into the folder that the server offers, unless it is there."""
    source, target = Path(plotly.__file__).parent / "package_data" / "plotly.min.js", folder / "plotly.min.js"
    if not target.exists() or target.stat().st_size != source.stat().st_size:
        folder.mkdir(parents=True, exist_ok=True)
        partial = target.with_suffix(f".{os.getpid()}-{threading.get_ident()}.partial")  # several sessions may copy at once
        shutil.copyfile(source, partial)
        partial.replace(target)
    prefix = st.get_option("server.baseUrlPath").strip("/")
    return f"{'/' + prefix if prefix else ''}/app/static/plotly.min.js?v={plotly.__version__}"
