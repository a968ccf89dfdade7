"""What a store promises, and the rules of admission that all stores share.

A store keeps one append-only ledger: decisions, outcomes, settlements, events, releases. Everything else (pending,
beliefs, journeys) is derived from it in the same transactions. When `record`, `take` or `settle` returns, what it
returned is durable; when it raises Unavailable, nothing is known and the caller retries with the same ids.
"""

import math
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Literal, NamedTuple, Protocol, get_args

import msgspec

from bandit.arrays import Array
from bandit.belief import Belief
from bandit.catalogue.model import Stage
from bandit.errors import LedgerError, Problem
from bandit.journey.attribution import CreditedOutcome, UncreditedReport
from bandit.journey.folding import JourneyFold, JourneyState
from bandit.learning import rewards
from bandit.records import Decision, Event, MaturedDecision, Outcome, OutcomeKind, Release, Settlement

SKEW = 300_000_000  # µs that a client's clock may differ from ours


class DecisionRecord(NamedTuple):
    """A decision in the ledger with all that was recorded about it."""

    seq: int
    decision: Decision
    outcomes: tuple[Outcome, ...]
    settlement: Settlement | None


class RecordedDecision(NamedTuple):
    """A decision as the ledger holds it. `duplicate`: it was there already, maybe with another request."""

    decision: Decision
    duplicate: bool
    seq: int


class OutcomeReceipt(NamedTuple):
    """What became of a reported outcome."""

    status: Literal["recorded", "duplicate", "conflict", "unknown", "invalid"]
    late: bool = False
    problem: Problem | None = None
    stage: str = ""
    found: "DecisionRecord | None" = None  # if recorded: the decision, and all that was reported about it
    notes: tuple[str, ...] = ()  # if recorded: what will not count as it was sent


class LedgerPosition(NamedTuple):
    """The numbers of the ledger's newest rows."""

    decision: int
    outcome: int
    settlement: int
    release: int = 0


class AdmissionPlan(NamedTuple):
    """What one transaction has to write."""

    decisions: list[tuple[int, Decision]]
    outcomes: list[Outcome]
    hastened: list[int]  # decisions whose reward is final before their window ends


class RowCounts(NamedTuple):
    """Rows of the ledger."""

    decisions: int
    outcomes: int
    settlements: int
    pending: int


Status = Literal["recorded", "duplicate", "conflict"]


class PastDecision(NamedTuple):
    """A decision of a person, without its numbers."""

    id: uuid.UUID
    stage: str
    arm: str
    at: int
    expires: int
    moment: str
    deferred: bool
    activated: int | None


class FirstDecision(NamedTuple):
    """What a person's first decision says about their group. `unit` is empty if it was not recorded then; `spec` is the
    digest of the declaration with the holdout's share.
    """

    user: bytes
    unit: bytes
    holdout: bool
    spec: str


class Person(NamedTuple):
    """What the ledger knows of a person. `ids`: all that lead to the root. `asked`: newest first. `first`: the earliest
    decision under any of the ids, of those that recorded a unit if there are any.
    """

    root: bytes
    ids: frozenset[bytes]
    state: JourneyState | None
    asked: tuple[PastDecision, ...]
    first: FirstDecision | None = None


class EventCredits(NamedTuple):
    """What one event is credited to, and why it is credited to nothing, by stage."""

    credited: Mapping[str, uuid.UUID]
    missed: Mapping[str, UncreditedReport]


class IngestResult(NamedTuple):
    """What taking events in has changed. `moved`: roots of people who were joined or parted. `credits`: by event id, of
    the events that report something. `missed`: what was found to be credited to nothing, now and not before.
    """

    taken: list[Status]
    states: Mapping[bytes, JourneyState]
    moved: Collection[bytes]
    noted: list[tuple[CreditedOutcome, OutcomeReceipt]]
    credits: Mapping[str, EventCredits] = MappingProxyType({})
    missed: Sequence[UncreditedReport] = ()


class MissedReport(NamedTuple):
    """An event that reports something and is credited to nothing, and when it was received (µs)."""

    report: UncreditedReport
    at: int


