"""Addresses of clients: the connection's, or behind proxies that the settings name, what those say in X-Forwarded-For.

Anybody can write that header, and each proxy appends the address that asked it. So it is read from its end, and only as
far as proxies of ours have written it: the last address that is none of theirs is the client's.
"""

import ipaddress
from collections.abc import Iterable, Sequence

_FORWARDED = b"x-forwarded-for"

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def networks(words: str) -> tuple[Network, ...]:
    """Networks or single addresses with commas between, such as 10.0.0.0/8,2001:db8::7. Raises ValueError, which says
    which is none.
    """
    return tuple(ipaddress.ip_network(word.strip()) for word in words.split(",") if word.strip())


class TrustedProxies:
    """Proxies that say whose request they pass on, by the networks of their addresses. Immutable."""

    def __init__(self, trusted: Sequence[Network] = ()):
        self._trusted = tuple(trusted)

    def __contains__(self, address: object) -> bool:
        """Whether an address as text is a proxy's."""
        found = _parsed(str(address)) if self._trusted else None
        return found is not None and self._ours(found)

    def client(self, peer: str, headers: Iterable[tuple[bytes, bytes]]) -> str:
        """Address of the client whose request came over a connection of `peer` with these headers. Where all that is
        said is a proxy's, it is the first of them; where something is no address, the proxy's that said it.
        """
        if peer not in self:
            return peer
        said = b",".join(value for name, value in headers if name == _FORWARDED)
        found = peer
        for word in reversed(said.decode("latin-1").split(",")):
            address = _parsed(word)
            if address is None:
                return found
            found = str(address)
            if not self._ours(address):
                return found
        return found

    def _ours(self, address: Address) -> bool:
        return any(address.version == network.version and address in network for network in self._trusted)


def _parsed(word: str) -> Address | None:
    """Address in a word of the header, which some proxies write with a port; None if there is none."""
    text = word.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (found.ipv4_mapped or found) if isinstance(found, ipaddress.IPv6Address) else found
