"""ASGI layer that HTTP asks of every route, whatever its protocol: one Host header, HEAD where there is GET, an answer
that the client reads (`api.http.unread_body`), and not at the cost of memory (`api.traffic.paced_answers`). Plain
requests of hot routes are served here.
"""

import sys
from collections.abc import Callable
from typing import Any, cast

import msgspec
from litestar import Litestar, Request, Response
from litestar.config.cors import CORSConfig
from litestar.enums import ScopeType
from litestar.exceptions import ClientException, PermissionDeniedException
from litestar.types import HTTPScope, LifeSpanReceive, LifeSpanScope, LifeSpanSend, Message, Receive, Scope, Send

from api.http.access import presented_in
from api.http.error_responses import MEDIA, limit_problem
from api.http.hot_routes import HotRoutes
from api.http.protocol_paths import rewrite
from api.http.unread_body import UnreadBody, is_host
from api.telemetry.access_log import Serve
from api.telemetry.request_context import CURRENT, RequestContext, current_id
from api.traffic.client_addresses import TrustedProxies
from api.traffic.connections import network
from api.traffic.delays import CommonDelays
from api.traffic.paced_answers import LargeAnswers, PacedAnswer, nothing
from api.traffic.refusals import LimitReached
from api.traffic.request_limits import RequestLimits, Visit, remember

_READING, _PAGES = frozenset(("GET", "HEAD", "OPTIONS")), "/v1/browser/"
_STRANGE = "a trial (--dev) takes nothing from pages of other origins: name them with --cors"
_SMALL = 16_384  # bytes of a body that comes with its headers
_CONTENTS = 1000  # bodies of refusals that are kept
_OURS = "/v1/decisions"  # no other path may mean it
_HEAD = "journey_bandit.head"  # mark in the scope of a request that came as HEAD
_HEALTH = "/health/"  # probes are answered whoever asks for how much


