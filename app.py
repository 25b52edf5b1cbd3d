"""The dashboard: server, page configuration and navigation. Start it with `make app`."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import streamlit as st

import lab.dashboard

STYLE = Path(lab.dashboard.__file__).with_name("style.css")


def import_later(module: str) -> Callable[[], None]:
    """Returns a function that imports a page's module, if the server has not, and shows the page."""
    return lambda: import_module(f"lab.dashboard.pages.{module}").page()


def show() -> None:
    """Show the page of the address: one run of this script in one session."""
    from lab.dashboard.components.js_component import page_scripts
    from lab.dashboard.components.layout import neighbour_links
    from lab.dashboard.components.present import forget_question, present_link, present_page
    from lab.dashboard.pages.preload import start_preload
    from lab.dashboard.pages.registry import PAGES, SECTIONS
    from lab.dashboard.state import actions

    st.set_page_config(
        "Alignment lab",
        str(Path(__file__).with_name("static") / "icon.svg"),
        layout="wide",
        initial_sidebar_state="collapsed",
    )
    st.html(STYLE)
    present_place = st.container(key="present-place")  # before the page: there it keeps its place
    with present_place:
        present_link()
    pages = [
        st.Page(
            import_later(entry.module), title=entry.title, url_path=entry.url, default=entry.default
        )
        for entry in PAGES
    ]
    menus = {
        section: [page for page, entry in zip(pages, PAGES) if entry.section == section]
        for section in SECTIONS
    }
    page = st.navigation(menus, position="top")
    neighbour_links(pages, pages.index(page))
    has_plotly = page.url_path not in ("", "talk")
    st.html(page_scripts(has_plotly), unsafe_allow_javascript=True)
    if notice := actions.access_notice():
        st.caption(notice)
    forget_question()
    page.run()
    with present_place:
        present_page()
    start_preload()


if __name__ == "__main__":  # Streamlit runs this file as a script in every session.
    show()
else:  # The server imports this file once.
    from starlette.middleware import Middleware

    from lab.dashboard.pages.page_shell import PageShell
    from lab.dashboard.pages.preload import pages_imported
    from lab.dashboard.state.server_guard import Guard, check_arguments

    check_arguments()
    app = st.App(
        Path(__file__),
        lifespan=pages_imported,
        middleware=[Middleware(Guard), Middleware(PageShell)],
    )
