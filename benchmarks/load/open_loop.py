"""Open-loop HTTP load over raw keep-alive connections: requests are due at their times, whether or not those before are
answered, as they come from people. A request that finds no free connection opens one, and waits where there are as many
as may be; its latency counts from when it was sent, and `sent` says how many were while requests were due.

It polls sockets by itself, because an event loop costs a client several times as much. Linux only.
"""

import select
import socket
from collections import Counter, deque
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import NamedTuple

import numpy as np

from benchmarks.load.client import HOST, AnswerBuffer, Request

_PATIENCE = 15.0  # seconds for answers to what was sent, when nothing more is due


class OfferedLoad(NamedTuple):
    """Result of an open-loop load: requests that were due in so many `seconds`, those that were sent meanwhile, answers
    by status, those with status 200 that came meanwhile, and the latency in ms of all with status 200. `opened`:
    connections; `lost`: those that the service closed meanwhile.
    """

    due: int
    sent: int
    statuses: Counter[int]
    good: int
    latencies: list[float]
    seconds: float
    opened: int
    lost: int

    @property
    def goodput(self) -> float:
        """Answers with status 200 a second, while requests were due."""
        return self.good / self.seconds

    def quantile(self, q: float) -> float:
        """Quantile of the latencies in ms, q in percent."""
        return float(np.percentile(self.latencies, q)) if self.latencies else float("nan")


def offer(
    port: int,
    request: Request,
    *,
    rate: float,
    seconds: float,
    connections: int,
    sources: Sequence[str] = (HOST,),
    begin: Callable[[], None] | None = None,
) -> OfferedLoad:
    """Load of so many requests a second for so many seconds, over at most so many connections, which are opened as they
    are needed, from the addresses `sources` of this machine in turn, and used in turn. With `begin`, all are opened
    first, and it is called then. It takes this thread until all are answered, for 15 s at most.
    """
    pool = _Pool(port, connections, sources)
    if begin:
        pool.open_all()
        begin()
    start, due, step = perf_counter(), 0, 1.0 / rate
    while (now := perf_counter()) < start + seconds:
        while start + due * step <= now:
            pool.ask(request())
            due += 1
        pool.poll(max(0.0, start + due * step - perf_counter()))
    sent, good, lost = pool.sent, len(pool.latencies), pool.lost
    pool.waiting.clear()
    while pool.asked and perf_counter() < now + _PATIENCE:
        pool.poll(0.01)
    pool.close()
    return OfferedLoad(due, sent, pool.statuses, good, pool.latencies, seconds, pool.opened, lost)


class _Caller:
    """One connection of a load: its socket, what came on it, and when the request that it asks was sent (0: none)."""

    __slots__ = ("buffer", "sent", "socket")

    def __init__(self, made: socket.socket):
        self.socket, self.buffer, self.sent = made, AnswerBuffer(), 0.0


class _Pool:
    """Connections of one load: those that are free, and requests that wait for one."""

    def __init__(self, port: int, most: int, sources: Sequence[str]):
        self._port, self._most, self._sources = port, most, sources
        self._polled = select.epoll()
        self._callers: dict[int, _Caller] = {}
        self._free: deque[_Caller] = deque()
        self.waiting: deque[bytes] = deque()
        self.statuses: Counter[int] = Counter()
        self.latencies: list[float] = []
        self.sent = self.asked = self.opened = self.lost = 0

    def ask(self, request: bytes) -> None:
        if self._free:
            self._send(self._free.popleft(), request)
        elif len(self._callers) < self._most:
            self._send(self._connected(), request)
        else:
            self.waiting.append(request)

    def open_all(self) -> None:
        while len(self._callers) < self._most:
            self._free.append(self._connected())

    def poll(self, seconds: float) -> None:
        """Take what comes within so many seconds."""
        for file, _ in self._polled.poll(seconds):
            caller = self._callers[file]
            try:
                data = caller.socket.recv(65536)
            except ConnectionError:
                data = b""
            answer = caller.buffer.add(data) if data else None
            if answer is not None:
                self._answered(caller, answer.status)
            elif not data:
                self._gone(caller)

    def close(self) -> None:
        """End all connections."""
        for caller in self._callers.values():
            caller.socket.close()
        self._polled.close()

    def _connected(self) -> _Caller:
        made = socket.create_connection(
            (HOST, self._port), source_address=(self._sources[self.opened % len(self._sources)], 0)
        )
        made.setblocking(False)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.opened += 1
        self._polled.register(made.fileno(), select.EPOLLIN)
        caller = self._callers[made.fileno()] = _Caller(made)
        return caller

    def _send(self, caller: _Caller, request: bytes) -> None:
        self.sent += 1
        self.asked += 1
        caller.sent = perf_counter()
        try:
            caller.socket.send(request)
        except ConnectionError:
            self._gone(caller)

    def _answered(self, caller: _Caller, status: int) -> None:
        self.asked -= 1
        self.statuses[status] += 1
        if status == 200:
            self.latencies.append(1000.0 * (perf_counter() - caller.sent))
        caller.sent = 0.0
        if self.waiting:
            self._send(caller, self.waiting.popleft())
        else:
            self._free.append(caller)

    def _gone(self, caller: _Caller) -> None:
        """The service closed a connection."""
        self.lost += 1
        self._polled.unregister(caller.socket.fileno())
        del self._callers[caller.socket.fileno()]
        caller.socket.close()
        if caller.sent:
            self.asked -= 1
        else:
            self._free.remove(caller)
