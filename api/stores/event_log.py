"""Event log of a ledger: events of users, who is who, journeys, and what events are credited to."""

import uuid
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Literal, NamedTuple, Protocol

from api.stores.decision_log import OutcomeReceipt
from bandit.catalogue.model import Stage
from bandit.journey.attribution import CreditedOutcome, UncreditedReport
from bandit.journey.folding import JourneyFold, JourneyState
from bandit.records import Event

Status = Literal["recorded", "duplicate", "conflict", "refused"]


class PastDecision(NamedTuple):
    """Decision of a user, without its numbers. Times in µs; `activated`: when it was reported that it was really
    shown.
    """

    id: uuid.UUID
    stage: str
    arm: str
    at: int
    expires: int
    moment: str
    deferred: bool
    activated: int | None


class FirstDecision(NamedTuple):
    """What a user's first decision says about their group. `unit` is empty if it was not recorded then; `spec` is the
    digest of the declaration with the holdout's share.
    """

    user: bytes
    unit: bytes
    holdout: bool
    spec: str


class Contribution(NamedTuple):
    """Decision of a user as the stage's contribution limit counts it: when it was made (µs), and what it took of the
    limit; 0: it was over it.
    """

    id: uuid.UUID
    stage: str
    at: int
    amount: int


class Person(NamedTuple):
    """What the ledger knows of a user. `ids`: all keyed hashes that lead to the root. `asked`: newest first. `first`:
    the earliest decision under any of the ids, of those that recorded a unit if there are any. `contributed`: the
    newest decisions at moments that held, newest first.
    """

    root: bytes
    ids: frozenset[bytes]
    state: JourneyState | None
    asked: tuple[PastDecision, ...]
    first: FirstDecision | None = None
    contributed: tuple[Contribution, ...] = ()


class EventCredits(NamedTuple):
    """What one event is credited to, by stage, and where it is credited to nothing, why."""

    credited: Mapping[str, uuid.UUID]
    missed: Mapping[str, UncreditedReport]


class IngestResult(NamedTuple):
    """What ingesting events has changed. `taken`: what became of each. `moved`: roots of users who were joined or
    parted. `noted`: outcomes that followed, with their receipts. `credits`: by event id, of the events that report
    something. `missed`: what was found to be credited to nothing, now and not before.
    """

    taken: list[Status]
    states: Mapping[bytes, JourneyState]
    moved: Collection[bytes]
    noted: list[tuple[CreditedOutcome, OutcomeReceipt]]
    credits: Mapping[str, EventCredits] = MappingProxyType({})
    missed: Sequence[UncreditedReport] = ()


class MissedReport(NamedTuple):
    """Event that reports something and is credited to nothing, and when it was received (µs)."""

    report: UncreditedReport
    at: int


class EventLog(Protocol):
    """Events of one ledger, append-only, and the journeys and credits that follow from them.

    Guarantees. Atomicity: events, the journeys they move and the outcomes they report are one transaction. Order: the
    journey of a user is the fold of their events in the order in which they happened, whatever the order, repetition or
    batching in which they came. Durability, threads and errors as `DecisionLog`.
    """

    def ingest(
        self,
        events: Sequence[Event],
        now: int,
        specs: Mapping[str, Stage],
        rules: JourneyFold,
        users: Collection[bytes] = (),
    ) -> IngestResult:
        """What became of each event, and what follows from them (see `api.stores.ingest`). `now` in µs.

        `users`: ids of people whose decisions have changed, so that what they reported is attributed anew.
        """
        ...

    def missed(self, most: int, reason: str | None = None) -> list[MissedReport]:
        """Reports credited to nothing as things stand: the newest `most`, of one reason or of any."""
        ...

    def roots(self, users: Collection[bytes]) -> dict[bytes, bytes]:
        """Root of each id: the user that its links lead to."""
        ...

    def person(self, user: bytes, most: int) -> Person:
        """Who is behind an id, with the newest `most` decisions that showed something or that a moment asked for, and
        of the newest `most` what they contributed.
        """
        ...

    def events_after(self, after: int, most: int) -> list[tuple[int, Event]]:
        """Events numbered above `after` with their numbers, in the order in which they came, at most so many."""
        ...

    def recorded_events(self, ids: Collection[str]) -> set[str]:
        """Those of these ids under which an event is recorded."""
        ...

    def last_event(self) -> int:
        """Number of the newest event, 0 before any."""
        ...

    def events(self, users: Collection[bytes]) -> list[Event]:
        """Every event that came under these ids, in the order in which they happened."""
        ...
