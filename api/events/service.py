"""Event service: events in, journeys out. Names and ids are translated to the ledger's, then written. No HTTP here, and
no SQL.
"""

import asyncio
import hashlib
import uuid
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from api import clocks
from api.clocks import Clock
from api.decisions.maker import DecisionMaker
from api.learning.worker import Worker
from api.messages.events import (
    EventCountReply,
    EventReply,
    EventRequest,
    ExposureReply,
    JourneyReply,
    MissedReply,
    UncreditedReply,
)
from api.metrics import Metrics
from api.stores.event_log import EventCredits, Status
from api.stores.ingest import LATE
from api.stores.protocol import Store
from api.times import happened, microseconds, time_of
from bandit import engine
from bandit.catalogue.model import Catalogue
from bandit.errors import Conflict, InvalidRequest, JourneyBanditError, Problem
from bandit.identifiers import is_placeholder
from bandit.journey import folding
from bandit.journey.folding import JourneyFold
from bandit.records import Event

MOST = 5000
"""Events of one batch of protocols that set no number themselves."""

_CHUNK = 2000  # events of one submission
_AT_ONCE = 64  # events that are read without a pause
_AHEAD = 86_400_000_000  # µs that clocks of clients may be ahead


class ReceivedEvent(NamedTuple):
    """Event as a client sent it, of whatever protocol. `at`: when it happened (µs since 1970), or None for now;
    `time_field`: what the client calls that field, for errors. `user` and `alias` are ids of one person. `earlier_id`:
    the id under which an earlier version would have recorded the event, if that is another one.
    """

    id: str
    name: str
    user: str
    alias: str | None
    properties: Mapping[str, object]
    at: int | None
    time_field: str = "occurred_at"
    earlier_id: str = ""


class EventReceipt(NamedTuple):
    """Receipt of an event that was recorded now or before. `credited`: by stage, the decision that the event is
    credited to; `missed`: by stage, why it is credited to none. `notes`: what was not kept of it.
    """

    status: Status
    credited: Mapping[str, uuid.UUID]
    missed: Mapping[str, str]
    notes: tuple[str, ...] = ()


