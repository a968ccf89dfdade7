"""Where webhooks may go: not into a network of one's own unless it is allowed, whatever a name leads to."""

import socket
from typing import Any

import pytest

from api.webhooks.addresses import AddressRefused, connect, is_named_private, refusal

PRIVATE = ["127.0.0.1", "10.0.0.1", "172.16.0.9", "192.168.1.1", "100.64.0.1", "::1", "fd00::1", "::ffff:10.0.0.1"]
NEVER = ["169.254.169.254", "fe80::1", "fe80::1%eth0", "::ffff:169.254.169.254", "224.0.0.1", "0.0.0.0", "::"]  # noqa: S104


def test_addresses_of_ones_own_network_need_the_setting_and_some_are_never_allowed() -> None:
    for address in PRIVATE:
        assert "private = true" in refusal(address, private=False), address
        assert refusal(address, private=True) == "", address
    for address in NEVER:
        assert "nothing is sent there" in refusal(address, private=True), address
    for address in ("8.8.8.8", "2606:4700::1111"):
        assert refusal(address, private=False) == ""


@pytest.mark.parametrize("found", [["127.0.0.1"], ["8.8.8.8", "10.0.0.1"]])
def test_a_name_is_looked_up_at_each_attempt_and_not_followed_into_a_private_network(
    monkeypatch: pytest.MonkeyPatch, found: list[str]
) -> None:
    asked = list[str]()

    def resolved(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    def reached(*_: Any) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    monkeypatch.setattr(socket.socket, "connect", reached)
    for _ in range(2):
        with pytest.raises(AddressRefused, match="is a private address"):
            connect(("hooks.example", 443), 1.0, private=False)
    assert asked == ["hooks.example"] * 2


def test_who_writes_out_a_private_address_means_it() -> None:
    assert [is_named_private(host) for host in ("localhost", "127.0.0.1", "10.1.2.3", "::1")] == [True] * 4
    assert [is_named_private(host) for host in ("hooks.example", "8.8.8.8", "169.254.169.254", "")] == [False] * 4
