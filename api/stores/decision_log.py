"""Decision log of a ledger: declarations, decisions and outcomes, append-only."""

import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

from bandit.catalogue.model import Stage
from bandit.errors import Problem
from bandit.records import Decision, Outcome, Settlement

LAST = 2**62
"""Number above that of any row."""

SettledDecision = tuple[Decision, tuple[Outcome, ...], Settlement]
"""A decision, the outcomes that its settlement rests on, and the settlement."""


class DecisionRecord(NamedTuple):
    """Decision as the ledger holds it, with all that was recorded about it. `seq`: its number, from 1 without gaps.
    `settlement` is its newest; `earlier` are those that it corrects, in order.
    """

    seq: int
    decision: Decision
    outcomes: tuple[Outcome, ...]
    settlement: Settlement | None
    earlier: tuple[Settlement, ...] = ()

    @property
    def settlements(self) -> tuple[Settlement, ...]:
        """All its settlements, in order."""
        return self.earlier if self.settlement is None else (*self.earlier, self.settlement)

    def with_settlements(self, done: Sequence[Settlement]) -> "DecisionRecord":
        """The record with these settlements, in order, in place of its own."""
        return self._replace(settlement=done[-1] if done else None, earlier=tuple(done[:-1]))

    def as_of(self, settlement: int) -> "DecisionRecord":
        """The record as the settlement of this number left it, with all outcomes."""
        return self.with_settlements([one for one in self.settlements if one.seq <= settlement])

    def settled(self, through: int = LAST) -> SettledDecision | None:
        """The decision as it had settled after the ledger's first `through` settlements; None if it had not."""
        done = next((one for one in reversed(self.settlements) if one.seq <= through), None)
        return None if done is None else (self.decision, self.outcomes[: done.outcomes], done)


class RecordedDecision(NamedTuple):
    """Result of recording a decision. If `duplicate`, `decision` is the stored original; compare `decision.request` to
    tell a retry from a conflict.
    """

    decision: Decision
    duplicate: bool
    seq: int


class OutcomeReceipt(NamedTuple):
    """Receipt of a reported outcome. `late`: it came after its decision matured, so it is recorded and not learned.
    `corrects`: it came after that, but within the stage's grace, and corrects what was learned. `problem`: what is
    wrong with it. `found`: if it was recorded, the decision with all that was reported about it; `notes`: what will not
    count as it was sent.
    """

    status: Literal["recorded", "duplicate", "conflict", "unknown", "invalid"]
    late: bool = False
    problem: Problem | None = None
    stage: str = ""
    found: "DecisionRecord | None" = None
    notes: tuple[str, ...] = ()
    corrects: bool = False


class EarlierDecision(NamedTuple):
    """Earlier decision of a user, at any stage: when (µs), whether a nudge was drawn, with which probability, and
    whether one was refused for want of consent.
    """

    at: int
    nudge: bool
    propensity: float
    refused: bool


class NumberedOutcome(NamedTuple):
    """Outcome with its number in the ledger `seq`, the number of its decision, and when that was made (µs). `voids`:
    number of the outcome of the same decision that it takes out of force, 0 for none.
    """

    seq: int
    decision_seq: int
    decided: int
    voids: int
    outcome: Outcome


class UserOverLimit(NamedTuple):
    """User over a stage's contribution limit: keyed hash, and how many of their decisions were over it, and the newest
    of these (µs).
    """

    user: bytes
    decisions: int
    newest: int


class LedgerPosition(NamedTuple):
    """Position in a ledger: the numbers of its newest rows, 0 before any."""

    decision: int
    outcome: int
    settlement: int
    release: int = 0


class RowCounts(NamedTuple):
    """Counts of rows of a ledger; `pending` are decisions that are not settled."""

    decisions: int
    outcomes: int
    settlements: int
    pending: int


class DecisionFilter(NamedTuple):
    """Filter of decisions: of a stage, with an arm ("": any), of one of these users (keyed hashes; none: anybody's),
    made at `since` or later and before `until` (µs).
    """

    stage: str = ""
    arm: str = ""
    users: frozenset[bytes] = frozenset()
    since: int = 0
    until: int = LAST

    def fits(self, decision: Decision) -> bool:
        """Whether the decision is one of them."""
        named = self.stage in ("", decision.stage) and self.arm in ("", decision.arm)
        return named and (not self.users or decision.user in self.users) and self.since <= decision.at < self.until


class DecisionTally(NamedTuple):
    """Number of decisions that are alike: of a stage, an arm, a `day` (days since 1970, UTC), of the control group or
    not, at a moment that held (`actionable`) or not, with the same exclusions.
    """

    stage: str
    arm: str
    day: int
    holdout: bool
    actionable: bool
    excluded: Mapping[str, str]
    decisions: int