class EventService:
    """Events and journeys of one app, for all protocols that send events: native, Segment, GO Feature Flag's collector.

    Guarantees: an event is answered after it is durable, with the journey and the outcomes that follow from it in the
    same transaction; an event that cannot be used is counted and costs no other. User ids are hashed with the salt
    before they reach the ledger. Belongs to one event loop.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        store: Store,
        worker: Worker,
        maker: DecisionMaker,
        *,
        salt: bytes,
        clock: Clock,
        metrics: Metrics,
    ):
        self._rules = folding.rules(catalogue)
        self._catalogue = catalogue
        self._store = store
        self._worker = worker
        self._maker = maker
        self._salt = salt
        self._clock = clock
        self._began = clock()
        self._metrics = metrics

    async def take(
        self, sent: Sequence[ReceivedEvent | InvalidRequest], reporter: str = ""
    ) -> list[EventReceipt | InvalidRequest]:
        """Receipt of each event, or what is wrong with it, in order; durable. `reporter`: name of the key that sends
        them. Items that a protocol could not read (InvalidRequest) are counted, and answered as they came. Raises
        Overloaded, and Unavailable if it is not known whether events were recorded: the caller sends them again with
        the same ids.
        """
        now = self._clock()
        sent = await self._as_before(sent)
        read = list[tuple[Event, tuple[str, ...]] | InvalidRequest]()
        for start in range(0, len(sent), _AT_ONCE):
            some = sent[start : start + _AT_ONCE]
            read += [one if isinstance(one, InvalidRequest) else self._read(one, now, reporter) for one in some]
            if len(read) < len(sent):
                await asyncio.sleep(0)  # others' turn
        events = [one[0] for one in read if not isinstance(one, InvalidRequest)]
        recorded = list[tuple[Status, EventCredits]]()
        for start in range(0, len(events), _CHUNK):
            recorded += await self._worker.take(events[start : start + _CHUNK])
        left = iter(recorded)
        return [
            self._refused(one) if isinstance(one, InvalidRequest) else self._answer(given, *one, *next(left))
            for given, one in zip(sent, read, strict=True)
        ]

    async def report(
        self, requests: Sequence[EventRequest], reporter: str = ""
    ) -> list[EventReply | JourneyBanditError]:
        """Reply to each event of the native protocol, or what is wrong with it, in order. `reporter`: name of the key
        that sends them. An id that came before with other content is a Conflict. Raises as `take` does.
        """
        taken = await self.take([_sent(request) for request in requests], reporter)
        return [
            receipt if isinstance(receipt, InvalidRequest) else self._reply(request, receipt)
            for request, receipt in zip(requests, taken, strict=True)
        ]

    def uncredited(self, most: int, reason: str | None) -> UncreditedReply:
        """Newest events that report something and are credited to no decision, at most so many, of one reason or of
        any.
        """
        found = self._store.missed(most, reason)
        return UncreditedReply([MissedReply(r.event, r.stage, r.kind, r.reason, r.why, time_of(at)) for r, at in found])

    def now(self) -> int:
        """Present time of the service's clock, µs since 1970."""
        return self._clock()

    def names(self, name: str) -> bool:
        """Whether the catalogue declares an event that the app calls so. Others are recorded too, and count as activity
        only.
        """
        return name in self._rules.named

    def id_of(self, words: bytes) -> str:
        """Id of an event that brings none: the keyed hash of its words, 32 hex digits. The same words are the same
        event, and nobody without the salt can find what they said by trying.
        """
        return hashlib.blake2b(words, digest_size=16, key=self._salt, person=b"event").hexdigest()

    def earlier_id_of(self, words: bytes) -> str:
        """Id that versions before 0.2 gave an event that brings none: a hash without a key, 32 hex digits."""
        return hashlib.blake2b(words, digest_size=16).hexdigest()

    def reports(self, name: str) -> bool:
        """Whether an event that the app calls so reports an outcome, such as a purchase."""
        return self._rules.named.get(name, "") in self._rules.outcomes

    def journey(self, user_id: str) -> JourneyReply:
        """Journey of a user now: stage, moment and why, what is known, and what may be shown without evidence. Called
        in the event loop; it reads the ledger if the user is not in memory. It reserves nothing.
        """
        now = self._clock()
        someone, found, eligible = self._maker.where(user_id, now)
        state, stage = someone.state, self._catalogue.stages[found.stage]
        return JourneyReply(
            stage=found.stage,
            moment=found.moment,
            why=found.why,
            visits=state.visits if state else 0,
            visit_began_at=time_of(state.began) if state else None,
            last_event_at=time_of(state.at) if state else None,
            events={n: EventCountReply(s.count, time_of(s.last)) for n, s in state.seen.items()} if state else {},
            abandoned=len(state.abandoned) if state else 0,
            features=folding.features(self._rules, stage, state, now),
            consent=sorted(folding.flags(self._rules, state)),
            exposures=[
                ExposureReply(*place, len(shown), time_of(max(e.at for e in shown)))
                for place, shown in sorted(someone.shown.items())
                if shown
            ],
            eligible=[arm for arm in stage.arms if arm not in eligible.excluded],
            excluded=eligible.excluded,
        )

    async def _as_before(
        self, sent: Sequence[ReceivedEvent | InvalidRequest]
    ) -> Sequence[ReceivedEvent | InvalidRequest]:
        """The events, of which those that an earlier version has recorded have the id that it gave them, so that they
        are known again. An event that happened later than a day after this service began was sent to no earlier one,
        and is not looked up: clients' clocks may be so far ahead.
        """
        until = self._began + _AHEAD
        old = [
            one.earlier_id
            for one in sent
            if isinstance(one, ReceivedEvent) and one.earlier_id and (one.at is None or one.at < until)
        ]
        if not old:
            return sent
        kept = {one: self._kept_id(one) for one in old}
        known = await asyncio.to_thread(self._store.recorded_events, list(kept.values()))
        return [
            one._replace(id=one.earlier_id)
            if isinstance(one, ReceivedEvent) and kept.get(one.earlier_id) in known
            else one
            for one in sent
        ]

    def _read(self, sent: ReceivedEvent, now: int, reporter: str) -> tuple[Event, tuple[str, ...]] | InvalidRequest:
        """The event as the ledger keeps it, and notes on what it does not keep."""
        name = self._rules.named.get(sent.name, "")
        try:
            user, alias = people(self._rules, sent.user, sent.alias)
            at = None if sent.at is None else clocks.told(self._clock, sent.at, now)
            at = happened(sent.time_field, at, now)
            properties = folding.properties(self._rules, name, sent.properties, self._pseudonym)
        except InvalidRequest as error:
            return error
        event = Event(
            id=self._kept_id(sent.id),
            user=engine.user_hash(self._salt, user),
            alias=engine.user_hash(self._salt, alias) if alias else None,
            at=at,
            received=now,
            name=name,
            properties=properties.values,
            reporter=reporter,
        )
        return event, properties.notes

    def _kept_id(self, sent: str) -> str:
        """Id of an event as the ledger keeps it."""
        return self._pseudonym(sent) if self._catalogue.personal_ids is True else sent

    def _pseudonym(self, text: str) -> str:
        return engine.pseudonym(self._salt, text)

    def _answer(
        self,
        given: ReceivedEvent | InvalidRequest,
        event: Event,
        notes: tuple[str, ...],
        status: Status,
        credits_: EventCredits,
    ) -> EventReceipt | InvalidRequest:
        """Receipt of an event that was written, or why it was not taken."""
        if status == "refused" and isinstance(given, ReceivedEvent):
            what = f"more than {LATE:,} events of this person happened after it"
            return self._refused(InvalidRequest(Problem(given.time_field, what, "send events as they happen")))
        return self._receipt(event, notes, status, credits_)

    def _receipt(self, event: Event, notes: tuple[str, ...], status: Status, credits_: EventCredits) -> EventReceipt:
        self._metrics.events.labels(event.name or "(other)", status).inc()
        if notes:
            self._metrics.properties_dropped.labels(event.name).inc(len(notes))
        missed = {stage: f"{miss.reason}: {miss.why}" for stage, miss in credits_.missed.items()}
        return EventReceipt(status, credits_.credited, missed, notes)

    def _refused(self, error: InvalidRequest) -> InvalidRequest:
        self._metrics.events.labels("(unusable)", "dropped").inc()
        self._metrics.events_refused.labels(error.problems[0].field.partition(".")[0]).inc()
        return error

    def _reply(self, request: EventRequest, receipt: EventReceipt) -> EventReply | JourneyBanditError:
        if receipt.status == "conflict":
            problem = f"event {request.event_id!r} was recorded with other content"
            return Conflict("event_id", problem, "send another event_id for another event")
        return EventReply(
            recorded=True,
            duplicate=receipt.status == "duplicate",
            known=self.names(request.event),
            credited=dict(receipt.credited) or msgspec.UNSET,
            not_credited=dict(receipt.missed) or msgspec.UNSET,
            notes=list(receipt.notes) or msgspec.UNSET,
        )