class ProtocolApp(Litestar):
    """Litestar application whose router sees canonical paths, and whose answers reach clients that are still sending.
    `api.app.create_service` makes one for each service, and sets `hot`, its hot routes, and `limits`, those of requests
    (None: a trial, where nothing is limited), and `proxies`, whose word of a client's address is taken. `trial`: no key
    is needed, so pages of other origins may not write. `delays`: of refusals, to be ended when the service stops.
    """

    hot: HotRoutes | None = None
    limits: RequestLimits | None = None
    proxies = TrustedProxies()
    trial = False

    def __init__(self, *given: Any, plain: Callable[[str], bool], refused: Callable[[str, int], None], **named: Any):
        """`plain`: whether errors of a path are problem documents. `refused` counts an answer that no route gave, by
        method and status. The rest is Litestar's.
        """
        self.large = LargeAnswers(self._busy)
        self.plain, self._count = plain, refused
        self.entry: Serve = self._admit  # what is on for each request, such as the access log, is put around it
        self._contents: dict[str, bytes] = {}
        self.delays = CommonDelays()
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
        context = RequestContext(asked["headers"])
        before = CURRENT.set(context)
        try:
            await self.entry(asked, cast(Receive, receive), context.naming(cast(Send, send)))
        finally:
            CURRENT.reset(before)

    async def _admit(self, asked: HTTPScope, receive: Receive, send: Send) -> None:
        """Serve a request within the limits of its key or address, or turn it away."""
        if self.limits is None or asked["path"].startswith(_HEALTH):
            await self._serve(asked, receive, send, None)
            return
        try:
            visit = self.limits.arrive(presented_in(asked["headers"]), self._address(asked))
        except LimitReached as error:
            await self._turn_away(asked, receive, send, error)
            return
        remember(cast(dict[str, Any], asked), visit)
        try:
            await self._serve(asked, receive, send, visit)
        finally:
            visit.leave()

    async def _serve(self, asked: HTTPScope, receive: Receive, send: Send, visit: Visit | None) -> None:
        route = self.hot.find(asked) if self.hot else None
        if self.hot and route:
            await self.hot.serve(route, asked, receive, send, visit)
            return
        rewrite(asked)
        rest = UnreadBody(asked, receive, PacedAnswer(self.large, asked, send).send)
        answer: Send = rest.send
        read: Receive = rest.receive
        if visit is not None:
            answer = _with_quota(answer, visit)
            if rest.open:
                read = _in_turn(read, visit)
            else:
                try:
                    await visit.turn()
                except LimitReached as error:
                    await self._answer(asked, answer, error)
                    return
        if asked["method"] == "HEAD":
            asked["method"], answer = "GET", _headers_only(answer)
            cast(dict[str, Any], asked)[_HEAD] = True
        if self.trial and self._strange(asked):
            await self._answer(asked, answer, PermissionDeniedException(_STRANGE))
        elif _addressed(asked):
            await super().__call__(asked, read, answer)
        else:
            await self._refuse(asked, answer)

    def _address(self, scope: HTTPScope) -> str:
        """What a client without a key is counted by."""
        client = scope["client"]
        return network(self.proxies.client(client[0], scope["headers"])) if client else ""

    def _strange(self, scope: HTTPScope) -> bool:
        """Whether a page of another origin, which `cors` does not name, writes where no key is needed. Routes for pages
        look at origins by themselves.
        """
        if scope["method"] in _READING or scope["path"].startswith(_PAGES):
            return False
        headers = dict(scope["headers"])
        origin = headers.get(b"origin", b"").decode("latin-1")
        if not origin or origin.partition("://")[2] == headers.get(b"host", b"").decode("latin-1"):
            return False
        return self.cors_config is None or not self.cors_config.is_origin_allowed(origin)

    async def _turn_away(self, scope: HTTPScope, receive: Receive, send: Send, error: LimitReached) -> None:
        """Refusal by a limit, at a fraction of what any route costs. A small body is left to the server, which drops it
        where it has come with the headers, as small bodies do.
        """
        if error.delay:
            await self.delays.wait(error.delay)
        if _length(scope) > _SMALL:
            send = UnreadBody(scope, receive, send).send
        if not scope["path"].startswith(_OURS):
            rewrite(scope)
        if scope["method"] == "HEAD" or not self.plain(scope["path"]):
            await self._answer(scope, send if scope["method"] != "HEAD" else _headers_only(send), error)
            return
        content = self._contents.get(error.detail)
        if content is None:
            if len(self._contents) >= _CONTENTS:
                self._contents.clear()
            content = self._contents[error.detail] = msgspec.json.encode(limit_problem(error))
        content = b'%s,"request_id":"%s"}' % (content[:-1], current_id().encode())
        headers = [(b"content-type", MEDIA.encode()), (b"content-length", str(len(content)).encode())]
        headers += [(name.lower().encode(), value.encode()) for name, value in (error.headers or {}).items()]
        if self.cors_config is not None:
            headers += self._readable(scope, self.cors_config)
        self._count(scope["method"], error.status_code)
        await send({"type": "http.response.start", "status": error.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": content, "more_body": False})

    def _readable(self, scope: HTTPScope, cors: CORSConfig) -> list[tuple[bytes, bytes]]:
        """Headers with which a page of an origin that may call may read a refusal."""
        origin = next((value for name, value in scope["headers"] if name == b"origin"), b"")
        if not origin or not cors.is_origin_allowed(origin.decode("latin-1")):
            return []
        exposed = ", ".join(cors.expose_headers).encode()
        return [
            (b"access-control-allow-origin", origin), (b"access-control-expose-headers", exposed), (b"vary", b"Origin")
        ]  # fmt: skip

    async def _answer(self, scope: HTTPScope, send: Send, error: Exception) -> None:
        """Answer an error in the shape of the path's protocol."""
        request: Request[Any, Any, Any] = Request(scope)
        response = self.exception_handlers[Exception](request, error)
        self._count(scope["method"], response.status_code or 500)
        await response.to_asgi_response(app=None, request=request)(scope, nothing, send)

    async def _refuse(self, scope: HTTPScope, send: Send) -> None:
        """400 in the shape of the path's protocol: a request without a Host, or with two, may be read in two ways."""
        wrong = {"key": "Host", "message": "missing, there twice, or not a host: send one Host header"}
        error = ClientException("the request needs one Host header", extra=[wrong])
        await self._answer(scope, send, error)

    def _busy(self, scope: HTTPScope) -> Response[bytes]:
        """503 in the shape of the path's protocol: as many large answers are sent as may be."""
        detail = f"{self.large.most} large answers are sent at the moment, and no more are at once (large_answers)"
        error = LimitReached(503, detail, "ask again later", self.large.seconds / 2)
        return self.exception_handlers[Exception](Request[Any, Any, Any](scope), error)


def is_head(scope: Any) -> bool:
    """Whether a request, by its ASGI scope, came as HEAD: its route sees GET, and no body of its answer is sent."""
    return _HEAD in scope


def _addressed(scope: HTTPScope) -> bool:
    """Whether the request has exactly one Host that can be one; HTTP/1.0 needs none."""
    hosts = [value for name, value in scope["headers"] if name == b"host"]
    if not any(hosts) and scope["http_version"] in ("1.0", "1"):  # granian: "1", and an empty Host
        return True
    return len(hosts) == 1 and is_host(hosts[0])


def _length(scope: HTTPScope) -> int:
    """Length of a request's body, as it says; as long as can be if it says none, or no number."""
    length = b"0"
    for name, value in scope["headers"]:
        if name == b"content-length":
            length = value
        elif name == b"transfer-encoding":
            return sys.maxsize
    return int(length) if length.isdigit() else sys.maxsize


def _with_quota(send: Send, visit: Visit) -> Send:
    """An answer whose headers say what is left of the key's quota."""

    async def with_quota(message: Message) -> None:
        if message["type"] == "http.response.start":
            known = {name.lower() for name, _ in message["headers"]}
            message["headers"] = [*message["headers"], *(one for one in visit.headers() if one[0] not in known)]
        await send(message)

    return with_quota


def _in_turn(receive: Receive, visit: Visit) -> Receive:
    """A body whose end comes when it is the request's turn."""

    async def in_turn() -> Any:
        message = await receive()
        if message["type"] == "http.request" and not message.get("more_body", False):
            await visit.turn()
        return message

    return in_turn


def _headers_only(send: Send) -> Send:
    """An answer without its body: HEAD is GET otherwise."""

    async def headers_only(message: Message) -> None:
        if message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await send(message)

    return headers_only
