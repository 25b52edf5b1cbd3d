"""The elements of the page that are not Streamlit's own: their script, their styles, and plotly.js
from this server.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import streamlit as st

COMPONENTS_FOLDER = Path(__file__).parent
# npm: plotly.js-cartesian-dist-min; a third of the whole, and the page has its first figure sooner
PLOTLY_FILE_NAME = "plotly-cartesian-4.1.1.min.js"


def js_component(name: str) -> Callable[..., Any]:
    """The element drawn by `name`.js, which may use all of js_component.js, and dressed by
    `name`.css.

    Its data travel in a list: in a dict Streamlit looks for tables, and loads pandas first.
    """
    script = (COMPONENTS_FOLDER / "js_component.js").read_text("utf-8") + (
        COMPONENTS_FOLDER / f"{name}.js"
    ).read_text("utf-8")
    mount = st.components.v2.component(
        f"lab_{name}",
        js=script,
        css=(COMPONENTS_FOLDER / f"{name}.css").read_text("utf-8"),
        isolate_styles=False,
    )
    return lambda data, **rest: mount(data=[data], **rest)


def plotly_url() -> str:
    """Where the server offers plotly.js: the part of it that draws the lab's kinds of trace, of the
    version that the plotly package writes for.
    """
    prefix = st.get_option("server.baseUrlPath").strip("/")
    return f"{'/' + prefix if prefix else ''}/app/static/{PLOTLY_FILE_NAME}"
