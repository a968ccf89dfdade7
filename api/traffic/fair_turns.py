"""Fair turns: so many requests run at once, and where more want to, those who have had least come first.

Start-time fair queueing (Goyal, Vin and Cheng 1996): each request gets a tag, the later the more its holder has had;
the earliest tag runs next. A holder with thousands of requests delays its own, and those of others by at most what runs
already. A batch is charged for each of its items, so that it costs its holder as many turns.
"""

import asyncio
import heapq
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

RUNNING = 16
"""Requests that run at once: enough to share the commits of the ledger, and few enough to be soon done."""
WAITING = 512
"""Requests that wait for their turn in all, before holders of more than their share of them are turned away."""
PATIENCE = 0.5
"""Seconds that a request waits for its turn at most."""
_REMEMBERED = 10_000


class Waiter(NamedTuple):
    """Request that waits for its turn: its tag, its number (the earlier first of two with one tag), its holder, since
    when it waits, and its turn: true once it has it, false if it will have none.
    """

    tag: float
    number: int
    holder: str
    since: float
    turn: "asyncio.Future[bool]"


class FairTurns:
    """Turns of one service. Each `enter` that gave a turn is followed by one `leave`. Belongs to one event loop.

    `clock` gives seconds. `held_up` says that the service as a whole makes everybody wait for a moment, as at a reload:
    nobody's patience ends then. What holders have had is known while somebody waits, of the 10,000 who asked last: one
    who is forgotten comes next as if new.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        running: int = RUNNING,
        waiting: int = WAITING,
        patience: float = PATIENCE,
        held_up: Callable[[], bool] = lambda: False,
    ):
        self.running, self.waiting, self.patience = running, waiting, patience
        self._clock, self._held_up = clock, held_up
        self._free = running
        self._heap: list[Waiter] = []
        self._arrived: deque[Waiter] = deque()
        self._had: dict[str, float] = {}  # holder → the tag of its next request
        self._virtual, self._number, self._since = 0.0, 0, 0.0
        self._alarm: asyncio.TimerHandle | None = None

    def beside(self, *, running: int, waiting: int, patience: float) -> "FairTurns":
        """Other turns on the same clock, which the same holds up."""
        return FairTurns(self._clock, running=running, waiting=waiting, patience=patience, held_up=self._held_up)

    def crowded(self, has: int) -> bool:
        """Whether as many wait as may, and a holder that has so many requests here has its share of them."""
        return len(self._heap) >= self.waiting and has * max(1, len(self._had)) >= self.waiting

    def enter(self, holder: str) -> "asyncio.Future[bool] | None":
        """None if the turn has begun; else a future that says whether it has (true), or never will (false)."""
        if self._free and not self._heap:
            self._free -= 1
            return None
        tag = max(self._virtual, self._had.get(holder, 0.0))
        self._count(holder, tag + 1.0)
        self._number += 1
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        waiter = Waiter(tag, self._number, holder, self._clock(), turn)
        heapq.heappush(self._heap, waiter)
        self._arrived.append(waiter)
        self._set_alarm()
        return turn

    def leave(self) -> None:
        """End a turn: the next one begins."""
        while self._heap:
            waiter = heapq.heappop(self._heap)
            self._virtual = waiter.tag
            if not waiter.turn.done():
                waiter.turn.set_result(True)
                return
        self._free += 1
        self._virtual = 0.0
        self._had.clear()
        self._arrived.clear()

    def charge(self, holder: str, turns: float) -> None:
        """Count further turns against a holder, whose next requests come as much later."""
        if self._heap:
            self._count(holder, max(self._virtual, self._had.get(holder, 0.0)) + turns)

    def _count(self, holder: str, had: float) -> None:
        self._had.pop(holder, None)  # so that the last is the newest
        self._had[holder] = had
        if len(self._had) > _REMEMBERED:
            del self._had[next(iter(self._had))]

    def expire(self) -> None:
        """End the patience of those who have waited too long; called by the loop's timer."""
        now = self._clock()
        if self._held_up():
            self._since = now
        while self._arrived:
            first = self._arrived[0]
            if not first.turn.done():
                if max(first.since, self._since) + self.patience > now:
                    break
                first.turn.set_result(False)
            self._arrived.popleft()
        self._alarm = None
        self._set_alarm()

    def _set_alarm(self) -> None:
        if self._alarm is None and self._arrived:
            left = max(self._arrived[0].since, self._since) + self.patience - self._clock()
            self._alarm = asyncio.get_running_loop().call_later(max(left, 0.001), self.expire)
