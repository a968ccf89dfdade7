"""Retention: which people are at rest, and which events are too old, so that they are erased although nobody asked."""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol, TypeVar

import msgspec

from api import clocks
from api.clocks import DrivenClock
from api.components import CurrentParts
from api.people.records import ids_of
from api.stores.erasure_log import Erasure, RetiredEvents
from api.stores.rest import RestCursor, RestPage
from bandit.catalogue import durations
from bandit.errors import JourneyBanditError

log = logging.getLogger("journey_bandit.people")

T = TypeVar("T")

PEOPLE = 10
"""People whose erasures begin at once: as many as share a step."""

EVENTS = 100
"""Events that are erased at once for their age."""

_EVERY_EVENT = 2**62
_KEY, _EVENTS_KEY = "retention", "retention_events"
_KEPT = 10_000  # rows after which the place is kept, where nobody is at rest


class _Write(Protocol):
    """What a piece of work returns that is done between two commits, in the thread that writes."""

    def __call__(self, work: Callable[[], T]) -> Awaitable[T]: ...


class Retention:
    """Walk over decisions and events in the order of their numbers, to people of whom nothing came for as long as the
    catalogue's `retention`; then over events that are older than its `events`, which it erases itself. Its place is
    kept in the ledger, in the transaction in which their erasures begin, so that it goes on after a crash and leaves
    nobody out.

    A person is old by the clock by which decisions mature: a wall clock that was set ahead makes nobody old before it
    is believed, and none whose windows it would shorten. Under a clock that a client drives nobody is erased. Belongs
    to one event loop.
    """

    def __init__(self, current: CurrentParts):
        self._left = list[str]()  # kinds that this pass has not done
        self._current = current
        self._store, self._clock, self._metrics = current.ground.store, current.ground.clock, current.ground.metrics
        self._at: RestCursor | None = None
        self._people = self._rows = self._unkept = 0  # of this pass; rows since the place was kept
        self._events = self._retired = 0  # events erased in this pass; those whose bytes are to be overwritten

    def begin(self) -> bool:
        """Begin a pass, if the catalogue has a retention and none goes on; returns whether one does."""
        kept = self._current.parts.catalogue.kept
        if not self.goes_on and not isinstance(self._clock, DrivenClock):
            self._left = [kind for kind in ("people", "events") if getattr(kept, kind) is not None]
            self._people = self._rows = self._events = 0
        return self.goes_on

    @property
    def goes_on(self) -> bool:
        """Whether a pass goes on."""
        return bool(self._left)

    def retired(self) -> int:
        """How many events were erased for their age and their bytes not yet overwritten, once a pass has ended; none
        from then on.
        """
        if self._left:
            return 0
        retired, self._retired = self._retired, 0
        return retired

    async def look(self, write: _Write) -> list[Erasure]:
        """Erasures that have begun, of people on the next page; the last page ends the pass, and so does an error:
        another pass looks at that page again.
        """
        if self._left[0] == "events":
            await self._retire(write)
            return []
        catalogue = self._current.parts.catalogue
        if catalogue.kept.people is None:  # any more
            self._left.pop(0)
            return []
        before = self._before(catalogue.kept.people)
        try:
            if self._at is None:
                self._at = await asyncio.to_thread(self._kept)
            page = await asyncio.to_thread(self._store.at_rest, self._at, before, PEOPLE, [*catalogue.stages])
            begun = list[Erasure]()
            self._unkept += page.rows
            if page.people or self._unkept >= (_KEPT if page.left else 1):
                begun = await write(lambda: self._begin(page, before))
                self._unkept = 0
        except JourneyBanditError as error:
            log.error("retention goes on with its next pass: %s", error)
            self._left = []
            return []
        self._passed(page, len(begun))
        return begun

    def _before(self, kept: str) -> int:
        """Time (µs) before which rows are old that are kept for so long (a duration)."""
        return clocks.settling(self._clock) - durations.micro(kept, self._current.ground.settings.window_scale)

    async def _retire(self, write: _Write) -> None:
        """Erase the next events that are too old, whosever they are; the last page ends the pass, and so does an
        error.
        """
        kept = self._current.parts.catalogue.kept.events
        try:
            page = None if kept is None else await write(partial(self._page_of_events, self._before(kept)))
        except JourneyBanditError as error:
            log.error("retention goes on with its next pass: %s", error)
            page = None
        if page is not None:
            self._events, self._retired = self._events + page.events, self._retired + page.events
        if page is None or not page.left:
            self._left = []
            if self._events:
                log.info("retention: %d events are erased", self._events)

    def _page_of_events(self, before: int) -> RetiredEvents:
        """Erase a page of events and keep the place behind it: in the thread that writes, in one transaction."""
        try:
            after = msgspec.json.decode(self._store.meta().get(_EVENTS_KEY, "0"), type=int)
        except msgspec.MsgspecError:
            after = 0
        people = self._current.parts.catalogue.kept.people is not None
        last = _EVERY_EVENT if not people else self._at.event if self._at else 0  # people are found by their events
        with self._store.atomic():
            page = self._store.retire_events(secrets.token_bytes(16), self._clock(), (after, last), before, EVENTS)
            if page.through != after:
                self._store.set_meta({_EVENTS_KEY: str(page.through)})
        return page

    def _kept(self) -> RestCursor:
        """Place that the ledger keeps. One that cannot be read counts as none: the walk begins anew."""
        try:
            return RestCursor(*msgspec.json.decode(self._store.meta().get(_KEY, "[0, 0]"), type=tuple[int, int]))
        except msgspec.MsgspecError:
            return RestCursor()

    def _begin(self, page: RestPage, before: int) -> list[Erasure]:
        """Begin erasures of those who have not come back since the page was read, and keep the place behind it: in the
        thread that writes, in one transaction.
        """
        store, now = self._store, self._clock()
        people = dict.fromkeys(ids_of(store, min(ids)) | ids for ids in page.people)
        with store.atomic():
            begun = [
                store.begin_erasure(Erasure(secrets.token_bytes(16), ids, now, forget=False))
                for ids in people
                if store.is_at_rest(ids, before)
            ]
            store.set_meta({_KEY: msgspec.json.encode(page.through).decode()})
        return begun

    def _passed(self, page: RestPage, people: int) -> None:
        self._at = page.through
        self._people, self._rows = self._people + people, self._rows + page.rows
        self._metrics.erased_at_rest.inc(people)
        for rows, at in (("decisions", page.decided), ("events", page.received)):
            if at:
                self._metrics.retention_reached.labels(rows).set(at / 1e6)
        if not page.left:
            self._left.pop(0)
            if self._rows:
                log.info("retention: %d people at rest of %d rows are erased", self._people, self._rows)
