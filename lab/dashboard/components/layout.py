"""What every page has: a question, a prediction to make, figures with their text and their table,
and what they cannot show.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
import streamlit as st

from lab.dashboard.components.slider_figure import slider_figure

DEFAULT_PAGE, DEFAULT_PAGE_URL = (
    "train",
    "start",
    # The page that an address without a path shows, and the name under which app.py declares it there.
)


def theme() -> str:
    """light or dark, as the browser shows the page."""
    return "dark" if st.context.theme.type == "dark" else "light"


def escape_markdown(text: str) -> str:
    """`text` as Markdown that shows just these characters, whatever they are: no link, no picture,
    no formula comes of a user's words.
    """
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", text)


def page_heading(question: str, sentence: str) -> None:
    """The question as the page's title, and one sentence under it."""
    st.title(question, anchor=False)
    st.markdown(sentence)


def ask_prediction(question: str, options: Sequence[str], key: str = "guess") -> str | None:
    """Ask before the answer is shown; None until one of the options is picked. The pick is in the
    URL.
    """
    return st.segmented_control(question, options, key=key, bind="query-params")


def url_choice(name: str, options: Collection[str], default: str) -> str:
    """Call it before the widget whose key is `name`: its value then follows ?name=… of the URL, the
    URL follows it, and the value is returned.

    Anything but an option is ignored. What `bind` does for a widget whose options have other names
    on the page than in the URL.
    """
    asked, seen = st.query_params.get(name), f"{name} in the URL"
    if asked in options and (name not in st.session_state or asked != st.session_state.get(seen)):
        st.session_state[name] = asked
    st.session_state.setdefault(name, default)
    st.query_params[name] = st.session_state[seen] = st.session_state[name]
    return st.session_state[name]


def url_number(name: str, low: int, high: int, start: int) -> None:
    """Call it before the number's widget whose key is `name`: its value then follows ?name=… of the
    URL and the URL follows it, unless it is `start`.

    Anything but a whole number from `low` to `high` is ignored; what `bind` does for such a widget
    fails at a number that is not finite.
    """
    asked, seen = st.query_params.get(name), f"{name} in the URL"
    if (
        asked is not None
        and re.fullmatch("-?[0-9]{1,15}", asked)
        and low <= int(asked) <= high
        and asked != st.session_state.get(seen)
    ):
        st.session_state[name] = int(asked)
    value = st.session_state.setdefault(name, start)
    st.session_state[seen] = str(value)
    if value != start:
        st.query_params[name] = str(value)
    elif name in st.query_params:
        del st.query_params[name]


def figure(
    chart: go.Figure, key: str, alt: str, frame: Any = None, narrow: dict[str, Any] | None = None
) -> None:
    """A figure, in words for those who do not see it (`alt`), and folded under it the same numbers
    as a table; `narrow` is as in `explore`.
    """
    slider_figure(chart, key=key, alt=alt, narrow=narrow)
    if frame is not None:
        with st.expander("As a table"):
            st.dataframe(frame, hide_index=True, key=f"{key}-table")


def page_link(url_path: str, title: str, label: str, **query: str | list[str]) -> None:
    """A link to another page of the dashboard, which keeps the session; `query` is the state that
    it opens with.
    """
    home = url_path == DEFAULT_PAGE
    page = st.Page(
        lambda: None, title=title, url_path=DEFAULT_PAGE_URL if home else url_path, default=home
    )
    st.page_link(page, label=label, icon=":material/arrow_forward:", query_params=query or None)


def source_caption(table: Mapping[str, Any], more: str = "") -> None:
    """Where recorded numbers come from: command, device, versions, seeds."""
    versions = f", torch {table['torch']}" if "torch" in table else ""
    seeds = f"; {table['seeds']} seed{'s' * (table['seeds'] > 1)}" if "seeds" in table else ""
    st.caption(f"`{table['command']}` on {table['device']}{versions}{seeds}. {more}".strip())


def what_to_look_at(text: str) -> None:
    """What to look at, folded."""
    with st.expander("What to look at"):
        st.markdown(text)


def cannot_show(text: str) -> None:
    """What the page cannot show, folded."""
    with st.expander("What this cannot show"):
        st.markdown(text)
