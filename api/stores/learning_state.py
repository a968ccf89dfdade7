"""Learning state of a ledger: settlements, which are appended, and what is derived from them, in typed tables.

Derived are the statistics of each stage and schema (sums of each drift epoch, the drift rule's sums and alarms, counts
of delays), what a warm start brought, and which declarations were served from which decision on.
"""

import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec

from api.stores.decision_log import DecisionRecord
from bandit.arrays import Array
from bandit.belief import Belief
from bandit.learning.drift import DriftState
from bandit.learning.nudge_price import NudgeSums
from bandit.records import MaturedDecision, Settlement
from bandit.reporters.reward_watch import RewardWatch


class StatisticsKey(NamedTuple):
    """Key of a stage's statistics: each schema number has its own, because sums of two schemas mean different
    things.
    """

    stage: str
    schema: int


class StageSettlement(NamedTuple):
    """Settlement with the id of its decision, and when that was made (µs)."""

    decision: uuid.UUID
    decided: int
    settlement: Settlement


class StoredExposures(NamedTuple):
    """Exposures of a stage's decisions as the ledger keeps them, by arm name: the sums of
    `bandit.learning.loss_account.ExposureSums`.

    They count decisions numbered up to `through`, encoded as the declaration with this `learning_digest` does: under
    another one, or without any, they are counted again from the decisions.
    """

    learning_digest: str
    through: int
    decisions: int
    first: int  # µs
    days: frozenset[int]
    nudges: float
    cost: float
    effect: Mapping[str, Array]  # arm → (d,)


class StatisticsUpdate(NamedTuple):
    """What changes in the statistics of one key. `epochs`: number → sums over `rows`, those that changed;
    `drift_state`, `delays` (arm → answers by bucket), `exposures`, `nudges` (what the price of a nudge follows from),
    `reward_watch`: None leaves them as they are.
    """

    key: StatisticsKey
    rows: tuple[str, ...]
    epochs: Mapping[int, Belief]
    drift_state: DriftState | None = None
    delays: Mapping[str, Sequence[int]] | None = None
    exposures: StoredExposures | None = None
    nudges: NudgeSums | None = None
    reward_watch: RewardWatch | None = None


class StoredStatistics(NamedTuple):
    """Statistics of one key as the ledger keeps them, all of one version.

    `epochs`: sums over the rows that were asked for, oldest first, zeros where nothing is kept. `delays`: arm → answers
    by bucket; None if the ledger was written before delays were counted. `exposures`: None where none were kept.
    `nudges`, `reward_watch`: zeros where none were kept.
    """

    version: int
    epochs: tuple[Belief, ...]
    drift_state: DriftState
    delays: Mapping[str, Sequence[int]] | None
    exposures: StoredExposures | None = None
    nudges: NudgeSums = NudgeSums()
    reward_watch: RewardWatch = RewardWatch()


class PersonReward(NamedTuple):
    """What a person's settled decisions with one arm at a stage brought: rewards in their own units."""

    user: bytes
    holdout: bool
    arm: str
    decisions: int
    reward: float


class WarmStart(msgspec.Struct, frozen=True, kw_only=True):
    """Warm start of a stage: how much each row of a log from before counts (`weight` in (0, 1]), how many rows it had,
    its digest, and the number of the first decision that knows of it.
    """

    weight: float
    rows: int
    digest: str
    since: int


class ServedStage(NamedTuple):
    """Declaration under which a stage was last served: its digest, the digest of what its sums mean, its schema.

    An empty digest stands for a ledger that was written before it was kept.
    """

    digest: str
    learning_digest: str
    schema: int


class DeclarationEra(NamedTuple):
    """Declarations that were served from decision number `first` on: stage → digest."""

    first: int
    digests: Mapping[str, str]


class Declarations(NamedTuple):
    """What was served when. `served`: stage → as last served, removed stages included; `eras` and `arithmetics` in
    order: (number of the first decision, number of the arithmetic that its scores were computed in).
    """

    served: Mapping[str, ServedStage]
    eras: Sequence[DeclarationEra]
    arithmetics: Sequence[tuple[int, int]]