class WebhookDelivery(NamedTuple):
    """A message that an endpoint has not taken. `due`: its next attempt; `dead`: it was given up."""

    endpoint: str
    event: str
    body: bytes
    attempts: int
    due: int
    error: str
    dead: bool
    at: int


class Store(Protocol):
    """One ledger. Only one thread may call the writing methods; reading methods may be called from any."""

    def meta(self) -> dict[str, str]:
        """Facts about the ledger itself: app, salt."""
        ...

    def set_meta(self, values: Mapping[str, str]) -> None:
        """Add facts."""
        ...

    def register(self, stages: Mapping[str, Stage]) -> None:
        """Keep the declarations, so that old decisions can be read and recomputed."""
        ...

    def specs(self) -> Mapping[str, Stage]:
        """Every declaration ever registered, by digest, in order of registration: what is registered later appears."""
        ...

    def record(
        self,
        decisions: Sequence[Decision],
        outcomes: Sequence[Outcome],
        now: int,
        specs: Mapping[str, Stage],
    ) -> tuple[list[RecordedDecision], list[OutcomeReceipt]]:
        """Append what is new, in one durable transaction; answer for each, in order. `specs`: as `specs()`."""
        ...

    def atomic(self) -> AbstractContextManager[object]:
        """What is written inside is one durable transaction."""
        ...

    def ingest(
        self,
        events: Sequence[Event],
        now: int,
        specs: Mapping[str, Stage],
        rules: JourneyFold,
        users: Collection[bytes] = (),
    ) -> IngestResult:
        """Record events that are new, move journeys on, and record the outcomes that events report (see `intake`).

        `users`: ids of people whose decisions have changed, so that what they reported is attributed anew.
        """
        ...

    def missed(self, most: int, reason: str | None = None) -> list[MissedReport]:
        """Reports credited to nothing, as things stand: the newest `most`, of one reason or of any."""
        ...

    def roots(self, users: Collection[bytes]) -> dict[bytes, bytes]:
        """The person behind each id: the root that its links lead to."""
        ...

    def person(self, user: bytes, most: int) -> Person:
        """Who is behind an id, with the newest `most` decisions that showed something or that a moment asked for."""
        ...

    def events(self, users: Collection[bytes]) -> list[Event]:
        """All events that came under these ids, in the order in which they happened."""
        ...

    def matured(self, now: int, limit: int, stages: Collection[str]) -> list[MaturedDecision]:
        """Decisions of these stages whose reward is final and that are not settled yet: in the order in which they
        became final, then in the order of the ledger.
        """
        ...

    def settle(
        self,
        settlements: Sequence[Settlement],
        beliefs: Mapping[str, tuple[tuple[str, ...], Belief]],
        facts: Mapping[str, str] = MappingProxyType({}),
    ) -> dict[str, int]:
        """Append settlements, replace beliefs and add facts, in one transaction. The new version of each stage settled.

        `beliefs`: stage, or "stage@epoch" of an epoch that is over → (arms, belief). LedgerError if a decision is
        unknown or settled already, or a number is NaN.
        """
        ...

    def version(self, stage: str) -> int:
        """The number of the stage's newest settlement, 0 before any."""
        ...

    def last(self) -> LedgerPosition:
        """The numbers of the newest rows, 0 before any."""
        ...

    def open_decisions(self, stage: str, at: LedgerPosition | None = None) -> Iterator[DecisionRecord]:
        """The stage's decisions that wait for their reward, in order; with `at`, as the ledger stood when these were
        its newest rows.
        """
        ...

    def belief(self, stage: str, arms: tuple[str, ...], d: int) -> tuple[Belief, int]:
        """The stored belief of a stage for these arms (zeros for new ones), and its version (0 before any)."""
        ...

    def replace_belief(self, stage: str, arms: tuple[str, ...], belief: Belief) -> None:
        """Overwrite the derived belief, for a rebuild."""
        ...

    def decisions_by_id(self, ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, DecisionRecord]:
        """The decisions of these ids that exist."""
        ...

    def settled(
        self, stage: str, through: int | None = None, after: int = 0
    ) -> Iterator[tuple[Settlement, Array, str]]:
        """Settlements of a stage with the x of their decision and the digest of the declaration that encoded it, in
        order, after number `after` up to `through`.
        """
        ...

    def decisions(self, stage: str | None = None, since: int = 0) -> Iterator[DecisionRecord]:
        """Every decision made at `since` (µs) or later, in order, with what was recorded about it."""
        ...

    def decisions_after(self, after: int, most: int) -> list[DecisionRecord]:
        """Decisions numbered above `after`, in order, so many at most."""
        ...

    def settlements_after(self, after: int, most: int) -> list[DecisionRecord]:
        """Decisions settled by settlements numbered above `after`, in their order, so many at most."""
        ...

    def webhook_deliveries(self, endpoint: str | None = None, *, dead: bool) -> list[WebhookDelivery]:
        """What an endpoint, or any, has not taken and was given up or not, in the order in which it is due."""
        ...

    def update_webhook_queue(
        self,
        facts: Mapping[str, str],
        put: Sequence[WebhookDelivery],
        gone: Sequence[tuple[str, str]],
        most_dead: int | None = None,
    ) -> None:
        """Add facts, add or replace letters, and forget those of (endpoint, event), in one transaction. Of dead ones
        each endpoint concerned keeps the newest `most_dead`.
        """
        ...

    def publish(self, release: Release) -> Release:
        """Append a release, durable; as it is kept, with its number."""
        ...

    def releases(self, stage: str | None = None) -> list[Release]:
        """Every release of a stage, or of all, in order."""
        ...

    def counts(self) -> RowCounts:
        """How many rows there are."""
        ...

    def describe(self) -> dict[str, str]:
        """What health reports: engine, version, settings that matter for durability."""
        ...

    def close(self) -> None:
        """Release everything."""
        ...


