"""The files of the site that are not in docs/: pages of notebooks and live figures, and their data."""

import html
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from lab.course.build_notebooks import notebooks, read_notebook
from lab.dashboard.components.js_component import PLOTLY_FILE_NAME
from lab.errors import LabError
from lab.site.explorers import ExplorerPage, explorer_pages
from lab.site.live_figure import (
    LiveFigure,
    live_figure_file,
    live_figure_script,
    live_figure_styles,
)
from lab.site.notebook_pages import notebook_page

LIVE_FOLDER = "assets/live"
PLOTLY_PATH = Path(__file__).parents[2] / "static" / PLOTLY_FILE_NAME
LIVE_FIGURE = re.compile(r'<div class="lab-live" data-figure="([^"]*)"></div>')


def made_files() -> Iterator[tuple[str, str | bytes]]:
    """Path in the site, with .md for a page, and content of every file that is made."""
    for path in notebooks():
        page = notebook_page(read_notebook(path), path.stem)
        yield f"notebooks/{path.stem}.md", page.markdown
        for name, png in page.pictures.items():
            yield f"notebooks/{name}", png
    for explorers in _explorer_pages():
        yield f"live/{explorers.name}.md", explorer_markdown(explorers)
    for name in _figures():
        yield f"{LIVE_FOLDER}/{name}.js", _figure_file(name)
    yield f"{LIVE_FOLDER}/live_figure.js", live_figure_script()
    yield f"{LIVE_FOLDER}/live_figure.css", live_figure_styles()
    yield f"{LIVE_FOLDER}/{PLOTLY_FILE_NAME}", PLOTLY_PATH.read_bytes()


@lru_cache
def _explorer_pages() -> tuple[ExplorerPage, ...]:
    return explorer_pages()


@lru_cache
def _figures() -> dict[str, LiveFigure]:
    return {live.name: live for page in _explorer_pages() for live in page.figures}


@lru_cache
def _figure_file(name: str) -> str:
    """Drawn once, although `mkdocs serve` builds again and again."""
    return live_figure_file(_figures()[name])


def explorer_markdown(page: ExplorerPage) -> str:
    """A page that shows live figures."""
    figures = "\n\n".join(
        f'## {live.title}\n\n<div class="lab-live" data-figure="{live.name}"></div>\n\n'
        f"<small markdown>{live.source}</small>"
        for live in page.figures
    )
    return (
        f"---\ntitle: {page.title}\nhide: [toc]\n---\n\n"
        f"# {page.question}\n\n{page.text}\n\n{figures}\n"
    )


def with_descriptions(markdown: str, page: str) -> str:
    """The text of a page with a description in the place of each live figure, for readers without
    JavaScript. Raises `LabError` if a figure does not exist; `page` names the page in the message.
    """

    def described(match: re.Match[str]) -> str:
        live = _figures().get(match[1])
        if live is None:
            raise LabError(
                f"{page} shows the live figure “{match[1]}”, which does not exist. Choose one of"
                f" {', '.join(_figures())}."
            )
        return (
            f'<div class="lab-live" data-figure="{live.name}"><noscript>'
            f"{html.escape(live.alt, quote=False)}"
            " To move its sliders, allow JavaScript.</noscript></div>"
        )

    return LIVE_FIGURE.sub(described, markdown)
