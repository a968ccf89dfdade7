"""Watch over a ledger's file: whether its pages can be read, at the start and once a day, and how long its write-ahead
log is.
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from api.metrics import Metrics
from api.stores.protocol import Store
from bandit.errors import JourneyBanditError

log = logging.getLogger("journey_bandit.ledger")

EVERY = 86_400.0
"""Seconds between two checks."""

MOST_LOG = 160_000_000
"""Bytes of write-ahead log beyond which something keeps SQLite from emptying it: ten times the usual."""


class LedgerWatch:
    """Watch over one ledger while a service runs, from its event loop; the check reads every page in another thread, on
    a connection of its own, and ends early when the service stops.
    """

    def __init__(self, store: Store, metrics: Metrics, pause: Callable[[float], Awaitable[None]] = asyncio.sleep):
        self._store, self._metrics, self._pause = store, metrics, pause
        self._over = threading.Event()
        self._damaged = ""
        metrics.log_bytes.set_function(store.log_bytes)

    @property
    def failing(self) -> dict[str, str]:
        """What health says: "ledger" if it is damaged, "wal" if its log is not emptied."""
        found = {"ledger": self._damaged} if self._damaged else {}
        if (size := self._store.log_bytes()) > MOST_LOG:
            why = "something reads the ledger for long, such as a backup or an evaluation → end it"
            found["wal"] = f"the write-ahead log is {size / 1e6:,.0f} MB long: {why}"
        return found

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Context of the service's life."""
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            self._over.set()
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _run(self) -> None:
        while True:
            await asyncio.shield(asyncio.to_thread(self.check))
            await self._pause(EVERY)

    def check(self) -> None:
        """Read every page, and remember what is wrong."""
        try:
            wrong = self._store.quick_damages(self._over.is_set)
        except JourneyBanditError as error:
            wrong = [str(error)]
        if self._over.is_set():
            return
        self._metrics.damaged.set(len(wrong))
        self._damaged = f"{'; '.join(wrong)} → stop the service and restore a backup" if wrong else ""
        if wrong:
            log.error("the ledger is damaged: %s", "; ".join(wrong))
