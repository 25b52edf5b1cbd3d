"""The server sends small messages at once, also from a listening socket like Streamlit's."""

import asyncio
import socket

from lab.dashboard.state.tcp_nodelay import send_without_delay


async def accepted_option() -> int:
    """TCP_NODELAY of a connection to a server that listens on such a socket."""
    listening = socket.socket()  # as Streamlit makes it: its protocol is 0, not TCP
    listening.bind(("127.0.0.1", 0))
    loop = asyncio.get_running_loop()
    send_without_delay(loop)
    accepted = loop.create_future()

    class Connection(asyncio.Protocol):
        def connection_made(self, transport):
            option = transport.get_extra_info("socket").getsockopt(
                socket.IPPROTO_TCP, socket.TCP_NODELAY
            )
            accepted.set_result(option)
            transport.close()

    server = await loop.create_server(Connection, sock=listening)
    _, writer = await asyncio.open_connection(*listening.getsockname())
    try:
        return await accepted
    finally:
        writer.close()
        server.close()


def test_a_small_message_does_not_wait_for_the_confirmation_of_the_one_before():
    assert asyncio.run(accepted_option()) == 1
