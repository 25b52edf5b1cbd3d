"""The address under which other computers reach a page of this dashboard."""

import socket
from collections.abc import Mapping
from urllib.parse import urlencode, urlsplit, urlunsplit

import streamlit as st

from lab.dashboard.state.actions import listens_on_localhost
from lab.dashboard.state.server_guard import LOCAL_HOST_NAMES

OWN_PARAMETERS = ("present", "figure", "guess")
"""Parts of an address that are the presenter's own: the mode, the figure on the screen, the guess."""
MAX_LENGTH = 120  # characters; a camera reads the QR code of a longer address only from near by
ONLY_HERE = (
    "Only this computer can open this address. For a class, start the dashboard with"
    " --server.address 0.0.0.0."
)
NO_NETWORK = "This computer has no address in a network, so only it can open this address."


def visitor_address(url: str, parameters: Mapping[str, list[str]], room: str) -> tuple[str, str]:
    """The address of the page for a visitor, and a hint if visitors cannot use it, else an empty text.
    An address that would be longer than `MAX_LENGTH` keeps the room alone.

    url: the address in the presenter's browser, without parameters
    parameters: the parameters of that address
    room: the code of the room

    Where the browser says localhost and the server listens on more, the address of this machine in
    its network stands in place of localhost.
    """
    parts, hint = urlsplit(url), ""
    if parts.hostname in LOCAL_HOST_NAMES:
        own = "" if listens_on_localhost() else network_address()
        if own:
            parts = parts._replace(netloc=f"{own}:{parts.port}" if parts.port else own)
        else:
            hint = ONLY_HERE if listens_on_localhost() else NO_NETWORK
    query = [
        (name, value)
        for name, values in parameters.items()
        if name not in (*OWN_PARAMETERS, "room")
        for value in values
    ]
    texts = [urlencode([*more, ("room", room)]) for more in (query, [])]
    addresses = [urlunsplit(parts._replace(query=text)) for text in texts]
    return addresses[len(addresses[0]) > MAX_LENGTH], hint


def network_address() -> str:
    """The IPv4 address with which this machine reaches other networks, empty without a network. Nothing
    is sent: connecting a datagram socket only asks the routing table.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # an address for documentation, which nobody has
            address = str(probe.getsockname()[0])
        except OSError:
            return ""
    return "" if address.startswith(("127.", "0.")) else address


def shown_address(room: str) -> tuple[str, str]:
    """`visitor_address` of the page that the browser shows."""
    parameters = {name: st.query_params.get_all(name) for name in st.query_params}
    return visitor_address(st.context.url or "", parameters, room)