def admit(
    decisions: Sequence[Decision],
    outcomes: Sequence[Outcome],
    now: int,
    specs: Mapping[str, Stage],
    known: Mapping[uuid.UUID, DecisionRecord],
    next_seq: int,
) -> tuple[AdmissionPlan, list[RecordedDecision], list[OutcomeReceipt]]:
    """Decide what is new, what is a duplicate, what contradicts. Pure; in the order given.

    The rules of an outcome are those its decision was made under, whatever the catalogue says by now.
    """
    plan, kept, noted = AdmissionPlan([], [], []), [], []
    ledger = dict(known)
    for decision in decisions:
        found = ledger.get(decision.id)
        if found is None:
            seq = next_seq + len(plan.decisions)
            plan.decisions.append((seq, decision))
            ledger[decision.id] = DecisionRecord(seq, decision, (), None)
            kept.append(RecordedDecision(decision, duplicate=False, seq=seq))
        else:
            kept.append(RecordedDecision(found.decision, duplicate=True, seq=found.seq))
    for reported in outcomes:
        found = ledger.get(reported.decision)
        outcome, note = _judge(found, reported, now, specs)
        if found is None or note.status != "recorded":
            noted.append(note)
            continue
        plan.outcomes.append(outcome)
        seen = found._replace(outcomes=(*found.outcomes, outcome))
        noted.append(note._replace(found=seen, notes=outside(specs[found.decision.stage_digest], outcome)))
        ledger[reported.decision] = seen
        if not outcome.late and _is_final(specs, seen):
            plan.hastened.append(found.seq)
    return plan, kept, noted


def outside(stage: Stage, outcome: Outcome) -> tuple[str, ...]:
    """What to say of a reward that the declared range does not hold."""
    spec = stage.reward
    if outcome.kind != "reward" or outcome.value is None or spec.min <= outcome.value <= spec.max:
        return ()
    clipped = min(max(outcome.value, spec.min), spec.max)
    span = f"[{spec.min:g}, {spec.max:g}]"
    return (f"value: {outcome.value:g} is outside the declared range {span}, counts as {clipped:g} at most",)