class LearningState(Protocol):
    """Settlements and derived statistics of one ledger.

    Guarantees. Atomicity: `settle` appends settlements and replaces the statistics that they change in one transaction,
    so a crash leaves both or neither; a reader sees statistics of one version. Durability: when a writing method
    returns, what it wrote is durable. Threads: only the thread that owns the writing connection may call `matured`,
    `settle` and the other writing methods; reading methods may be called from any thread. Order: settlements are
    numbered without gaps in the order of `settle`. Errors: LedgerError for what must never happen (a decision settled
    twice, a number that is not finite): nothing was written; Unavailable where it is not known whether the transaction
    was committed: the caller reads the ledger again and repeats what is missing.
    """

    def matured(self, now: int, limit: int, stages: Collection[str]) -> list[MaturedDecision]:
        """Decisions of these stages whose reward is final at `now` (µs) and that are not settled yet, at most `limit`:
        in the order in which they became final, then in the order of the ledger. After them, in the order of the
        ledger, those that are settled, with their settlement, and of which something has been reported since that
        counts.
        """
        ...

    def settle(
        self, settlements: Sequence[Settlement], updates: Sequence[StatisticsUpdate] = (), standing: Sequence[int] = ()
    ) -> dict[str, int]:
        """New version of each stage that was settled: the number of its newest settlement.

        Settlements are appended, and the statistics in `updates` replaced. `standing`: numbers of settled decisions
        that `matured` gave and whose settlement stands all the same. LedgerError if a decision is unknown or settled
        already, or to be corrected and nothing was reported of it since, or a number is not finite.
        """
        ...

    def settled(
        self, stage: str, through: int | None = None, after: int = 0
    ) -> Iterator[tuple[Settlement, Array, str]]:
        """Settlements of a stage, those that are corrected and those that correct them, with the x (d,) of their
        decision and the digest of the declaration that encoded it, in order, numbered above `after` up to `through`.
        """
        ...

    def settlements_after(self, after: int, most: int) -> list[tuple[int, DecisionRecord]]:
        """Numbers of settlements above `after`, in order, at most so many, each with its decision, which comes once for
        each settlement that it has.
        """
        ...

    def stage_settlements_after(self, stage: str, after: int, most: int) -> list[StageSettlement]:
        """Settlements of a stage that are numbered above `after`, in order, at most so many: without the rest of their
        decisions, and at a cost that does not grow with the settlements of other stages.
        """
        ...

    def version(self, stage: str) -> int:
        """Number of the stage's newest settlement, 0 before any."""
        ...

    def statistics(self, key: StatisticsKey, rows: tuple[str, ...], d: int) -> StoredStatistics:
        """Statistics of a key over these rows and d columns, read in one transaction."""
        ...

    def replace_statistics(self, update: StatisticsUpdate) -> None:
        """Overwrite derived statistics, as a rebuild does."""
        ...

    def person_rewards(self, key: StatisticsKey, holdout: float) -> list[PersonReward]:
        """What each person's settled decisions at a stage brought, as corrected, by arm, in the order of users and
        arms: those that were settled under this schema, and made while this share of people was held out.
        """
        ...

    def first_settlement(self, key: StatisticsKey) -> int:
        """Number of the last settlement before this schema: those numbered above it may count."""
        ...

    def warm_start(self, key: StatisticsKey, rows: tuple[str, ...], d: int) -> tuple[WarmStart, Belief] | None:
        """Warm start of a key with its sums over these rows, each row of the log counted whole; None if there was
        none.
        """
        ...

    def put_warm_start(self, key: StatisticsKey, warm: WarmStart, rows: tuple[str, ...], belief: Belief) -> None:
        """Keep a warm start and its sums, in one transaction."""
        ...

    def replace_warm_start(self, key: StatisticsKey, warm: WarmStart, rows: tuple[str, ...], belief: Belief) -> None:
        """Keep a warm start in place of the one that the key has, as an erasure does."""
        ...

    def declarations(self) -> Declarations:
        """Declarations that the ledger was served with, read in one transaction."""
        ...

    def declare(
        self,
        served: Mapping[str, ServedStage],
        schemas: Mapping[StatisticsKey, int],
        era: DeclarationEra | None,
        arithmetic: tuple[int, int] | None,
    ) -> None:
        """Keep what is served from now on, in one transaction. `schemas`: keys that begin, each with the number of the
        last settlement before it. An era or an arithmetic that begins with the same decision as the last one replaces
        it.
        """
        ...
