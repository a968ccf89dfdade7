"""Who may call a route: the key that a request presents, and the guard that asks for its scope."""

from typing import Any

from litestar.connection import ASGIConnection
from litestar.exceptions import NotAuthorizedException, PermissionDeniedException
from litestar.handlers import BaseRouteHandler

from api.clocks import Clock
from api.http.keys import ApiKeys, Scope

_AZURE = "ocp-apim-subscription-key"
_MISSING = "send a key as X-API-Key or Authorization: Bearer; make one with `journey-bandit keys new`"


class ExpiredKey(NotAuthorizedException):
    """A key that was one: its holder is told when that ended."""


class AccessControl:
    """The keys that are accepted now: read anew while the service runs, so everybody asks here each time."""

    def __init__(self, keys: ApiKeys, clock: Clock):
        self.keys = keys
        self._clock = clock

    def scopes(self, key: str) -> list[Scope] | None:
        """What a key may do; None if nobody gets in with it."""
        return self.keys.scopes(key, self._clock())

    def expired(self, key: str) -> str:
        """Why a key does not open any more; "" for anything that is no key."""
        return self.keys.expired(key, self._clock())

    def loop(self, key: str) -> str:
        """The loop that a key stands for; "" if none."""
        return self.keys.loop(key)


def guard(gate: AccessControl) -> Any:
    """Refuse requests without a key of the route's scope, before their body is read."""

    def check(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
        if handler.opt.get("public") or "scope" not in handler.opt:
            return
        key = presented(connection)
        scopes = gate.scopes(key)
        if scopes is None:
            headers, expired = {"WWW-Authenticate": 'Bearer realm="journey-bandit"'}, gate.expired(key)
            if expired:
                raise ExpiredKey(expired, headers=headers)
            raise NotAuthorizedException(_MISSING, headers=headers)
        if handler.opt["scope"] not in scopes:
            raise PermissionDeniedException(f"this route needs the scope {handler.opt['scope']!r}")

    return check


def presented(connection: ASGIConnection[Any, Any, Any, Any]) -> str:
    """The key sent, or "". Two of them are none: which one counts must not depend on a proxy."""
    keys = [key for name in ("x-api-key", _AZURE) for key in connection.headers.getall(name, [])]
    others = connection.headers.getall("authorization", [])
    if len(keys) + len(others) != 1:
        return ""
    scheme, _, value = (others or [f"Bearer {keys[0]}"])[0].partition(" ")
    return value if scheme.lower() == "bearer" else ""
