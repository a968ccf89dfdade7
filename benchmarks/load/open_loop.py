"""Open-loop HTTP load over raw keep-alive connections: requests are due at their times, whether or not those before are
answered, as they come from people. A request that finds no free connection waits for one; its latency counts from when
it was sent.
"""

import asyncio
from collections import Counter, deque
from time import perf_counter
from typing import NamedTuple

import numpy as np

from benchmarks.load.client import HOST, AnswerBuffer, Request


class OfferedLoad(NamedTuple):
    """Result of an open-loop load: requests that were due, those that were sent, answers by status, and the latency in
    ms of each answer with status 200; `seconds` is how long they were due.
    """

    due: int
    sent: int
    statuses: Counter[int]
    latencies: list[float]
    seconds: float

    @property
    def goodput(self) -> float:
        """Answers with status 200 a second."""
        return self.statuses[200] / self.seconds

    def quantile(self, q: float) -> float:
        """Quantile of the latencies in ms, q in percent."""
        return float(np.percentile(self.latencies, q)) if self.latencies else float("nan")


async def offer(port: int, request: Request, *, rate: float, seconds: float, connections: int) -> OfferedLoad:
    """Load of so many requests a second for so many seconds, over at most so many connections."""
    loop, pool = asyncio.get_running_loop(), _Pool()
    made = [(await loop.create_connection(lambda: _Caller(pool), HOST, port))[0] for _ in range(connections)]
    start, due, step = perf_counter(), 0, 1.0 / rate
    while (now := perf_counter()) < start + seconds:
        while start + due * step <= now:
            pool.ask(request())
            due += 1
        await asyncio.sleep(0.001)
    pool.give_up()
    end = perf_counter() + 10.0
    while pool.asked and perf_counter() < end:
        await asyncio.sleep(0.01)
    for transport in made:
        transport.close()
    return OfferedLoad(due, pool.sent, pool.statuses, pool.latencies, seconds)


class _Pool:
    """Connections of one load: those that are free, and requests that wait for one."""

    def __init__(self) -> None:
        self.free: deque[_Caller] = deque()
        self.waiting: deque[bytes] = deque()
        self.statuses: Counter[int] = Counter()
        self.latencies: list[float] = []
        self.sent = self.asked = 0

    def ask(self, request: bytes) -> None:
        if self.free:
            self._send(self.free.popleft(), request)
        else:
            self.waiting.append(request)

    def answered(self, caller: "_Caller", status: int) -> None:
        self.asked -= 1
        self.statuses[status] += 1
        if status == 200:
            self.latencies.append(1000.0 * (perf_counter() - caller.sent))
        self.ready(caller)

    def ready(self, caller: "_Caller") -> None:
        if self.waiting:
            self._send(caller, self.waiting.popleft())
        else:
            self.free.append(caller)

    def give_up(self) -> None:
        """Send nothing more."""
        self.waiting.clear()

    def _send(self, caller: "_Caller", request: bytes) -> None:
        self.sent += 1
        self.asked += 1
        caller.send(request)


class _Caller(asyncio.Protocol):
    """One connection of a load."""

    def __init__(self, pool: _Pool):
        self._pool, self._buffer, self.sent = pool, AnswerBuffer(), 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._pool.ready(self)

    def send(self, request: bytes) -> None:
        self.sent = perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        answer = self._buffer.add(data)
        if answer is not None:
            self._pool.answered(self, answer.status)
