"""People service: tells what is known of a person, and erases it while the service decides. No HTTP here, no SQL."""

import asyncio
import contextvars
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from functools import partial
from typing import NamedTuple, TypeVar

from api.components import CatalogueParts, CurrentParts
from api.ledger import audit, warm_start
from api.messages.people import ErasureReply, PersonExport
from api.people.offline import PAGES, counted
from api.people.records import export, ids_of, known
from api.people.retention import Retention
from api.stores.erasure_log import Erasure, users_of
from api.stores.event_log import IngestResult
from bandit.errors import JourneyBanditError, Unavailable

log = logging.getLogger("journey_bandit.people")

T = TypeVar("T")

_BEGUN = 100  # erasures that begin in one transaction
_EVERY = 60.0  # seconds between two passes of retention
_GATHER = 1.0  # seconds for which a pass over the file waits for erasures that go on
_PATIENCE = 10.0  # seconds for a long reader to let the log be emptied
_SECOND = 1.0  # between two looks of a replica at what others were asked for
_PAUSE = 0.02  # seconds between two looks whether it has
_SHARE = 2.0  # as long as a step took, callers have the thread


class _Request(NamedTuple):
    """Request for an erasure; `done` has the erasure that it became, and whether its bytes are overwritten."""

    erasure: Erasure
    done: "asyncio.Future[tuple[Erasure, bool]]"


class _Pass(NamedTuple):
    """Pass over the file that goes on: the page that comes next, the requests that it is for, and until when it waits
    for a long reader.
    """

    page: int
    requests: list[tuple[Erasure, list[_Request]]]
    deadline: float


