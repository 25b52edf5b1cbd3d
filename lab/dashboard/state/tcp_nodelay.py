"""Lets the server send every small message at once."""

import asyncio
import socket
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol


def send_without_delay() -> None:
    """Set TCP_NODELAY on every connection that the server accepts from now on; called once per server.

    asyncio sets it only where a socket names its protocol, and Streamlit's listening socket does not.
    Without it the system holds the second small packet of every answer back until the browser has
    confirmed the first, which takes 40 ms (Nagle's algorithm and delayed confirmations, RFC 896 and
    RFC 1122). A page loads some 70 small files, most of them one after another.
    """
    connection_made = AutoHTTPProtocol.connection_made

    def made_without_delay(self: Any, transport: asyncio.Transport) -> None:
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection_made(self, transport)

    AutoHTTPProtocol.connection_made = made_without_delay  # type: ignore[method-assign, assignment]
