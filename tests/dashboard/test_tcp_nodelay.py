"""The server sends small messages at once, also from a listening socket like Streamlit's."""

import asyncio
import socket

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol
from uvicorn.server import ServerState

from lab.dashboard.state.tcp_nodelay import send_without_delay


async def accepted_option() -> int:
    """TCP_NODELAY of a connection that uvicorn's protocol accepts."""
    listening = socket.socket()  # as Streamlit makes it: its protocol is 0, not TCP
    listening.bind(("127.0.0.1", 0))
    accepted = []

    def protocol():
        accepted.append(AutoHTTPProtocol(config, ServerState(), {}))
        return accepted[-1]

    config = uvicorn.Config(app=lambda *_: None, log_config=None)
    config.load()
    server = await asyncio.get_running_loop().create_server(protocol, sock=listening)
    _, writer = await asyncio.open_connection(*listening.getsockname())
    try:
        while not (accepted and getattr(accepted[0], "transport", None)):
            await asyncio.sleep(0)
        connection = accepted[0].transport.get_extra_info("socket")
        return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    finally:
        writer.close()
        accepted[0].transport.close()
        server.close()


def test_a_small_message_does_not_wait_for_the_confirmation_of_the_one_before(monkeypatch):
    monkeypatch.setattr(AutoHTTPProtocol, "connection_made", AutoHTTPProtocol.connection_made)
    send_without_delay()
    assert asyncio.run(accepted_option()) == 1
