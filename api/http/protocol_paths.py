"""Paths of the protocols of others (OFREP, Personalizer): where the protocol begins in a path, because clients
may put a prefix before it and encode ids.

Clients are given an endpoint, which may have a path of its own: `https://host/loops/offers` becomes
`/loops/offers/personalizer/v1.0/rank`. Ids may hold slashes, sent as they are or as %2F. So paths are read from the
bytes that were sent, and written anew for the router: the protocol first, then one segment for each part, encoded.
"""

import re
from urllib.parse import quote, unquote, unquote_to_bytes

from litestar.types import HTTPScope

from bandit.errors import InvalidRequest, Problem

_VERSION = re.compile(r"v\d+(\.\d+)?(-preview(\.\d+)?)?")
_OURS = ("v1", "health", "metrics", "docs", "docs-assets")
_USER = re.compile(r"/+v1/+users/(.+?)(/journey|/export|)/?", re.DOTALL)
_EVENTS = "events"
NO = "-"
"""Stands for a prefix or a version that is not there."""


def rewrite(scope: HTTPScope) -> None:
    """Replace the path in an ASGI scope by its canonical form, in place, before the router sees it. Paths of other
    protocols stay as they are.
    """
    raw = scope["raw_path"]
    if b"ofrep" in raw or b"personalizer" in raw or b"/users/" in raw:
        scope["path"] = canonical(raw.decode("latin-1"))


def user_of(part: str) -> str:
    """Id of a user, from its part of a canonical path. Raises InvalidRequest where it is not UTF-8."""
    try:
        return unquote(part, errors="strict")
    except UnicodeDecodeError:
        problem = Problem("user_id", "not UTF-8 once it is decoded", "percent-encode its UTF-8 bytes")
        raise InvalidRequest(problem) from None


def canonical(raw: str) -> str:
    """Path for the router, from the raw path as it was sent (Latin-1 text). A path without an id in it is only decoded.

    /x/ofrep/v1/evaluate/flags/a%2Fb → /ofrep/v1/evaluate/flags/a%2Fb
    /loops/offers/personalizer/v1.0/events/a/b/reward → /personalizer/offers/v1.0/events/a%2Fb/reward
    /v1/users/a/b%3Fc/journey → /v1/users/a%2Fb%3Fc/journey
    """
    path = raw.split("?", maxsplit=1)[0]
    user = _USER.fullmatch(path)
    if user:
        return f"/v1/users/{quote(unquote_to_bytes(user[1].encode('latin-1')), safe='')}{user[2]}"
    parts = [unquote(part) for part in path.split("/") if part]
    if parts and parts[0] in _OURS:
        return unquote(raw)
    if "ofrep" in parts:
        rest = parts[parts.index("ofrep") + 1 :]
        key = rest[3:]
        return _path("ofrep", *rest[:3], *(["/".join(key)] if key else []))
    if "personalizer" in parts:
        at = parts.index("personalizer")
        loop, rest = parts[at - 1] if at else NO, parts[at + 1 :]
        version, rest = (rest[0], rest[1:]) if rest and _VERSION.fullmatch(rest[0]) else (NO, rest)
        return _path("personalizer", loop, version, *_one_id(rest))
    return unquote(raw)


def _one_id(rest: list[str]) -> list[str]:
    """What stands between `events` and the last part is one id."""
    if _EVENTS not in rest[:2] or len(rest) < rest.index(_EVENTS) + 3:
        return rest
    at = rest.index(_EVENTS) + 1
    return [*rest[:at], "/".join(rest[at:-1]), rest[-1]]


def _path(*parts: str) -> str:
    return "/" + "/".join(quote(part, safe="") for part in parts)
