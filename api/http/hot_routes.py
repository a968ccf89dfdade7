"""Hot routes: the POST routes that apps call once for each person, answered without Litestar's routing, parameters and
middleware, which cost several times what a decision costs.

A route is hot if its `opt` has HOT, a function from the request and the bytes of its body to the reply; the route's own
handler calls the same function, and Litestar keeps its documentation, its guard and everything unusual. A request takes
the hot path only if it is plain: one Host, a Content-Length within the route's limit, a body that is not encoded, no
Origin, and a key that opens the route. Any other goes through Litestar, so that every refusal is made in one place.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from time import perf_counter
from typing import Any, NamedTuple

import msgspec
from litestar import Request, Response
from litestar.exceptions import ClientException
from litestar.routes import ASGIRoute, HTTPRoute, WebSocketRoute
from litestar.types import ExceptionHandler, HTTPScope, Receive, Send
from prometheus_client import Counter

from api.http.access import AccessControl, presented_in
from api.http.keys import Scope
from api.http.request_body import received
from api.http.unread_body import UnreadBody, is_host
from api.metrics import Metrics
from api.traffic.request_limits import Visit

HOT = "hot"
"""Key of a route handler's `opt` under which its hot answer stands."""

HotAnswer = Callable[[Request[Any, Any, Any], bytes], Awaitable[Any]]
"""Answer of a hot route: from the request and its body to a reply that msgspec encodes, or to a Response of bytes."""

_UNUSUAL = frozenset((b"content-encoding", b"transfer-encoding", b"expect", b"origin"))


class HotRoute(NamedTuple):
    """Hot route as it is served: its answer, the scope of a key that opens it (None: it checks keys by itself, or needs
    none), the longest body in bytes, the error handler of its protocol, and the counter of its good answers.
    """

    path: str
    answer: HotAnswer
    scope: Scope | None
    most: int
    refuse: "ExceptionHandler[Exception]"
    answered: Counter


class HotRoutes:
    """Hot routes of one app by path. `gate` None: no key is needed. Belongs to the app's event loop."""

    def __init__(
        self, routes: Iterable[HTTPRoute | ASGIRoute | WebSocketRoute], gate: AccessControl | None, metrics: Metrics
    ):
        self._gate, self._metrics = gate, metrics
        self._routes: Mapping[str, HotRoute] = {
            route.path: HotRoute(
                route.path,
                handler.opt[HOT],
                handler.opt.get("scope") if gate else None,
                handler.resolve_request_max_body_size() or 0,
                handler.resolve_exception_handlers()[Exception],
                metrics.responses.labels("POST", route.path, "200"),
            )
            for route in routes
            if isinstance(route, HTTPRoute)
            for handler in route.route_handlers
            if HOT in handler.opt
        }

    def find(self, scope: HTTPScope) -> HotRoute | None:
        """Hot route of a request that is plain; None for any other."""
        route = self._routes.get(scope["path"])
        if route is None or scope["method"] != "POST":
            return None
        hosts, length = 0, b""
        for name, value in scope["headers"]:
            if name == b"host":
                hosts += 1 if is_host(value) else 2
            elif name == b"content-length":
                length = b"" if length else value
            elif name in _UNUSUAL:
                return None
        if hosts != 1 or not length.isdigit() or not 0 < int(length) <= route.most:
            return None
        if route.scope and self._gate and self._gate.denied(presented_in(scope["headers"]), route.scope):
            return None
        return route

    async def serve(
        self, route: HotRoute, scope: HTTPScope, receive: Receive, send: Send, visit: Visit | None = None
    ) -> None:
        """Serve one request that `find` found plain, when its `visit` has its turn. Errors are answered as the route's
        protocol answers them.
        """
        start = perf_counter()
        scope["path_template"] = route.path
        request: Request[Any, Any, Any] = Request(scope, receive, send)
        try:
            try:
                raw = await received(receive, route.most)
            except ClientException:
                send = UnreadBody(scope, receive, send, seconds=0.0).send
                raise
            if visit is not None:
                await visit.turn()
            reply = await route.answer(request, raw)
        except Exception as error:  # noqa: BLE001 - the protocol's handler answers, and logs, whatever it was
            response = route.refuse(request, error)
            self._metrics.responses.labels("POST", route.path, str(response.status_code)).inc()
            self._metrics.response_seconds.observe(route.path, perf_counter() - start)
            await response.to_asgi_response(app=None, request=request)(scope, receive, send)
            return
        body = reply.content if isinstance(reply, Response) else msgspec.json.encode(reply)
        route.answered.inc()
        self._metrics.response_seconds.observe(route.path, perf_counter() - start)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        if visit is not None:
            headers += visit.headers()
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})
