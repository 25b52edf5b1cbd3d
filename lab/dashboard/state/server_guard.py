"""What the server lets in before a page is run, and the headers of all that it sends."""

import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

import streamlit as st

from lab.dashboard.state import actions

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

NAMES = ("localhost", "127.0.0.1", "::1")
HEADERS = (
    (b"content-security-policy", b"frame-ancestors 'self'"),
    (b"x-frame-options", b"SAMEORIGIN"),
    (b"x-content-type-options", b"nosniff"),
)


def check_arguments() -> None:
    """Say on the terminal whom the server lets do what; end it at an argument that is none of the
    dashboard's.
    """
    unknown = [argument for argument in sys.argv[1:] if argument != actions.ALLOW]
    if unknown:
        sys.exit(
            f"error: The dashboard does not know '{unknown[0]}'. Behind `--` it takes"
            f" {actions.ALLOW} and nothing else."
        )
    if notice := actions.notice():
        print(notice, file=sys.stderr, flush=True)


class Guard:
    """Refuses pages of other sites: a request under a foreign name, a websocket or an upload from a
    foreign origin, a frame around the dashboard.

    Streamlit by itself takes websockets from every port of this machine, so that any local page
    could steer the dashboard of who looks at it. A program without a browser sends no origin, and
    is let in.
    """

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
        elif reason := refused(scope):
            await _refuse(scope, receive, send, reason)
        else:
            await self._app(scope, receive, _with_headers(send))


def refused(scope: Scope) -> str:
    """Why a request is not let in; empty for one that is."""
    headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
    host, origin = headers.get(b"host", ""), headers.get(b"origin")
    if actions.local() and not _is_local(host):
        return f"This dashboard is served on localhost alone, not as {host[:100]!r}."
    acts_here = scope["type"] == "websocket" or scope["method"] not in ("GET", "HEAD", "OPTIONS")
    if (
        acts_here
        and origin is not None
        and urlsplit(origin).netloc != host
        and origin not in st.get_option("server.corsAllowedOrigins")
    ):
        return f"A page of {origin[:100]!r} may not use this dashboard, which is at {host[:100]!r}."
    if "/_stcore/upload_file/" in scope["path"] and acts_here and actions.refusal():
        return actions.SHOWS
    return ""


def _is_local(host: str) -> bool:
    try:
        return urlsplit(f"//{host}").hostname in NAMES
    except ValueError:
        return False


async def _refuse(scope: Scope, receive: Receive, send: Send, reason: str) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send(
            {"type": "websocket.close", "code": 1008, "reason": reason[:120]}
        )  # Before it was accepted: the server answers 403.
        return
    await send(
        {
            "type": "http.response.start",
            "status": 403,
            "headers": [(b"content-type", b"text/plain; charset=utf-8"), *HEADERS],
        }
    )
    await send({"type": "http.response.body", "body": reason.encode()})


def _with_headers(send: Send) -> Send:
    async def sent(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *HEADERS]
        await send(message)

    return sent
