"""Where the server listens and what it answers to: loopback as ever, else with a warning."""

from __future__ import annotations

import socket

import pytest

from app.hosts import address_of
from core.errors import BadInput


@pytest.fixture
def port() -> int:
    """A port that is free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_this_machine_alone_is_no_reason_for_a_warning(port: int, host: str) -> None:
    found = address_of(host, port)
    assert found.host == "127.0.0.1"
    assert found.names == ("localhost", "127.0.0.1")
    assert found.url == f"http://localhost:{port}"
    assert found.warning == ""


def test_another_loopback_address_is_answered_to(port: int) -> None:
    found = address_of("127.0.0.2", port)
    assert (found.host, found.names[-1], found.warning) == ("127.0.0.2", "127.0.0.2", "")
    assert found.url == f"http://127.0.0.2:{port}"


def test_all_addresses_mean_a_warning_and_our_own_names(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = [("lo", "127.0.0.1"), ("lo", "::1"), ("a", "192.0.2.7"), ("a", "fe80::1%a")]
    own += [("b", "2001:db8::7")]
    families = {True: socket.AF_INET6, False: socket.AF_INET}
    kind = type("Address", (), {})
    interfaces: dict[str, list[object]] = {}
    for name, address in own:
        one = kind()
        one.family, one.address = families[":" in address], address
        interfaces.setdefault(name, []).append(one)
    monkeypatch.setattr("psutil.net_if_addrs", lambda: interfaces)
    monkeypatch.setattr(socket, "gethostname", lambda: "GPU-box")

    found = address_of("0.0.0.0", port, ("Team.example.org.",))

    assert found.host == "0.0.0.0"
    assert found.names == (
        "localhost", "127.0.0.1", "team.example.org", "gpu-box", "192.0.2.7", "2001:db8::7",
    )  # fmt: skip
    assert found.url == f"http://gpu-box:{port}"
    assert "without a login" in found.warning
    assert "read and start studies" in found.warning


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid", "", "unix:///tmp/x"])
def test_what_is_no_address_of_this_machine_is_refused(port: int, host: str) -> None:
    with pytest.raises(BadInput, match="--host"):
        address_of(host, port)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "*",
        "*.example.org",
        "http://a.test",
        "a.test:80",
        "a b",
        "-a",
        "a..b",
        "a/b",
        "a@b",
        "é",
    ],
)
def test_what_is_no_name_cannot_be_allowed(port: int, name: str) -> None:
    with pytest.raises(BadInput, match="--allow-host"):
        address_of("127.0.0.1", port, (name,))


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_an_impossible_port_is_refused(port: int) -> None:
    with pytest.raises(BadInput, match="1 to 65535"):
        address_of("127.0.0.1", port)
