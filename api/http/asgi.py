"""ASGI layer that HTTP asks of every route, whatever its protocol: one Host header, HEAD where there is GET, an answer
that the client reads (`api.http.unread_body`), and not at the cost of memory (`api.traffic.paced_answers`). Plain
requests of hot routes are served here.
"""

from typing import Any, cast

from litestar import Litestar, Request, Response
from litestar.enums import ScopeType
from litestar.exceptions import ClientException
from litestar.types import HTTPScope, LifeSpanReceive, LifeSpanScope, LifeSpanSend, Message, Receive, Scope, Send

from api.http.hot_routes import HotRoutes
from api.http.protocol_paths import rewrite
from api.http.unread_body import UnreadBody, is_host
from api.traffic.paced_answers import LargeAnswers, PacedAnswer
from api.traffic.refusals import LimitReached


class ProtocolApp(Litestar):
    """Litestar application whose router sees canonical paths, and whose answers reach clients that are still sending.
    `api.app.create_service` makes one for each service, and sets `hot`, its hot routes.
    """

    hot: HotRoutes | None = None

    def __init__(self, *given: Any, **named: Any):
        self.large = LargeAnswers(self._busy)
        super().__init__(*given, **named)

    async def __call__(
        self, scope: Scope | LifeSpanScope, receive: Receive | LifeSpanReceive, send: Send | LifeSpanSend
    ) -> None:
        """Serve one HTTP request, or the lifespan. A request without exactly one usable Host is answered 400 in the
        error shape of its protocol; HEAD is served as GET without a body.
        """
        if scope["type"] != ScopeType.HTTP:
            await super().__call__(scope, receive, send)
            return
        asked = cast(HTTPScope, scope)
        route = self.hot.find(asked) if self.hot else None
        if self.hot and route:
            await self.hot.serve(route, asked, cast(Receive, receive), cast(Send, send))
            return
        rewrite(asked)
        paced = PacedAnswer(self.large, asked, cast(Send, send))
        rest = UnreadBody(asked, cast(Receive, receive), paced.send)
        answer: Send = rest.send
        if asked["method"] == "HEAD":
            asked["method"], answer = "GET", _headers_only(answer)
        if _addressed(asked):
            await super().__call__(asked, rest.receive, answer)
        else:
            await self._refuse(asked, rest.receive, answer)

    async def _refuse(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        """400 in the shape of the path's protocol: a request without a Host, or with two, may be read in two ways."""
        request: Request[Any, Any, Any] = Request(scope, receive, send)
        wrong = {"key": "Host", "message": "missing, there twice, or not a host: send one Host header"}
        error = ClientException("the request needs one Host header", extra=[wrong])
        response = self.exception_handlers[Exception](request, error)
        await response.to_asgi_response(app=None, request=request)(scope, receive, send)

    def _busy(self, scope: HTTPScope) -> Response[bytes]:
        """503 in the shape of the path's protocol: as many large answers are sent as may be."""
        detail = f"{self.large.most} large answers are sent at the moment, and no more are at once (large_answers)"
        error = LimitReached(503, detail, "ask again later", self.large.seconds / 2)
        return self.exception_handlers[Exception](Request[Any, Any, Any](scope), error)


def _addressed(scope: HTTPScope) -> bool:
    """Whether the request has exactly one Host that can be one; HTTP/1.0 needs none."""
    hosts = [value for name, value in scope["headers"] if name == b"host"]
    if not any(hosts) and scope["http_version"] in ("1.0", "1"):  # granian: "1", and an empty Host
        return True
    return len(hosts) == 1 and is_host(hosts[0])


def _headers_only(send: Send) -> Send:
    """An answer without its body: HEAD is GET otherwise."""

    async def headers_only(message: Message) -> None:
        if message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await send(message)

    return headers_only
