"""Events in, journeys out: names and ids translated to the ledger's, then written. No HTTP here, and no SQL."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from api.asking import Asking, microseconds
from api.event_messages import EventReply, EventRequest, ExposureReply, JourneyReply, SeenReply
from api.metrics import Metrics
from api.service import time_of
from api.stores.protocol import SKEW, Status
from api.worker import Clock, Worker
from bandit import engine, journey
from bandit.catalogue import Catalogue
from bandit.errors import Conflict, InvalidRequest, JourneyBanditError, Problem
from bandit.records import Event

_CHUNK = 2000  # events of one submission


class Sent(NamedTuple):
    """An event as a client sent it. `at`: when it happened (µs), or None for now. `user` and `alias` are one person."""

    id: str
    name: str
    user: str
    alias: str | None
    properties: Mapping[str, object]
    at: int | None


class Events:
    """One app's events and journeys. Thread-safe only in its event loop."""

    def __init__(
        self, catalogue: Catalogue, worker: Worker, asking: Asking, *, salt: bytes, clock: Clock, metrics: Metrics
    ):
        self._rules = journey.rules(catalogue)
        self._catalogue = catalogue
        self._worker = worker
        self._asking = asking
        self._salt = salt
        self._clock = clock
        self._metrics = metrics

    async def take(self, sent: Sequence[Sent]) -> list[Status]:
        """Record events, durable; what became of each. Unavailable."""
        now = self._clock()
        events = [self._event(one, now) for one in sent]
        taken: list[Status] = []
        for start in range(0, len(events), _CHUNK):
            taken += await self._worker.take(events[start : start + _CHUNK])
        for event, status in zip(events, taken, strict=True):
            self._metrics.events.labels(event.name or "(other)", status).inc()
        return taken

    async def report(self, requests: Sequence[EventRequest]) -> list[EventReply | JourneyBanditError]:
        """Each event recorded, or what is wrong with it, in order; one durable write for all."""
        now = self._clock()
        sent = [_sent(request, now) for request in requests]
        taken = iter(await self.take([one for one in sent if isinstance(one, Sent)]))
        return [one if isinstance(one, InvalidRequest) else self._reply(one, next(taken)) for one in sent]

    def now(self) -> int:
        """The service's clock, µs."""
        return self._clock()

    def names(self, name: str) -> bool:
        """Whether the catalogue declares an event that the app calls so."""
        return name in self._rules.named

    def journey(self, user_id: str) -> JourneyReply:
        """Where a user is now, why, and what may be shown."""
        now = self._clock()
        someone, found, eligible = self._asking.where(user_id, now)
        state, stage = someone.state, self._catalogue.stages[found.stage]
        return JourneyReply(
            stage=found.stage,
            moment=found.moment,
            why=found.why,
            visits=state.visits if state else 0,
            visit_began_at=time_of(state.began) if state else None,
            last_event_at=time_of(state.at) if state else None,
            events={n: SeenReply(s.count, time_of(s.last)) for n, s in state.seen.items()} if state else {},
            abandoned=len(state.abandoned) if state else 0,
            features=journey.features(self._rules, stage, state, now),
            consent=sorted(journey.flags(self._rules, state)),
            exposures=[
                ExposureReply(*place, len(shown), time_of(max(e.at for e in shown)))
                for place, shown in sorted(someone.shown.items())
                if shown
            ],
            eligible=[arm for arm in stage.arms if arm not in eligible.excluded],
            excluded=eligible.excluded,
        )

    def _event(self, sent: Sent, now: int) -> Event:
        name = self._rules.named.get(sent.name, "")
        alias = sent.alias if sent.alias != sent.user else None
        return Event(
            id=sent.id,
            user=engine.user_hash(self._salt, sent.user),
            alias=engine.user_hash(self._salt, alias) if alias else None,
            at=now if sent.at is None else min(sent.at, now),
            received=now,
            name=name,
            properties=journey.kept(self._rules, name, sent.properties),
        )

    def _reply(self, sent: Sent, status: Status) -> EventReply | JourneyBanditError:
        if status == "conflict":
            problem = f"event {sent.id!r} was recorded with other content"
            return Conflict("event_id", problem, "send another event_id for another event")
        return EventReply(recorded=True, duplicate=status == "duplicate", known=self.names(sent.name))


def _sent(request: EventRequest, now: int) -> Sent | InvalidRequest:
    user = request.user_id or request.anonymous_id
    at = microseconds(request.occurred_at) if request.occurred_at else None
    if user is None:
        return InvalidRequest(Problem("user_id", "missing", "send user_id or anonymous_id, or both to join them"))
    if at is not None and at > now + SKEW:
        return InvalidRequest(Problem("occurred_at", "lies in the future", "send when it happened, in UTC"))
    alias = request.anonymous_id if request.user_id else None
    return Sent(request.event_id, request.event, user, alias, request.properties, at)