def _is_final(specs: Mapping[str, Stage], found: DecisionRecord) -> bool:
    decision = found.decision
    return rewards.is_final(specs[decision.stage_digest], found.outcomes, deferred=decision.deferred)


def finite(settlements: Sequence[Settlement]) -> None:
    """LedgerError if a number is not one: SQLite would keep NaN as NULL, and no sum survives either."""
    for s in settlements:
        if not all(map(math.isfinite, (s.reward, s.tau, s.nu))):
            raise LedgerError(f"the settlement of decision number {s.decision_seq} is not finite")


def _judge(
    found: DecisionRecord | None, outcome: Outcome, now: int, specs: Mapping[str, Stage]
) -> tuple[Outcome, OutcomeReceipt]:
    """The outcome as it would be recorded, and what to answer."""
    if found is None:
        return outcome, OutcomeReceipt("unknown")
    decision = found.decision
    problem = _invalid(specs[decision.stage_digest], decision, outcome, now)
    if problem:
        return outcome, OutcomeReceipt("invalid", problem=problem, stage=decision.stage)
    if outcome.kind == "reward" and outcome.value is None:
        outcome = msgspec.structs.replace(outcome, value=1.0)
    for other in found.outcomes:
        if other.id == outcome.id:
            same = (other.kind, other.value) == (outcome.kind, outcome.value)
            return outcome, OutcomeReceipt("duplicate" if same else "conflict", late=other.late, stage=decision.stage)
    if outcome.kind != outcome.id and outcome.id in get_args(OutcomeKind):
        problem = Problem("outcome_id", f"{outcome.id!r} names a decision's {outcome.id} without an id", "send another")
        return outcome, OutcomeReceipt("invalid", problem=problem, stage=decision.stage)
    problem = _second(specs[decision.stage_digest], found, outcome)
    if problem:
        return outcome, OutcomeReceipt("conflict", problem=problem, stage=decision.stage)
    late = found.settlement is not None or now >= decision.expires
    return msgspec.structs.replace(outcome, late=late), OutcomeReceipt("recorded", late=late, stage=decision.stage)


def _second(stage: Stage, found: DecisionRecord, outcome: Outcome) -> Problem | None:
    """A stage that learns from the first report of a reward takes no other: which was first must not matter."""
    if outcome.kind != "reward" or stage.reward.settle != "reward":
        return None
    if not any(other.kind == "reward" for other in found.outcomes):
        return None
    fix = 'repeat the same outcome, or declare settle = "window" to add rewards up'
    return Problem("outcome_id", "this decision has its reward, and its stage learns from one", fix)


def _invalid(stage: Stage, decision: Decision, outcome: Outcome, now: int) -> Problem | None:
    if outcome.occurred > now + SKEW:
        return Problem("occurred_at", "lies in the future", "send when it happened, in UTC")
    if outcome.occurred < decision.at - SKEW:
        return Problem("occurred_at", "lies before the decision", "send when it happened, in UTC")
    if outcome.value is not None and not math.isfinite(outcome.value):
        return Problem("value", "not a finite number", "send a number")
    if outcome.kind == "activation" and outcome.value is not None:
        return Problem("value", "an activation has no value", "leave it out")
    binary = stage.reward.kind == "binary"
    if (
        outcome.kind == "retraction"
        and outcome.value is not None
        and (outcome.value <= 0.0 or (binary and outcome.value != 1.0))
    ):
        fix = "leave it out to take the reward back" if binary else "send how much is taken back, above 0"
        return Problem("value", f"{outcome.value:g} cannot be taken back here", fix)
    if outcome.kind == "reward" and outcome.value is None and not binary:
        fix = f"send a number in [{stage.reward.min:g}, {stage.reward.max:g}]"
        return Problem("value", "missing; this stage's reward is continuous", fix)
    if binary and outcome.kind == "reward" and outcome.value not in (None, 0.0, 1.0):
        return Problem("value", f"{outcome.value:g} is not 0 or 1; this stage's reward is binary", "send 0 or 1")
    return None