class PeopleService:
    """Rights of the people of one app: what the ledger holds of them, told and erased.

    Guarantees. Erasure: when `erase` returns, no reading method of the ledger knows the person; an erasure that was
    interrupted goes on when the service runs again. Pace: one task works on all erasures, a few rows at a time between
    the commits of callers, who have the thread in between for twice as long as it took. Erasures that wait at the same
    time share commits, and the passes over the file. Belongs to one event loop.
    """

    def __init__(self, current: CurrentParts):
        self._current = current
        self._store, self._clock = current.ground.store, current.ground.clock
        self._asked = list[_Request]()
        self._under_way: dict[bytes, Erasure] = {}
        self._waiting: dict[bytes, list[_Request]] = {}  # by the number of the erasure that they became
        self._gone: list[tuple[Erasure, list[_Request]]] = []  # their rows are gone, their bytes are not yet
        self._gone_at = 0.0  # when the first of these was
        self._pass: _Pass | None = None
        self._retention = Retention(current)
        self._resting = set[bytes]()  # numbers of erasures under way that nobody asked for
        self._task: asyncio.Task[None] | None = None
        self._singly = False  # one of several has failed
        self._took = 0.0  # seconds that the last piece of work had the thread

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Context in which erasures go on that an earlier process did not finish; at its end those of this one stop."""
        if not self._store.shared:
            await self._take_over()
        passes = asyncio.create_task(self._again_and_again())
        try:
            yield
        finally:
            tasks = [passes, *([self._task] if self._task else [])]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def erase(self, user_id: str, *, forget: bool) -> ErasureReply:
        """Erase all that is known of the person with this id; `forget`: also what was learned. It goes on if the caller
        leaves. Raises Overloaded, and Unavailable: the erasure goes on then, or is taken up when the service starts.
        """
        ids = await asyncio.to_thread(ids_of, self._store, self._hash(user_id))
        asked = Erasure(secrets.token_bytes(16), ids, self._clock(), forget)
        found = await asyncio.to_thread(known, self._store, ids)
        if found and self._over(ids) is not None:  # it may have ended since
            found = await asyncio.to_thread(known, self._store, ids)
        if found and not self._leads:
            return await self._elsewhere(asked)
        over = self._over(ids)
        if not found and over is None:
            return await asyncio.to_thread(counted, self._store, asked, found=False, overwritten=True)
        request = _Request(asked, asyncio.get_running_loop().create_future())
        if found or over is None:
            self._asked.append(request)
            self._go_on()
        else:
            over.append(request)
        asked, overwritten = await request.done
        return await asyncio.to_thread(counted, self._store, asked, found=True, overwritten=overwritten)

    async def export(self, user_id: str) -> PersonExport:
        """All that the ledger holds of the person with this id; read in another thread."""
        return await asyncio.to_thread(export, self._store, self._hash(user_id), self._clock())

    async def erase_at_rest(self) -> None:
        """Erase everybody of whom nothing came for the catalogue's `retention`; returns when no erasure is left, of
        those that were asked for neither. Without a retention it does nothing.
        """
        if self._retention.begin():
            await asyncio.wait([self._go_on()])

    async def _again_and_again(self) -> None:
        """Erase people at rest every minute; among replicas, whoever leads does, and takes over within a second what
        others began or were asked for.
        """
        last = -_EVERY
        while True:
            if self._store.shared:
                await self._follow_leader()
            if self._leads and time.monotonic() >= last + _EVERY:
                await self.erase_at_rest()
                last = time.monotonic()
            await asyncio.sleep(_SECOND if self._store.shared else _EVERY)

    @property
    def _leads(self) -> bool:
        """Whether erasures are done here: among replicas, where what matures is settled too."""
        return self._current.parts.worker.leading

    async def _take_over(self) -> None:
        for one in await asyncio.to_thread(self._store.erasures_under_way):
            self._under_way.setdefault(one.number, one)
        self._go_on()

    async def _follow_leader(self) -> None:
        """Take over what is under way if this replica leads, else leave it to the one that does."""
        try:
            if self._leads:
                await self._take_over()
            elif self._asked or self._under_way:
                _refuse(
                    [*self._asked, *(one for some in self._waiting.values() for one in some)],
                    Unavailable("another replica leads by now, and goes on with the erasure: ask again"),
                )
                self._asked, self._under_way, self._waiting = [], {}, {}
        except JourneyBanditError as error:
            log.warning("erasures are looked at again: %s", error)

    async def _elsewhere(self, asked: Erasure) -> ErasureReply:
        """Have the replica that leads do an erasure, and wait for its end."""
        begun = await self._write(lambda: self._store.begin_erasure(asked))
        while begun.number in {one.number for one in await asyncio.to_thread(self._store.erasures_under_way)}:
            await asyncio.sleep(_SECOND / 5)
        return await asyncio.to_thread(counted, self._store, begun, found=True, overwritten=True)

    def _over(self, ids: frozenset[bytes]) -> list[_Request] | None:
        """Requests for an erasure of this person whose rows are gone, but not yet its bytes."""
        waiting = (*self._gone, *(self._pass.requests if self._pass else ()))
        return next((requests for erasure, requests in waiting if erasure.users & ids), None)

    def _hash(self, user_id: str) -> bytes:
        return self._current.parts.service.user_hash(user_id)

    def _go_on(self) -> "asyncio.Task[None]":
        if self._task is None or self._task.done():
            nobody = contextvars.Context()  # it serves all requests from here on, not the one that began it
            self._task = asyncio.create_task(self._run(), context=nobody)
        return self._task

    async def _run(self) -> None:
        try:
            while self._asked or self._under_way or self._gone or self._pass or self._retention.goes_on:
                self._took = 0.0
                worked = await self._overwrite() or await self._erase() or await self._look()
                await asyncio.sleep(_SHARE * self._took if worked else _PAUSE)
        finally:
            requests = [*self._asked, *(one for some in self._waiting.values() for one in some)]
            for _, some in (*self._gone, *(self._pass.requests if self._pass else ())):
                requests += some
            _refuse(requests, Unavailable("the service is stopping: the erasure goes on when it starts again"))

    async def _erase(self) -> bool:
        """Do one step of the first erasures; returns whether there were any."""
        if not (self._asked or self._under_way):
            self._singly = False
            return False
        most = 1 if self._singly else _BEGUN
        under_way = self._first()
        asked, self._asked = self._asked[:most], self._asked[most:]
        if self._singly:
            under_way = [] if asked else under_way[:1]
        try:
            done = await self._timed(lambda parts: parts.worker.erase([one.erasure for one in asked], under_way))
            for request, begun in zip(asked, done.begun, strict=True):
                self._under_way[begun.number] = begun
                self._resting.discard(begun.number)
                self._waiting.setdefault(begun.number, []).append(request)
            asked, under_way = [], list(done.worked)
            self._moved(done.worked)
            if not done.left:
                await self._end(done.worked, ended=done.ended)
        except JourneyBanditError as error:
            self._failed(asked, under_way, error)
        return True

    def _first(self) -> list[Erasure]:
        """Erasures under way that come first: those that somebody asked for, if there are any."""
        under_way = list(self._under_way.values())
        first = [one for one in under_way if one.number not in self._resting]
        return first if first or self._asked else under_way

    async def _look(self) -> bool:
        """Begin to erase the next people at rest, if a pass goes on; returns whether it does."""
        if not self._retention.goes_on:
            return False
        start = time.monotonic()
        for one in await self._retention.look(self._write):
            self._under_way[one.number] = one
            self._resting.add(one.number)
        self._took = time.monotonic() - start
        return True

    def _failed(self, asked: list[_Request], under_way: list[Erasure], error: JourneyBanditError) -> None:
        """Give up the one erasure that failed; of several, it is not known which: each is tried alone then."""
        if len(asked) + len(under_way) > 1:
            self._asked, self._singly = asked + self._asked, True
            return
        log.error("an erasure waits for the next start, or until it is asked for again: %s", error)
        _refuse(asked, error)
        for one in under_way:
            self._under_way.pop(one.number, None)
            self._resting.discard(one.number)
            _refuse(self._waiting.pop(one.number, []), error)

    async def _end(self, erasures: Iterable[Erasure], *, ended: bool) -> None:
        """End erasures of which no row is left, if they have not ended yet."""
        over = list(erasures)
        if not ended:
            await self._warm_again()
            await self._write(lambda: self._store.end_erasures(over, self._clock()))
        self._moved(over)
        if not self._gone:
            self._gone_at = time.monotonic()
        for one in over:
            self._under_way.pop(one.number, None)
            self._resting.discard(one.number)
            self._gone.append((one, self._waiting.pop(one.number, [])))

    async def _warm_again(self) -> None:
        """Have stages that began with decisions of an earlier schema begin with those that are left of them."""
        stages = await asyncio.to_thread(audit.stages, self._store)
        found = await asyncio.to_thread(warm_start.again, self._store, stages)
        if found:
            async with self._current.inside() as parts:
                await asyncio.wrap_future(parts.worker.warm_again(stages, found))

    def _moved(self, erasures: Iterable[Erasure]) -> None:
        """Have the sessions of these persons read from the ledger again."""
        self._current.parts.service.maker.apply(IngestResult([], {}, users_of(erasures), []))

    async def _overwrite(self) -> bool:
        """Do one piece of a pass over the file, if one goes on or is due; returns whether it did anything. A pass is
        for all erasures whose rows were gone when it began, and begins when no other goes on, or after a while.
        """
        if self._pass is None:
            others = self._asked or self._under_way or self._retention.goes_on
            if not self._gone or (others and time.monotonic() < self._gone_at + _GATHER):
                return False
            self._pass, self._gone = _Pass(1, self._gone, time.monotonic() + _PATIENCE), []
        before, requests, deadline = self._pass
        try:
            page = await self._write(partial(self._store.overwrite_erased, before, PAGES))
        except JourneyBanditError as error:
            self._pass = None
            _refuse((one for _, some in requests for one in some), error)
            return True
        if page == 0 or (page == before and time.monotonic() >= deadline):
            self._pass = None
            for erasure, some in requests:
                _answer(some, erasure, overwritten=page == 0)
        elif page > before:
            self._pass = _Pass(page, requests, time.monotonic() + _PATIENCE)
        return page != before

    async def _write(self, work: Callable[[], T]) -> T:
        """What `work` returns, done between two commits."""
        return await self._timed(lambda parts: parts.worker.run(work))

    async def _timed(self, begin: Callable[[CatalogueParts], "Future[T]"]) -> T:
        """What a piece of work of the writer's thread returns; a replacement of the catalogue waits no longer than
        that.
        """
        async with self._current.inside() as parts:
            result = await asyncio.wrap_future(begin(parts))
            self._took += parts.worker.chore_seconds
            return result


def _answer(requests: Iterable[_Request], erasure: Erasure, *, overwritten: bool) -> None:
    for one in requests:
        if not one.done.done():  # its caller may have left
            one.done.set_result((erasure, overwritten))


def _refuse(requests: Iterable[_Request], error: JourneyBanditError) -> None:
    for one in requests:
        if not one.done.done():
            one.done.set_exception(error)
