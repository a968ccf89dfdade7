"""Large answers: sent in pieces, each when the client's system has taken the one before; not for ever, and not too many
at once.

Granian keeps what it is given until the client takes it. So an answer of megabytes, given at once, costs its length in
memory for each client that asks and does not read. In pieces it costs some 200 kB, however long it is.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from litestar import Request, Response
from litestar.types import HTTPResponseBodyEvent, HTTPResponseStartEvent, HTTPScope, Message, Send

log = logging.getLogger("journey_bandit.http")

PIECE = 16_384
"""Bytes of an answer that are given to the server at once."""
LARGE = 65_536
"""Bytes from which on an answer is large."""
MOST = 128
"""Large answers that are sent at the same time."""
SECONDS = 60.0
"""An answer that a client has not taken by then is given up, and its connection closed."""

_PACED = "journey_bandit.paced"  # mark in the scope of a request whose route paces its answer

Refuse = Callable[[HTTPScope], Response[bytes]]
"""Makes the answer that stands in for a large one of which there are too many."""


class LargeAnswers:
    """Large answers of one service: how many are sent now. Belongs to one event loop."""

    def __init__(self, refuse: Refuse, *, most: int = MOST, seconds: float = SECONDS):
        self.refuse, self.most, self.seconds = refuse, most, seconds
        self.sending = 0


class PacedAnswer:
    """Answer to one request on its way to the server: `send` stands for the server's. Small answers pass as they are.

    A large answer is replaced by a refusal if as many as may be are sent already. One that takes longer than it may is
    cut: its connection is closed, because the length that its head announced is not reached. One that its route paces
    (`paced_by_route`) passes as it is.
    """

    def __init__(self, large: LargeAnswers, scope: HTTPScope, send: Send):
        self._large, self._scope, self._send = large, scope, send
        self._over = False

    async def send(self, message: Message) -> None:
        """Send an ASGI message of the answer. Returns when the client's system has taken all but the last piece."""
        if self._over:
            return
        full = self._large.sending >= self._large.most and _PACED not in self._scope
        if full and message["type"] == "http.response.start" and _length(message) >= LARGE:
            self._over = True
            await self._refused()
            return
        if message["type"] != "http.response.body" or len(message["body"]) <= PIECE:
            await self._send(message)
            return
        self._large.sending += 1
        try:
            async with asyncio.timeout(self._large.seconds):
                await self._in_pieces(message)
        except TimeoutError:
            self._over = True
            log.info("cut an answer that its client did not take within %g s", self._large.seconds)
        finally:
            self._large.sending -= 1

    async def _refused(self) -> None:
        answer = self._large.refuse(self._scope).to_asgi_response(app=None, request=Request[Any, Any, Any](self._scope))
        await answer(self._scope, nothing, self._send)

    async def _in_pieces(self, message: HTTPResponseBodyEvent) -> None:
        body, more = message["body"], message.get("more_body", False)
        for start in range(0, len(body), PIECE):
            last = start + PIECE >= len(body)
            piece = body[start : start + PIECE]
            await self._send({"type": "http.response.body", "body": piece, "more_body": more or not last})


def paced_by_route(scope: Any) -> None:
    """Say of a request, by its ASGI scope, that its route sends pieces of at most PIECE bytes, and bounds how many such
    answers there are and how long they take.
    """
    scope[_PACED] = True


async def nothing() -> Any:
    """Nothing more of the request, for an answer that reads nothing."""
    return {"type": "http.disconnect"}


def _length(message: HTTPResponseStartEvent) -> int:
    """Length that the head of an answer announces; 0 if it does not."""
    return next((int(value) for name, value in message["headers"] if name.lower() == b"content-length"), 0)
