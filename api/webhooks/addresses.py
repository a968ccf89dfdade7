"""Addresses of webhook endpoints: which ones messages may go to. A name is resolved for each attempt, and the
connection goes to the address that was looked at, so that a name cannot lead elsewhere a moment later.
"""

import ipaddress
import socket

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class AddressRefused(OSError):
    """Address that no message is sent to. The text says why, and what allows it."""


def refusal(address: str, *, private: bool) -> str:
    """Why nothing is sent to an IP address; "" if it may be. `private`: the endpoint's setting. Link-local addresses,
    among which clouds keep the credentials of a machine, are never allowed.
    """
    found: Address = ipaddress.ip_address(address.partition("%")[0])
    found = getattr(found, "ipv4_mapped", None) or found
    if found.is_link_local or found.is_multicast or found.is_unspecified:
        return f"{address} is link-local, multicast or no address: nothing is sent there"
    if not private and not found.is_global:
        return f"{address} is a private address: private = true at the endpoint allows it"
    return ""


def connect(where: tuple[str, int], timeout: float, *, private: bool) -> socket.socket:
    """Connection to a host and port: to the first of its addresses that answers. Raises AddressRefused if any of them
    may not be used, OSError if none answers.
    """
    found = socket.getaddrinfo(*where, type=socket.SOCK_STREAM)
    for _, _, _, _, (address, *_) in found:
        if why := refusal(str(address), private=private):
            raise AddressRefused(why)
    error: OSError = OSError(f"{where[0]} has no address")
    for family, kind, protocol, _, to in found:
        connection = socket.socket(family, kind, protocol)
        connection.settimeout(timeout)
        try:
            connection.connect(to)
        except OSError as failed:
            connection.close()
            error = failed
        else:
            return connection
    raise error


def is_named_private(host: str) -> bool:
    """Whether a host is written as an address that only `private` allows, or as localhost: who writes it means it."""
    try:
        return bool(refusal(host, private=False)) and not refusal(host, private=True)
    except ValueError:
        return host == "localhost"
