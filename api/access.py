"""Who may call a route: the key that a request presents, and the guard that asks for its scope."""

from typing import Any

from litestar.connection import ASGIConnection
from litestar.exceptions import NotAuthorizedException, PermissionDeniedException
from litestar.handlers import BaseRouteHandler

from api.keys import Keys

_AZURE = "ocp-apim-subscription-key"


def guard(keys: Keys) -> Any:
    """Refuse requests without a key of the route's scope, before their body is read."""

    def check(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
        if handler.opt.get("public") or "scope" not in handler.opt:
            return
        scopes = keys.scopes(presented(connection))
        if scopes is None:
            raise NotAuthorizedException(
                "send a key as X-API-Key or Authorization: Bearer; make one with `journey-bandit keys new`",
                headers={"WWW-Authenticate": 'Bearer realm="journey-bandit"'},
            )
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
