"""Closed-loop HTTP load over raw keep-alive connections: each connection sends its next request when the last one is
answered. It costs a fraction of what an HTTP client library costs, because it shares the processor with the service.
"""

import asyncio
import json
from collections.abc import Callable
from time import perf_counter
from typing import NamedTuple

import numpy as np

HOST = "127.0.0.1"
Request = Callable[[], bytes]


class LoadResult(NamedTuple):
    """Result of one load: answers a second, and the latency of each answer in ms, in the order in which they came."""

    rate: float
    latencies: list[float]

    def quantile(self, q: float) -> float:
        """Quantile of the latencies in ms, q in percent."""
        return float(np.percentile(self.latencies, q))


def post(path: str, body: object) -> bytes:
    """HTTP POST request to `path` with a JSON body, headers included, as bytes that go over a raw keep-alive
    connection.
    """
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    return head.encode() + data


def noop() -> bytes:
    """HTTP request to a Litestar route that does nothing, as bytes: the yardstick."""
    return b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"


async def load(
    port: int, request: Request, *, connections: int, seconds: float, answered: Callable[[bytes], None] | None = None
) -> LoadResult:
    """Load on one service for so many seconds. `answered` is called with the body of each answer. Raises RuntimeError
    on any answer but 200, and on a connection that the service closes.
    """
    loop = asyncio.get_running_loop()
    latencies: list[float] = []
    start = perf_counter()
    made = [_Connection(request, start + seconds, latencies, answered) for _ in range(connections)]
    await asyncio.gather(*(loop.create_connection(lambda one=one: one, HOST, port) for one in made))  # type: ignore[misc]
    await asyncio.gather(*(one.done for one in made))
    return LoadResult(len(latencies) / (perf_counter() - start), latencies)


class Answer(NamedTuple):
    """Answer of the service: its status, and the bytes of its head and body."""

    status: int
    head: bytes
    body: bytes


class AnswerBuffer:
    """Bytes that came on a connection, of which answers with a Content-Length are made."""

    def __init__(self) -> None:
        self._data = b""

    def add(self, data: bytes) -> Answer | None:
        """Take bytes in; the answer that they complete, if they do."""
        self._data += data
        head = self._data.find(b"\r\n\r\n")
        if head < 0:
            return None
        at = self._data.lower().find(b"content-length:", 0, head)
        end = head + 4 + int(self._data[at + 15 : self._data.index(b"\r", at)])
        if len(self._data) < end:
            return None
        answer = Answer(int(self._data[9:12]), self._data[:head], self._data[head + 4 : end])
        self._data = self._data[end:]
        return answer


class _Connection(asyncio.Protocol):
    """One connection of a load."""

    def __init__(
        self, request: Request, end: float, latencies: list[float], answered: Callable[[bytes], None] | None
    ) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request, self._end, self._latencies, self._answered = request, end, latencies, answered
        self._buffer, self._sent = AnswerBuffer(), 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._send()

    def data_received(self, data: bytes) -> None:
        answer = self._buffer.add(data)
        if answer is None:
            return
        self._latencies.append(1000.0 * (perf_counter() - self._sent))
        if answer.status != 200:
            self._fail(f"{answer.head + answer.body[:400]!r}")
        elif self._answered is not None:
            self._answered(answer.body)
        if self._sent < self._end and not self.done.done():
            self._send()
        else:
            self._finish()

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"the service closed a connection: {exc}")

    def _send(self) -> None:
        self._sent = perf_counter()
        if self._sent >= self._end:
            self._finish()
            return
        self._transport.write(self._request())

    def _finish(self) -> None:
        if not self.done.done():
            self.done.set_result(None)
        self._transport.close()

    def _fail(self, what: str) -> None:
        if not self.done.done():
            self.done.set_exception(RuntimeError(what))
