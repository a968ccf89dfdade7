"""Retention: which people are at rest, so that they are erased although nobody asked."""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

import msgspec

from api import clocks
from api.clocks import DrivenClock
from api.components import CurrentParts
from api.people.records import ids_of
from api.stores.erasure_log import Erasure
from api.stores.rest import RestCursor, RestPage
from bandit.catalogue import durations
from bandit.errors import JourneyBanditError

log = logging.getLogger("journey_bandit.people")

T = TypeVar("T")

PEOPLE = 10
"""People whose erasures begin at once: as many as share a step."""

_KEY = "retention"
_KEPT = 10_000  # rows after which the place is kept, where nobody is at rest


class _Write(Protocol):
    """What a piece of work returns that is done between two commits, in the thread that writes."""

    def __call__(self, work: Callable[[], T]) -> Awaitable[T]: ...


class Retention:
    """Walk over decisions and events in the order of their numbers, to people of whom nothing came for as long as the
    catalogue's `retention`. Its place is kept in the ledger, in the transaction in which their erasures begin, so that
    it goes on after a crash and leaves nobody out.

    A person is old by the clock by which decisions mature: a wall clock that was set ahead makes nobody old before it
    is believed, and none whose windows it would shorten. Under a clock that a client drives nobody is erased. Belongs
    to one event loop.
    """

    def __init__(self, current: CurrentParts):
        self.goes_on = False
        self._current = current
        self._store, self._clock, self._metrics = current.ground.store, current.ground.clock, current.ground.metrics
        self._at: RestCursor | None = None
        self._people = self._rows = self._unkept = 0  # of this pass; rows since the place was kept

    def begin(self) -> bool:
        """Begin a pass, if the catalogue has a retention and none goes on; returns whether one does."""
        declared = self._current.parts.catalogue.retention is not None
        if declared and not self.goes_on and not isinstance(self._clock, DrivenClock):
            self.goes_on, self._people, self._rows = True, 0, 0
        return self.goes_on

    async def look(self, write: _Write) -> list[Erasure]:
        """Erasures that have begun, of people on the next page; the last page ends the pass, and so does an error:
        another pass looks at that page again.
        """
        catalogue, scale = self._current.parts.catalogue, self._current.ground.settings.window_scale
        if catalogue.retention is None:  # any more
            self.goes_on = False
            return []
        before = clocks.settling(self._clock) - durations.micro(catalogue.retention, scale)
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
            self.goes_on = False
            return []
        self._passed(page, len(begun))
        return begun

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
            self.goes_on = False
            if self._rows:
                log.info("retention: %d people at rest of %d rows are erased", self._people, self._rows)
