"""Access log: a line for each answer, with the route's template in place of the path, so that no id of a person is in
it. Off unless it was asked for.
"""

import logging
from collections.abc import Awaitable, Callable
from time import perf_counter

from litestar.enums import HttpMethod
from litestar.types import HTTPScope, Message, Receive, Send

from api.telemetry.logs import FIELDS

Serve = Callable[[HTTPScope, Receive, Send], Awaitable[None]]
"""What serves one HTTP request."""

log = logging.getLogger("journey_bandit.access")


def route_of(scope: HTTPScope) -> str:
    """Template of the route that a request reached; "(refused)" if it reached none."""
    return str(scope.get("path_template") or "(refused)")


def method_of(scope: HTTPScope) -> str:
    """Method of a request; one that HTTP does not know is one of others."""
    return str(scope["method"]) if scope["method"] in HttpMethod.__members__ else "(other)"


def logged(serve: Serve) -> Serve:
    """`serve` with a line in the log once each request is answered: method, route, status (0 if nothing was answered)
    and milliseconds.
    """

    async def logging_each(scope: HTTPScope, receive: Receive, send: Send) -> None:
        start, method, status = perf_counter(), method_of(scope), 0

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await serve(scope, receive, noting)
        finally:
            route, ms = route_of(scope), round((perf_counter() - start) * 1000, 3)
            fields = {"method": method, "route": route, "status": status, "ms": ms}
            log.info("%s %s %d %g ms", method, route, status, ms, extra={FIELDS: fields})

    return logging_each
