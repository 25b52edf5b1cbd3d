"""Completes the HTML page that Streamlit sends before any page has run.

Streamlit's script looks for the server at the page's own address first, which fails at every page
but the first; it fetches plotly.js and its own modules for links, HTML and components only when such
an element arrives. The completed HTML says where the server is and names plotly.js and the modules.
"""

import re
from collections.abc import Awaitable, Callable, MutableMapping
from functools import cache
from pathlib import Path
from typing import Any

from streamlit.file_util import get_static_dir

from lab.dashboard.components.js_component import PLOTLY_FILE_NAME
from lab.dashboard.pages.registry import PAGES

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

HEAD = b"<head>"
CHANGED_HEADERS = (b"content-length", b"etag", b"last-modified")
LEFT_OUT_REQUEST_HEADERS = (b"accept-encoding", b"if-none-match", b"if-modified-since", b"range")
WITHOUT_PLOTLY = ("play.page", "talk.page")
LATE_MODULES = ("PageLink", "Html", "BidiComponent")  # of Streamlit, in the order of every page
_IMPORT = re.compile(r'(?:\bfrom|\bimport)"\./([\w.-]+\.js)"')


def head_elements(url: str) -> str:
    """The HTML that the page at `url` gets at the beginning of its head. All addresses are relative
    to the page's, so that a proxy may serve the dashboard under any path.
    """
    names = "|".join(entry.url for entry in PAGES)
    module = next((p.module for p in PAGES if p.url == url or (p.default and not url)), "")
    relation = "prefetch" if module in WITHOUT_PLOTLY else "preload"
    return (
        "<script>window.__streamlit = { BACKEND_BASE_URL: location.origin +"
        rf" location.pathname.replace(/\/({names})?\/?$/, '/') }};</script>"
        f'<link rel="{relation}" as="script" href="./app/static/{PLOTLY_FILE_NAME}">'
        + "".join(
            f'<link rel="modulepreload" crossorigin href="./static/js/{name}">'
            for name in late_module_files()
        )
    )


@cache
def late_module_files() -> tuple[str, ...]:
    """The files of `LATE_MODULES` and of what they import, without those that Streamlit's own page
    names. Empty for a Streamlit whose files have other names.
    """
    folder = Path(get_static_dir())
    named = set(re.findall(r"static/js/([\w.-]+\.js)", (folder / "index.html").read_text("utf-8")))
    scripts = folder / "static" / "js"
    waiting = [path.name for name in LATE_MODULES for path in sorted(scripts.glob(f"{name}.*.js"))]
    files: dict[str, None] = {}
    while waiting:
        name = waiting.pop(0)
        if name not in files and name not in named:
            files[name] = None
            waiting += _IMPORT.findall((scripts / name).read_text("utf-8"))
    return tuple(files)


class PageShell:
    """ASGI middleware that adds `head_elements` to every HTML page that is opened."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if not _opens_page(scope):
            await self._app(scope, receive, send)
            return
        url = scope["path"].strip("/").rpartition("/")[2]
        headers = [(k, v) for k, v in scope["headers"] if k not in LEFT_OUT_REQUEST_HEADERS]
        await self._app(
            {**scope, "headers": headers, "extensions": {}}, receive, _with_head(send, url)
        )


def _opens_page(scope: Scope) -> bool:
    accepted = dict(scope.get("headers", ())).get(b"accept", b"")
    return scope["type"] == "http" and scope["method"] == "GET" and b"text/html" in accepted


def _with_head(send: Send, url: str) -> Send:
    """Collect an HTML answer, and send it with the further elements of its head."""
    started: list[Message] = []
    body = bytearray()

    async def send_with_head(message: Message) -> None:
        if message["type"] == "http.response.start" and _is_html(message):
            started.append(message)
        elif started and message["type"] == "http.response.body":
            body.extend(message.get("body", b""))
            if not message.get("more_body"):
                page = bytes(body).replace(HEAD, HEAD + head_elements(url).encode(), 1)
                kept = [h for h in started[0]["headers"] if h[0] not in CHANGED_HEADERS]
                length = (b"content-length", str(len(page)).encode())
                await send({**started[0], "headers": [*kept, length]})
                await send({"type": "http.response.body", "body": page})
        else:
            await send(message)

    return send_with_head


def _is_html(message: Message) -> bool:
    content_type = dict(message["headers"]).get(b"content-type", b"")
    return bool(message["status"] == 200 and content_type.startswith(b"text/html"))
