"""Who a client is behind proxies: what ours say of it, and nothing that anybody else can write."""

import pytest

from api.traffic.client_addresses import TrustedProxies, networks

OURS = TrustedProxies(networks("10.0.0.0/8, 2001:db8::/32"))


def client(peer: str, *said: str, proxies: TrustedProxies = OURS) -> str:
    """Client by the connection's address and the values of X-Forwarded-For."""
    return proxies.client(peer, [(b"host", b"x"), *((b"x-forwarded-for", one.encode()) for one in said)])


def test_the_header_is_not_read_unless_the_connection_is_a_trusted_proxys() -> None:
    assert client("192.0.2.9", "198.51.100.1") == "192.0.2.9"
    assert client("10.0.0.1", "198.51.100.1", proxies=TrustedProxies()) == "10.0.0.1"
    assert client("10.0.0.1", "198.51.100.1") == "198.51.100.1"
    assert client("10.0.0.1") == "10.0.0.1"


def test_the_last_address_that_is_no_proxys_is_the_client() -> None:
    """What stands before it, the client may have written by itself."""
    assert client("10.0.0.1", "203.0.113.5, 198.51.100.1, 10.2.2.2") == "198.51.100.1"
    assert client("10.0.0.1", "203.0.113.5", "198.51.100.1") == "198.51.100.1", "two headers are one list"
    assert client("2001:db8::1", "203.0.113.5, 2001:db8::2") == "203.0.113.5"
    assert client("10.0.0.1", "10.3.3.3,10.2.2.2") == "10.3.3.3"


@pytest.mark.parametrize("said", ["unknown", "", "198.51.100.1, unknown", "198.51.100.1,", "_hidden, 300.1.1.1"])
def test_what_is_no_address_is_counted_as_the_proxys_own(said: str) -> None:
    assert client("10.0.0.1", said) == "10.0.0.1"


@pytest.mark.parametrize(
    ("written", "address"),
    [
        ("198.51.100.1:4711", "198.51.100.1"),
        ("[2001:dbb::5]:4711", "2001:dbb::5"),
        ("[2001:dbb::5]", "2001:dbb::5"),
        ("2001:DBB:0::5", "2001:dbb::5"),
        ("::ffff:198.51.100.1", "198.51.100.1"),
    ],
)
def test_an_address_is_one_however_a_proxy_writes_it(written: str, address: str) -> None:
    assert client("10.0.0.1", written) == address
    assert client("::ffff:10.0.0.1", written) == address
