"""The address that a room gets: whom it reaches, what it leaves out, and that its QR code says it."""

import pytest
from support.qr_code import decode, modules

from lab.dashboard.components.present import qr_path
from lab.dashboard.state import visitor_address as address


@pytest.fixture
def listens_everywhere(monkeypatch):
    monkeypatch.setattr(address, "listens_on_localhost", lambda: False)
    monkeypatch.setattr(address, "network_address", lambda: "192.168.7.20")


def test_a_visitor_gets_the_address_in_the_browser_with_the_room_and_without_what_is_the_presenters():
    parameters = {
        "present": ["1"],
        "figure": ["2"],
        "guess": ["to half"],
        "G": ["8"],
        "room": ["ABCD"],
    }
    assert address.visitor_address("https://lab.example.org/x/grpo", parameters, "ABCD") == (
        "https://lab.example.org/x/grpo?G=8&room=ABCD",
        "",
    )


def test_localhost_becomes_the_address_in_the_network_if_the_server_listens_there(
    listens_everywhere,
):
    for host in ("localhost", "127.0.0.1"):
        assert address.visitor_address(f"http://{host}:8501/dpo", {}, "ABCD") == (
            "http://192.168.7.20:8501/dpo?room=ABCD",
            "",
        )


def test_a_server_that_only_this_computer_reaches_says_so(monkeypatch):
    monkeypatch.setattr(address, "listens_on_localhost", lambda: True)
    shown, hint = address.visitor_address("http://localhost:8501/dpo", {}, "ABCD")
    assert shown == "http://localhost:8501/dpo?room=ABCD" and "--server.address 0.0.0.0" in hint
    monkeypatch.setattr(address, "listens_on_localhost", lambda: False)
    monkeypatch.setattr(address, "network_address", lambda: "")
    assert "no address in a network" in address.visitor_address("http://localhost/", {}, "ABCD")[1]


def test_a_long_address_keeps_the_room_alone():
    parameters = {f"setting{i}": ["value"] for i in range(20)}
    shown, _ = address.visitor_address("https://lab.example.org/choose", parameters, "ABCD")
    assert shown == "https://lab.example.org/choose?room=ABCD"


@pytest.mark.parametrize("length", [14, 30, 60, 90, 119])
def test_the_qr_code_says_the_address(length):
    text = f"http://a/{'b=cD5%C3' * 20}"[:length]
    assert decode(modules(*qr_path(text))) == text
