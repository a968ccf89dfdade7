"""Where the protocols of others begin in a path, whatever stands before them and however ids are encoded.

Clients are given an endpoint, which may have a path of its own: `https://host/loops/offers` becomes
`/loops/offers/personalizer/v1.0/rank`. Ids may hold slashes, sent as they are or as %2F. So paths are read from the
bytes that were sent, and written anew for the router: the protocol first, then one segment for each part, encoded.
"""

import re
from typing import cast
from urllib.parse import quote, unquote

from litestar import Litestar
from litestar.enums import ScopeType
from litestar.types import HTTPScope, LifeSpanReceive, LifeSpanScope, LifeSpanSend, Receive, Scope, Send

_VERSION = re.compile(r"v\d+(\.\d+)?(-preview(\.\d+)?)?")
_OURS = ("v1", "health", "metrics", "docs", "docs-assets")
_EVENTS = "events"
NO = "-"
"""Stands for a prefix or a version that is not there."""


class App(Litestar):
    """An application whose router sees canonical paths."""

    async def __call__(
        self, scope: Scope | LifeSpanScope, receive: Receive | LifeSpanReceive, send: Send | LifeSpanSend
    ) -> None:
        """Rewrite the path, then route."""
        if scope["type"] == ScopeType.HTTP:
            asked = cast(HTTPScope, scope)
            raw = asked["raw_path"]
            if b"ofrep" in raw or b"personalizer" in raw:
                asked["path"] = canonical(raw.decode("latin-1"))
        await super().__call__(scope, receive, send)


def canonical(raw: str) -> str:
    """The path for the router. What belongs to neither protocol is left as it is, decoded.

    /x/ofrep/v1/evaluate/flags/a%2Fb → /ofrep/v1/evaluate/flags/a%2Fb
    /loops/offers/personalizer/v1.0/events/a/b/reward → /personalizer/offers/v1.0/events/a%2Fb/reward
    """
    parts = [unquote(part) for part in raw.split("?", maxsplit=1)[0].split("/") if part]
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
