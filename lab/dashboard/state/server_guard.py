"""Checks every request before a page runs, and adds security headers to every response."""

import secrets
import sys
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

import streamlit as st

from lab.dashboard.state import actions
from lab.dashboard.state.room_votes import VISITOR_COOKIE

Header = tuple[bytes, bytes]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

LOCAL_HOST_NAMES = ("localhost", "127.0.0.1", "::1")
SECURITY_HEADERS = (
    (b"content-security-policy", b"frame-ancestors 'self'"),
    (b"x-frame-options", b"SAMEORIGIN"),
    (b"x-content-type-options", b"nosniff"),
)


def check_arguments() -> None:
    """Print who may reach and use the server. Exit at an argument that the dashboard does not know."""
    unknown_arguments = [argument for argument in sys.argv[1:] if argument != actions.ALLOW_FLAG]
    if unknown_arguments:
        sys.exit(
            f"error: The dashboard does not know '{unknown_arguments[0]}'. After `--` it accepts"
            f" only {actions.ALLOW_FLAG}."
        )
    if notice := actions.access_notice():
        print(notice, file=sys.stderr, flush=True)


class Guard:
    """ASGI middleware that refuses the pages of other sites: a request for a foreign host name, a
    websocket or an upload from a foreign origin, a frame around the dashboard.

    Streamlit alone accepts websockets from every port of this machine, so any local page that a
    visitor opens could control the dashboard. A program without a browser sends no origin and is
    accepted.
    """

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
        elif reason := request_refusal(scope):
            await _refuse(scope, receive, send, reason)
        else:
            await self._app(scope, receive, _with_headers(send, scope))


def request_refusal(scope: Scope) -> str:
    """Why a request is refused; empty for a request that is accepted."""
    headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
    host, origin = headers.get(b"host", ""), headers.get(b"origin")
    if actions.listens_on_localhost() and not _is_local(host):
        return f"This dashboard is served on localhost only, not as {host[:100]!r}."
    changes_state = scope["type"] == "websocket" or scope["method"] not in (
        "GET",
        "HEAD",
        "OPTIONS",
    )
    if (
        changes_state
        and origin is not None
        and urlsplit(origin).netloc != host
        and origin not in st.get_option("server.corsAllowedOrigins")
    ):
        return f"A page of {origin[:100]!r} may not use this dashboard, which is at {host[:100]!r}."
    if "/_stcore/upload_file/" in scope["path"] and changes_state and actions.refusal():
        return actions.READ_ONLY_NOTICE
    return ""


def _is_local(host: str) -> bool:
    try:
        return urlsplit(f"//{host}").hostname in LOCAL_HOST_NAMES
    except ValueError:
        return False


async def _refuse(scope: Scope, receive: Receive, send: Send, reason: str) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send(
            {"type": "websocket.close", "code": 1008, "reason": reason[:120]}
        )  # closed before it was accepted, so the server answers 403
        return
    await send(
        {
            "type": "http.response.start",
            "status": 403,
            "headers": [(b"content-type", b"text/plain; charset=utf-8"), *SECURITY_HEADERS],
        }
    )
    await send({"type": "http.response.body", "body": reason.encode()})


def _with_headers(send: Send, scope: Scope) -> Send:
    async def send_with_headers(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            headers = [*message.get("headers", ()), *SECURITY_HEADERS]
            message["headers"] = [*headers, *_visitor_cookie(scope, headers)]
        await send(message)

    return send_with_headers


def _visitor_cookie(scope: Scope, headers: Iterable[tuple[bytes, bytes]]) -> list[Header]:
    """The header that gives a browser a random name with its first page, so that a visitor who reloads
    has one vote in a room. The name ends with the browser's session.
    """
    cookies = b";".join(value for name, value in scope["headers"] if name == b"cookie")
    is_page = any(n.lower() == b"content-type" and v.startswith(b"text/html") for n, v in headers)
    if not is_page or f"{VISITOR_COOKIE}=".encode() in cookies:
        return []
    cookie = f"{VISITOR_COOKIE}={secrets.token_urlsafe(16)}; Path=/; HttpOnly; SameSite=Lax"
    return [(b"set-cookie", cookie.encode())]
