"""Elements that all pages share: heading, prediction, URL state, figure with its table, links,
sources, and the folded notes.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
import streamlit as st

from lab.dashboard.components.glossary import WORDS, words_list, words_on_page
from lab.dashboard.components.slider_figure import slider_figure
from lab.dashboard.state.default_page import DEFAULT_PAGE, DEFAULT_PAGE_URL


def theme() -> str:
    """The theme of the page in the browser: "light" or "dark"."""
    return "dark" if st.context.theme.type == "dark" else "light"


def escape_markdown(text: str) -> str:
    """Markdown that shows `text` literally: a user's text makes no link, no picture and no formula."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", text)


def page_heading(question: str, sentence: str, words: Sequence[str]) -> None:
    """Show the page's question as its title, a short text under it, and a button that explains
    `words`, which are keys of `glossary.WORDS`.
    """
    st.title(question, anchor=False)
    st.markdown(sentence)
    words_on_page(words)


def url_choice(name: str, options: Collection[str], default: str) -> str:
    """Keep the widget with the key `name` and ?name=… of the URL equal; returns the value. Must be
    called before the widget.

    Values in the URL that are not among `options` are ignored. Streamlit's `bind` cannot be used
    for options whose text on the page differs from their value in the URL.
    """
    in_url, last_seen_key = st.query_params.get(name), f"{name} in the URL"
    if in_url in options and (
        name not in st.session_state or in_url != st.session_state.get(last_seen_key)
    ):
        st.session_state[name] = in_url
    st.session_state.setdefault(name, default)
    st.query_params[name] = st.session_state[last_seen_key] = st.session_state[name]
    return st.session_state[name]


def url_number(name: str, low: int, high: int, start: int) -> None:
    """Keep the number widget with the key `name` and ?name=… of the URL equal; the value `start` is
    left out of the URL. Must be called before the widget.

    Anything in the URL but a whole number from `low` to `high` is ignored. Streamlit's `bind` fails
    at a number that is not finite.
    """
    in_url, last_seen_key = st.query_params.get(name), f"{name} in the URL"
    if (
        in_url is not None
        and re.fullmatch("-?[0-9]{1,15}", in_url)
        and low <= int(in_url) <= high
        and in_url != st.session_state.get(last_seen_key)
    ):
        st.session_state[name] = int(in_url)
    value = st.session_state.setdefault(name, start)
    st.session_state[last_seen_key] = str(value)
    if value != start:
        st.query_params[name] = str(value)
    elif name in st.query_params:
        del st.query_params[name]


def figure(
    chart: go.Figure,
    key: str,
    alt: str,
    table: Callable[[], Any] | Any = None,
    narrow: dict[str, Any] | None = None,
) -> None:
    """Show a figure and, folded under it, its numbers as a `table`, or the one that the function
    `table` returns. `alt` describes the figure for screen readers; `narrow` is described in
    `slider_figure`.
    """
    slider_figure(chart, key=key, alt=alt, narrow=narrow)
    if table is not None:
        folded_table(table if callable(table) else lambda: table, f"{key}-table")


def folded_table(make: Callable[[], Any], key: str, **options: Any) -> None:
    """Show, folded, the table that `make` returns. It is made, and the browser fetches what draws
    tables, when the fold is opened. `options` are those of `st.dataframe`.
    """
    fold = st.expander("As a table", on_change="rerun", key=f"{key}-fold")
    if fold.open:
        fold.dataframe(make(), hide_index=True, key=key, **options)


def folded_commands(label: str, make: Callable[[], Sequence[str]], key: str) -> None:
    """Show, folded, the commands that `make` returns. The browser fetches what colours them, 1.6 MB,
    when the fold is opened.
    """
    fold = st.expander(label, on_change="rerun", key=key)
    if fold.open:
        for command in make():
            fold.code(command, language="bash", wrap_lines=True)


def page_link(url_path: str, title: str, label: str, **query: str | list[str]) -> None:
    """Show a link to another page of the dashboard. The session is kept; `query` is the URL state that
    the page opens with.
    """
    is_default = url_path == DEFAULT_PAGE
    page = st.Page(
        lambda: None,
        title=title,
        url_path=DEFAULT_PAGE_URL if is_default else url_path,
        default=is_default,
    )
    st.page_link(page, label=label, icon=":material/arrow_forward:", query_params=query or None)


def neighbour_links(pages: Sequence[Any], at: int) -> None:
    """Show, in the top bar, links to the pages before and after page `at`, and the glossary. On the
    first page the link to the next one says "Start here".
    """
    with st.container(key="neighbours", horizontal=True, gap="small", vertical_alignment="center"):
        if at > 0:
            st.page_link(pages[at - 1], label=pages[at - 1].title, icon=":material/arrow_back:")
        with st.popover("Glossary", type="tertiary", icon=":material/menu_book:"):
            st.markdown(words_list(sorted(WORDS, key=str.casefold)))
        if at + 1 < len(pages):
            after, icon = pages[at + 1], ":material/arrow_forward:"
            label = after.title if at else f"Start here: {after.title}"
            with st.container(key="next-page" if at else "start-here", width="content"):
                st.page_link(after, label=label, icon=icon, icon_position="right")


def source_caption(table: Mapping[str, Any], more: str = "") -> None:
    """Show where recorded numbers come from: command, device, versions, seeds, then `more`."""
    st.caption(source_text(table, more))


def source_text(table: Mapping[str, Any], more: str = "") -> str:
    """The text of `source_caption`."""
    versions = f", torch {table['torch']}" if "torch" in table else ""
    versions += f", commit {table['commit'][:12]}" if table.get("commit") else ""
    seeds = f"; {table['seeds']} seed{'s' * (table['seeds'] > 1)}" if "seeds" in table else ""
    return f"`{table['command']}` on {table['device']}{versions}{seeds}. {more}".strip()


def what_to_look_at(text: str) -> None:
    """Show, folded, what a reader should look at on the page."""
    with st.expander("What to look at"):
        st.markdown(text)


def cannot_show(text: str) -> None:
    """Show, folded, the limits of the page."""
    with st.expander("What this cannot show"):
        st.markdown(text)
