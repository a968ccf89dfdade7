"""Unread bodies: what a client has still to send when the answer to it is ready.

Most clients send a whole body before they read anything. If the connection is closed while they send, they see a broken
pipe in place of the answer. So what is left of a body is read and thrown away before the answer goes out, up to a
number of bytes and a time; beyond that the connection is closed.
"""

import asyncio
import re
from typing import Any

from litestar.types import HTTPScope, Message, Receive, Send

from api.http.request_body import SECONDS

_HOST = re.compile(rb"[A-Za-z0-9._~%!$&'()*+,;=:\[\]-]+")
_MOST = 64_000_000  # bytes of a body that are thrown away


def is_host(value: bytes) -> bool:
    """Whether the value of a Host header can be one."""
    return _HOST.fullmatch(value) is not None


class UnreadBody:
    """Body of one request as far as the client has still to send it when the answer is ready. It stands between the app
    and the server: the app calls `receive` and `send` here. What is left is read for so many `seconds` at most. `open`:
    something of the body may be left.
    """

    def __init__(self, scope: HTTPScope, receive: Receive, send: Send, *, seconds: float = SECONDS):
        headers = dict(scope["headers"])
        self._receive, self._send = receive, send
        self.open = headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers
        self._waits = headers.get(b"expect", b"").lower() == b"100-continue"  # it sends nothing before it is asked to
        self._until = asyncio.get_running_loop().time() + seconds

    async def receive(self) -> Any:
        """Next ASGI message of the request. A client that waits for "100 Continue" begins to send then."""
        self._waits = False
        message = await self._receive()
        self.open = message["type"] == "http.request" and bool(message.get("more_body", False))
        return message

    async def send(self, message: Message) -> None:
        """Send an ASGI message of the answer, once nothing of the body is left. If more is left than is worth reading,
        the answer says `connection: close`.
        """
        if message["type"] == "http.response.start" and self.open:
            await self._discard()
            if self.open:
                message["headers"] = [*message["headers"], (b"connection", b"close")]
        await self._send(message)

    async def _discard(self) -> None:
        size = 0
        try:
            async with asyncio.timeout_at(self._until):
                while self.open and not self._waits and size < _MOST:
                    size += len((await self.receive()).get("body", b""))
        except TimeoutError:
            return
