"""The dashboard: what the server lets in, page config and navigation. Start it with `make app`."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import streamlit as st

import lab.dashboard

STYLE = Path(lab.dashboard.__file__).with_name("style.css")
FETCH = """<script>
document.head.append(Object.assign(document.createElement("link"), { rel: "preload", as: "script", href: "%s" }));
</script>"""  # plotly.js comes while the page is still being laid out


def later(name: str) -> Callable[[], None]:
    """The page of a module that is loaded when it is first visited, or while the first page is
    read.
    """
    return lambda: import_module(f"lab.dashboard.pages.{name}").page()


def show() -> None:
    """One run of the script in a session."""
    from lab.dashboard.components.js_component import plotly_address
    from lab.dashboard.pages.train import page
    from lab.dashboard.state import actions
    from lab.dashboard.state.preload import load_formulas

    st.set_page_config(
        "Alignment lab",
        str(Path(__file__).with_name("static") / "icon.svg"),
        layout="wide",
        initial_sidebar_state="collapsed",
    )
    st.html(STYLE)
    st.html(FETCH % plotly_address(), unsafe_allow_javascript=True)
    picked = st.navigation(
        [
            st.Page(later("map.page"), title="Map", url_path="map"),
            st.Page(later("rlhf_dpo.page"), title="RLHF and DPO", url_path="rlhf-dpo"),
            st.Page(later("dpo"), title="DPO", url_path="dpo"),
            st.Page(later("ipo_kto"), title="IPO and KTO", url_path="ipo-kto"),
            st.Page(later("grpo.page"), title="GRPO", url_path="grpo"),
            st.Page(later("online_offline"), title="Online and offline", url_path="online"),
            st.Page(later("choose.page"), title="Choose a method", url_path="choose"),
            st.Page(
                page.page, title="Train", url_path="start", default=True
            ),  # at the address without a path
            st.Page(page.lead_here, title="Train", url_path="train", visibility="hidden"),
            st.Page(later("runs.page"), title="Runs", url_path="runs"),
            st.Page(later("talk.page"), title="Talk", url_path="talk"),
        ],
        position="top",
    )
    if reachable := actions.notice():
        st.caption(reachable)
    picked.run()
    load_formulas()


if (
    __name__ == "__main__"
):  # Streamlit runs this file in every session; the server itself has imported it once.
    show()
else:
    from lab.dashboard.state.server_guard import Guard, check_arguments

    check_arguments()
    app = st.App(Path(__file__), middleware=[(Guard, (), {})])