def check_number(field: str, events: int) -> None:
    """Check how many events a batch has, before any is read. Raises InvalidRequest, which names `field` and number, for
    more than MOST.
    """
    if events > MOST:
        raise InvalidRequest(Problem(field, f"{events:,} events", f"send {MOST:,} at most, the rest in another"))


def people(rules: JourneyFold, user: str, alias: str | None) -> tuple[str, str | None]:
    """Ids of an event that can be a person's: (user, alias or None). A placeholder such as "null" joins nobody. Raises
    InvalidRequest if no id is left.
    """
    named = [one for one in (user, alias) if one and not is_placeholder(one, rules.placeholders)]
    if not named:
        raise InvalidRequest(Problem("user_id", f"{user!r} stands for a missing id", "send the id of the user"))
    return named[0], named[1] if named[1:] and named[1] != named[0] else None


def _sent(request: EventRequest) -> ReceivedEvent | InvalidRequest:
    user = request.user_id or request.anonymous_id
    if user is None:
        return InvalidRequest(Problem("user_id", "missing", "send user_id or anonymous_id, or both to join them"))
    at = microseconds(request.occurred_at) if request.occurred_at else None
    alias = request.anonymous_id if request.user_id else None
    return ReceivedEvent(request.event_id, request.event, user, alias, request.properties, at)
