"""Lets the server send every small message at once."""

import asyncio
import socket
from typing import Any


def send_without_delay(loop: asyncio.AbstractEventLoop) -> None:
    """Set TCP_NODELAY on every socket on which `loop` begins to listen. Its connections inherit it.

    asyncio sets it only where a socket names its protocol, and Streamlit's listening socket does not.
    Without it the system holds the second small packet of every answer back until the browser has
    confirmed the first, which takes 40 ms (Nagle's algorithm and delayed confirmations, RFC 896 and
    RFC 1122). A page loads some 70 small files, most of them one after another.
    """
    create_server = loop.create_server

    async def listen_without_delay(*arguments: Any, **options: Any) -> asyncio.Server:
        server: asyncio.Server = await create_server(*arguments, **options)
        for listening in server.sockets:
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return server

    loop.create_server = listen_without_delay  # type: ignore[method-assign]
