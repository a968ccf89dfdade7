"""Access control of routes: the API key that a request presents, and the Litestar guard that demands its scope.

Each route handler says in its `opt` who may call it, by exactly one of `scope` (a key with this scope), `public=True`
(anybody) and `own_keys=True` (the route asks AccessControl by itself, because its clients send keys in other ways).
"""

from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple

from litestar.connection import ASGIConnection, Request
from litestar.exceptions import ImproperlyConfiguredException, NotAuthorizedException, PermissionDeniedException
from litestar.handlers import BaseRouteHandler
from litestar.routes import ASGIRoute, HTTPRoute, WebSocketRoute
from litestar.status_codes import HTTP_401_UNAUTHORIZED

from api.clocks import Clock
from api.http.keys import EVERY, ApiKeys, PresentedKey, Scope

_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="journey-bandit"'}
_CARRIERS = frozenset((b"x-api-key", b"ocp-apim-subscription-key", b"authorization"))
_MISSING = "send a key as X-API-Key or Authorization: Bearer; make one with `journey-bandit keys new`"


Reporter = Callable[[Request[Any, Any, Any]], str]
"""Name of the key that a request presents, as the ledger keeps who reported something; "" where none is needed. Asked
for requests that the guard has let through.
"""


class ExpiredKey(NotAuthorizedException):
    """Refusal (401) of a key whose time is over. It is an error of its own so that each protocol tells the key's holder
    when the key expired, and tells strangers nothing.
    """


class Denial(NamedTuple):
    """Denial of a request: 401 for no key, 403 for a key without the scope. `expired`: if it was a key once, when that
    ended; strangers are told nothing.
    """

    status: Literal[401, 403]
    expired: str = ""


class AccessControl:
    """Access control of one service: what a presented key may do at the clock's time.

    `keys` is replaced as a whole when the file of keys is read again, so routes ask here at each request and hold no
    keys of their own. Reading takes no lock; any thread may call.
    """

    def __init__(self, keys: ApiKeys, clock: Clock):
        self.keys = keys
        self._clock = clock

    def scopes(self, key: str) -> list[Scope] | None:
        """Scopes of a presented `id.secret`; None if it is no key, or its time is over."""
        return self.keys.scopes(key, self._clock())

    def denied(self, key: str, scope: Scope) -> Denial | None:
        """Denial of a presented `id.secret` that does not open what needs `scope`; None if it does. The only place
        where a scope is checked: the guard asks here, and Segment's routes, whose keys may stand in the body.
        """
        scopes = self.scopes(key)
        if scopes is None:
            return Denial(401, self.keys.expired(key, self._clock()))
        return None if scope in scopes else Denial(403)

    def identify(self, key: str) -> PresentedKey | None:
        """Key that a presented `id.secret` is now; None if it is none."""
        return self.keys.valid(key, self._clock())

    def holder(self, key: str) -> str:
        """Name of a presented key, "" if it is none: who did something, as the ledger keeps it."""
        return self.keys.holder(key, self._clock())

    def named(self, key: str) -> str:
        """Name that a presented `id.secret` begins with: who reports something, as the ledger keeps it. Only for a key
        that has been found good; one that was refused names whom it likes.
        """
        return key.partition(".")[0]

    def loop(self, key: str) -> str:
        """Loop (a stage with request actions) that a key stands for, where a path of Personalizer's names none; "" if
        it stands for none.
        """
        return self.keys.loop(key)


def guard(gate: AccessControl) -> Any:
    """Litestar guard that refuses requests without a key of the route's scope, before their body is read. It lets
    everybody through to routes that are public, and to those that check keys by themselves.

    The guard raises NotAuthorizedException (401) for a missing key, ExpiredKey (401), and PermissionDeniedException
    (403) for a key without the scope.
    """

    def check(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
        scope = _scope(handler)
        if scope is None:
            return
        denial, headers = gate.denied(presented(connection), scope), dict(_CHALLENGE)
        if denial and denial.expired:
            raise ExpiredKey(denial.expired, headers=headers)
        if denial and denial.status == HTTP_401_UNAUTHORIZED:
            raise NotAuthorizedException(_MISSING, headers=headers)
        if denial:
            raise PermissionDeniedException(f"this route needs the scope {scope!r}")

    return check


def check_declared(routes: Iterable[HTTPRoute | ASGIRoute | WebSocketRoute]) -> None:
    """Check that every route of an app says who may call it, so that nobody forgets to. `api.app.create_service` calls
    it before the app serves, also for trials without keys. Raises ImproperlyConfiguredException, which names the route.
    """
    for route in routes:
        for handler in route.route_handlers if isinstance(route, HTTPRoute) else (route.route_handler,):
            try:
                _scope(handler)
            except ImproperlyConfiguredException as error:
                raise ImproperlyConfiguredException(f"{route.path}: {error.detail}") from error


def _scope(handler: BaseRouteHandler) -> Scope | None:
    """Scope that the guard demands for a route; None if it lets everybody through. ImproperlyConfiguredException if the
    route does not say.
    """
    said = [name for name in ("scope", "public", "own_keys") if handler.opt.get(name)]
    if not said and getattr(handler, "http_methods", ()) == {"OPTIONS"}:
        return None  # Litestar's own: the methods of a path
    if len(said) != 1 or handler.opt.get("scope", "read") not in EVERY:
        raise ImproperlyConfiguredException(f"opt needs one of scope ({', '.join(EVERY)}), public and own_keys")
    return handler.opt.get("scope")


def presented(connection: ASGIConnection[Any, Any, Any, Any]) -> str:
    """API key that a request carries, as `presented_in` finds it."""
    return presented_in(connection.scope["headers"])


def presented_in(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """API key in the headers of an ASGI scope: X-API-Key, Ocp-Apim-Subscription-Key or `Authorization: Bearer`; "" if
    there is none. Two keys count as none: which of them counts must not depend on a proxy.
    """
    found = [(name, value.decode("latin-1")) for name, value in headers if name in _CARRIERS]
    if len(found) != 1:
        return ""
    name, value = found[0]
    if name != b"authorization":
        return value
    scheme, _, rest = value.partition(" ")
    return rest if scheme.lower() == "bearer" else ""
