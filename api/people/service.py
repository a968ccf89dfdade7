"""People service: tells what is known of a person, and erases it while the service decides. No HTTP here, no SQL."""

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar

from api.components import CurrentParts
from api.ledger import audit, warm_start
from api.messages.people import ErasureReply, PersonExport
from api.people.offline import PAGES, counted
from api.people.records import export, ids_of, known
from api.stores.erasure_log import Erasure
from api.stores.event_log import IngestResult
from bandit.errors import JourneyBanditError

log = logging.getLogger("journey_bandit.people")

T = TypeVar("T")

_EVENTS = 100  # erased in one transaction
_PATIENCE = 10.0  # seconds for a long reader to let the log be emptied
_PAUSE = 0.02  # seconds between two looks whether it has
_SHARE = 2.0  # as long as a step took, callers have the thread


class PeopleService:
    """Rights of the people of one app: what the ledger holds of them, told and erased.

    Guarantees. Erasure: when `erase` returns, no reading method of the ledger knows the person; an erasure that was
    interrupted goes on when the service runs again. Pace: rows are erased a few at a time between the commits of
    callers, who have the thread in between for as long as it took. Belongs to one event loop.
    """

    def __init__(self, current: CurrentParts):
        self._current = current
        self._store, self._clock = current.ground.store, current.ground.clock
        self._running: dict[bytes, asyncio.Task[None]] = {}
        self._turn, self._overwriting = asyncio.Lock(), asyncio.Lock()
        self._begun, self._clean = 0, 0  # passes over the file that began, and the last that ended

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Context in which erasures go on that an earlier process did not finish; at its end those of this one stop."""
        for asked in await asyncio.to_thread(self._store.erasures_under_way):
            self._start(asked)
        try:
            yield
        finally:
            for task in self._running.values():
                task.cancel()
            await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def erase(self, user_id: str, *, forget: bool) -> ErasureReply:
        """Erase all that is known of the person with this id; `forget`: also what was learned. It goes on if the caller
        leaves. Raises Overloaded, and Unavailable: the erasure goes on then, or is taken up when the service starts.
        """
        ids = await asyncio.to_thread(ids_of, self._store, self._hash(user_id))
        asked = Erasure(secrets.token_bytes(16), ids, self._clock(), forget)
        if not await asyncio.to_thread(known, self._store, ids):
            return await asyncio.to_thread(counted, self._store, asked, found=False, overwritten=True)
        asked = await self._write(lambda: self._store.begin_erasure(asked))
        await asyncio.shield(self._start(asked))
        overwritten = await self._overwritten()
        return await asyncio.to_thread(counted, self._store, asked, found=True, overwritten=overwritten)

    async def export(self, user_id: str) -> PersonExport:
        """All that the ledger holds of the person with this id; read in another thread."""
        return await asyncio.to_thread(export, self._store, self._hash(user_id), self._clock())

    def _start(self, asked: Erasure) -> "asyncio.Task[None]":
        """The task of an erasure: one, however often it is asked for."""
        task = self._running.get(asked.number)
        if task is None or task.done():
            task = self._running[asked.number] = asyncio.create_task(self._run(asked))
            task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and isinstance(error := task.exception(), JourneyBanditError):
            log.error("an erasure waits for the next start, or until it is asked for again: %s", error)

    def _hash(self, user_id: str) -> bytes:
        return self._current.parts.service.user_hash(user_id)

    async def _write(self, work: Callable[[], T]) -> T:
        """What `work` returns, done between two commits; a replacement of the catalogue waits no longer than that."""
        async with self._current.inside() as parts:
            return await asyncio.wrap_future(parts.worker.run(work))

    async def _run(self, asked: Erasure) -> None:
        async with self._turn:
            left, events = True, 1
            while left or events:
                start = time.perf_counter()
                if left:
                    left = not await self._decisions(asked)
                else:
                    events = await self._write(lambda: self._store.erase_events(asked, self._clock(), _EVENTS))
                await asyncio.sleep(_SHARE * (time.perf_counter() - start))
            if asked.forget:
                await self._warm_again()
            await self._write(lambda: self._store.end_erasure(asked, self._clock()))
            self._moved(asked)
            self._running.pop(asked.number, None)

    async def _warm_again(self) -> None:
        """Have stages that began with decisions of an earlier schema begin with those that are left of them."""
        stages = await asyncio.to_thread(audit.stages, self._store)
        found = await asyncio.to_thread(warm_start.again, self._store, stages)
        if found:
            async with self._current.inside() as parts:
                await asyncio.wrap_future(parts.worker.warm_again(stages, found))

    async def _decisions(self, asked: Erasure) -> bool:
        """Erase some decisions; whether none is left."""
        async with self._current.inside() as parts:
            done = await asyncio.wrap_future(parts.worker.erase(asked))
        self._moved(asked)
        return done

    def _moved(self, asked: Erasure) -> None:
        """Have the sessions of the person read from the ledger again."""
        self._current.parts.service.maker.apply(IngestResult([], {}, asked.users, []))

    async def _overwritten(self) -> bool:
        """Whether a pass over the file that began after now has ended; others who wait for one share it."""
        wanted = self._begun + 1
        async with self._overwriting:
            if self._clean >= wanted:
                return True
            self._begun += 1
            if await self._overwrite():
                self._clean = self._begun
            return self._clean >= wanted

    async def _overwrite(self) -> bool:
        page, deadline = 1, time.monotonic() + _PATIENCE
        while page and time.monotonic() < deadline:
            before, start = page, time.perf_counter()
            page = await self._write(partial(self._store.overwrite_erased, page, PAGES))
            await asyncio.sleep(_PAUSE if page == before else _SHARE * (time.perf_counter() - start))
            if page > before:
                deadline = time.monotonic() + _PATIENCE
        return page == 0