class DecisionTallies(NamedTuple):
    """Tallies of a range of decisions, and the users (keyed hashes) of each stage among them. Remainders of erasures
    are of no user.
    """

    alike: list[DecisionTally]
    users: dict[str, set[bytes]]


class SettlementTally(NamedTuple):
    """What a range of settlements added at a stage for an arm: decisions that `settled`, those that were `learned`, and
    the sum of the learned ones' rewards. A correction adds the difference to what it corrects.
    """

    stage: str
    arm: str
    settled: int
    learned: int
    reward: float


class DecisionLog(Protocol):
    """Decisions and outcomes of one ledger, append-only, with the declarations they were made under.

    Guarantees. Atomicity: all that one call of `record` appends is one transaction. Durability: when `record` returns,
    every row that it answers for is durable. Order: decisions are numbered without gaps in the order of their first
    arrival; a duplicate keeps the number and content of the first. Threads: `register` and `record` belong to the
    thread that owns the writing connection; reading methods may be called from any thread and never see half a
    transaction. Errors: Unavailable where it is not known whether a transaction was committed: the caller repeats it
    with the same ids, and what was committed then answers as a duplicate.
    """

    def register(self, stages: Mapping[str, Stage]) -> None:
        """Keep declarations, so that decisions made under them can be read and recomputed for ever."""
        ...

    def specs(self) -> Mapping[str, Stage]:
        """Every declaration ever registered, by digest, in order of registration: a live view."""
        ...

    def declared(self, stage: str) -> set[str]:
        """Digests of the declarations under which decisions of a stage were made."""
        ...

    def record(
        self, decisions: Sequence[Decision], outcomes: Sequence[Outcome], now: int, specs: Mapping[str, Stage]
    ) -> tuple[list[RecordedDecision], list[OutcomeReceipt]]:
        """Result of each decision and each outcome, in order, as `api.stores.admission.admit` decides.

        What is new is appended in one durable transaction, decisions before outcomes. `now` in µs; `specs`: as
        `specs()`.
        """
        ...

    def decisions_by_id(self, ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, DecisionRecord]:
        """Records of the decisions of these ids that exist."""
        ...

    def decisions(self, stage: str | None = None, since: int = 0, after: int = 0) -> Iterator[DecisionRecord]:
        """Records of every decision of a stage, or of all, made at `since` (µs) or later and numbered above `after`, in
        order.
        """
        ...

    def decisions_after(self, after: int, most: int) -> list[DecisionRecord]:
        """Records of decisions numbered above `after`, in order, at most so many."""
        ...

    def decisions_before(self, stage: str, before: int, most: int) -> list[DecisionRecord]:
        """Records of a stage's decisions numbered below `before`, the newest first, at most so many."""
        ...

    def decisions_found(self, wanted: DecisionFilter, above: int, before: int, most: int) -> list[DecisionRecord]:
        """Records of the decisions that fit, numbered above `above` and below `before`, the newest first, at most so
        many.
        """
        ...

    def tally_decisions(self, after: int, through: int) -> DecisionTallies:
        """Tallies of the decisions numbered above `after` and up to `through`."""
        ...

    def tally_settlements(self, after: int, through: int) -> list[SettlementTally]:
        """Tallies of the settlements numbered above `after` and up to `through`, one for each stage and arm."""
        ...

    def over_limit(self, stage: str, since: int, most: int) -> list[UserOverLimit]:
        """Users with decisions over the contribution limit that were made after `since` (µs): the `most` who have most
        of them, in that order and then by id.
        """
        ...

    def earlier_decisions(self, asked: Sequence[tuple[bytes, int]], most: int) -> list[list[EarlierDecision]]:
        """Earlier decisions for each (user id, number of a decision) in `asked`: those of that user numbered below it,
        the newest first, at most so many. Those of the control group and those at no moment are left out.
        """
        ...

    def outcomes_after(self, stage: str, after: int, most: int) -> list[NumberedOutcome]:
        """Outcomes of a stage's decisions that are numbered above `after`, in order, at most so many."""
        ...

    def open_decisions(self, stage: str, at: LedgerPosition | None = None) -> Iterator[DecisionRecord]:
        """Records of the stage's decisions that wait for their reward, in order; with `at`, as the ledger stood when
        these were its newest rows.
        """
        ...

    def open_after(self, after: int, most: int, stages: Collection[str]) -> list[DecisionRecord]:
        """Records of decisions of these stages that are numbered above `after` and wait for their reward, in order, at
        most so many.
        """
        ...

    def last(self) -> LedgerPosition:
        """Position of the ledger, read in one transaction."""
        ...

    def counts(self) -> RowCounts:
        """Counts of rows."""
        ...
