"""ASGI layer that HTTP asks of every route, whatever its protocol: one Host header, HEAD where there is GET, an answer
that the client reads.

Most clients send a whole body before they read anything. If the connection is closed while they send, they see a broken
pipe in place of the answer. So what is left of a body is read and thrown away before the answer goes out, up to a
number of bytes and a time; beyond that the connection is closed.
"""

import asyncio
import re
from typing import Any, cast

from litestar import Litestar, Request
from litestar.enums import ScopeType
from litestar.exceptions import ClientException
from litestar.types import HTTPScope, LifeSpanReceive, LifeSpanScope, LifeSpanSend, Message, Receive, Scope, Send

from api.http.protocol_paths import rewrite
from api.http.request_body import SECONDS

_HOST = re.compile(rb"[A-Za-z0-9._~%!$&'()*+,;=:\[\]-]+")
_MOST = 64_000_000  # bytes of a body that are thrown away


class ProtocolApp(Litestar):
    """Litestar application whose router sees canonical paths, and whose answers reach clients that are still sending.
    `api.app.create_service` makes one for each service.
    """

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
        rewrite(asked)
        rest = UnreadBody(asked, cast(Receive, receive), cast(Send, send))
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


class UnreadBody:
    """Body of one request as far as the client has still to send it when the answer is ready. It stands between the app
    and the server: the app calls `receive` and `send` here.
    """

    def __init__(self, scope: HTTPScope, receive: Receive, send: Send):
        headers = dict(scope["headers"])
        self._receive, self._send = receive, send
        self._open = headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers
        self._waits = headers.get(b"expect", b"").lower() == b"100-continue"  # it sends nothing before it is asked to
        self._until = asyncio.get_running_loop().time() + SECONDS

    async def receive(self) -> Any:
        """Next ASGI message of the request. A client that waits for "100 Continue" begins to send then."""
        self._waits = False
        message = await self._receive()
        self._open = message["type"] == "http.request" and bool(message.get("more_body", False))
        return message

    async def send(self, message: Message) -> None:
        """Send an ASGI message of the answer, once nothing of the body is left. If more is left than is worth reading,
        the answer says `connection: close`.
        """
        if message["type"] == "http.response.start" and self._open:
            await self._discard()
            if self._open:
                message["headers"] = [*message["headers"], (b"connection", b"close")]
        await self._send(message)

    async def _discard(self) -> None:
        size = 0
        try:
            async with asyncio.timeout_at(self._until):
                while self._open and not self._waits and size < _MOST:
                    size += len((await self.receive()).get("body", b""))
        except TimeoutError:
            return


def _addressed(scope: HTTPScope) -> bool:
    """Whether the request has exactly one Host that can be one; HTTP/1.0 needs none."""
    hosts = [value for name, value in scope["headers"] if name == b"host"]
    if not any(hosts) and scope["http_version"] in ("1.0", "1"):  # granian: "1", and an empty Host
        return True
    return len(hosts) == 1 and _HOST.fullmatch(hosts[0]) is not None


def _headers_only(send: Send) -> Send:
    """An answer without its body: HEAD is GET otherwise."""

    async def headers_only(message: Message) -> None:
        if message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await send(message)

    return headers_only
