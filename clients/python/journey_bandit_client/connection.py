"""Where a client connects, and what it says of itself. What could never reach a service is refused here: later it would
look like a service that is away.
"""

import httpx

LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=5.0)
"""Connections of a client: as many as there are requests at a time, each kept for 5 idle seconds. httpx's own bound of
100 would let the others wait within their deadlines, as if the service were away.
"""


def connected_to(url: str, key: str) -> tuple[str, dict[str, str]]:
    """Address and headers of every request. Raises ValueError; its words hold neither the key nor the address, which
    may have a password in it.
    """
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        raise ValueError("url is no address: write it as http://host:port or https://host") from None
    if parsed.userinfo:
        raise ValueError("url holds a user name or a password: leave them out, and give the key of the service as key")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError(
            "url is no address with http or https and a host: write it as http://host:port or https://host"
        )
    if key and not (key.isascii() and key.isprintable() and " " not in key):
        raise ValueError("key holds spaces, line ends or letters outside ASCII: give the key as `keys new` printed it")
    headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "journey-bandit-client"}
    return url.rstrip("/"), headers | ({"X-API-Key": key} if key else {})
