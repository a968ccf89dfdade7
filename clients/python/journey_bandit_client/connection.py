"""Where a client connects, and what it says of itself. What could never reach a service is refused here: later it would
look like a service that is away.
"""

import httpx


def connected_to(url: str, key: str) -> tuple[str, dict[str, str]]:
    """Address and headers of every request. Raises ValueError; its words never hold the key."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ValueError(f"url is {url!r}: {error}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError(f"url is {url!r}: write it as http://host:port or https://host")
    if key and not (key.isascii() and key.isprintable() and " " not in key):
        raise ValueError("key holds spaces, line ends or letters outside ASCII: give the key as `keys new` printed it")
    headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "journey-bandit-client"}
    return url.rstrip("/"), headers | ({"X-API-Key": key} if key else {})
