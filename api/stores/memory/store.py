"""Memory store: a ledger in dicts and lists, for tests and trials. It keeps the promises of `Store`, except that it
ends with the process.
"""

import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from types import MappingProxyType

import msgspec
import numpy as np

from api.stores import ingest, rest
from api.stores.admission import admit, finite
from api.stores.decision_log import (
    DecisionFilter,
    DecisionRecord,
    DecisionTallies,
    EarlierDecision,
    LedgerPosition,
    NumberedOutcome,
    OutcomeReceipt,
    RecordedDecision,
    RowCounts,
    SettlementTally,
    UserOverLimit,
)
from api.stores.erasure_log import DecisionTime, ErasedDecision, Erasure, ErasureEntry, by_user, users_of
from api.stores.event_log import IngestResult, MissedReport, Person
from api.stores.learning_state import (
    DeclarationEra,
    Declarations,
    PersonReward,
    ServedStage,
    StageSettlement,
    StatisticsKey,
    StatisticsUpdate,
    StoredStatistics,
    WarmStart,
)
from api.stores.memory import tallies
from api.stores.memory.events import MemoryEventRows
from api.stores.memory.learning import MemoryLearningState
from api.stores.memory.rest import MemoryRestRows
from api.stores.operator_log import voiding
from api.stores.replica_log import Unshared
from api.stores.rest import RestCursor, RestPage
from api.stores.webhook_queue import WebhookCursor, WebhookDelivery
from bandit.arrays import Array
from bandit.belief import Belief
from bandit.catalogue.model import NONE, Stage
from bandit.errors import LedgerError
from bandit.guardrails import NO_CONSENT
from bandit.journey import folding
from bandit.journey.folding import JourneyFold
from bandit.learning import rewards
from bandit.records import (
    NOT_NOW,
    AlarmAcknowledgement,
    Decision,
    Event,
    MaturedDecision,
    OperatorAction,
    Outcome,
    Release,
    Settlement,
    Withdrawal,
)


class MemoryStore(Unshared):
    """`Store` in dicts and lists, opened by `memory://`. Decisions hold arrays, which could be changed in place, so
    they are copied in and out. There is no transaction to roll back. Times are µs since 1970.
    """

    def __init__(self) -> None:
        self._meta: dict[str, str] = {}
        self._specs: dict[str, Stage] = {}
        self._found: dict[uuid.UUID, DecisionRecord] = {}
        self._by_seq: list[uuid.UUID] = []
        self._by_user: dict[bytes, list[uuid.UUID]] = {}
        self._rows = MemoryEventRows(self._decided, self._found.__getitem__)
        self._before_late = ingest.EarlierJourneys()
        self._pending: dict[int, int] = {}  # decision seq → due
        self._uncorrected = set[int]()  # settled decisions about which something was reported since
        self._settlements: list[tuple[Settlement, Array, str]] = []
        self._learning = MemoryLearningState()
        self._outcomes = 0
        self._letters: dict[tuple[str, str], WebhookDelivery] = {}
        self._cursors: dict[str, WebhookCursor] = {}
        self._releases: list[Release] = []
        self._numbers: dict[tuple[uuid.UUID, str], int] = {}  # of outcomes, in order of arrival
        self._erasing: dict[bytes, Erasure] = {}
        self._erasures: list[ErasureEntry] = []
        self._withdrawals: list[Withdrawal] = []
        self._acknowledgements: list[AlarmAcknowledgement] = []
        self._operator_actions: list[OperatorAction] = []

    def damages(self) -> Iterator[str]:
        """As `Store.damages`: none; no disk is between what was committed and what is read."""
        return iter(())

    def quick_damages(self, over: Callable[[], bool] = lambda: False) -> list[str]:  # noqa: ARG002 - there is no file
        """As `Store.quick_damages`: none."""
        return []

    def log_bytes(self) -> int:
        """As `Store.log_bytes`: none."""
        return 0

    def meta(self) -> dict[str, str]:
        """As `Store.meta`: a copy."""
        return dict(self._meta)

    def set_meta(self, values: Mapping[str, str]) -> None:
        """As `Store.set_meta`."""
        self._meta.update(values)

    def register(self, stages: Mapping[str, Stage]) -> None:
        """As `DecisionLog.register`."""
        for stage in stages.values():
            self._specs.setdefault(stage.digest(), stage)

    def specs(self) -> Mapping[str, Stage]:
        """As `DecisionLog.specs`: a read-only view, which shows later registrations."""
        return MappingProxyType(self._specs)

    def record(
        self,
        decisions: Sequence[Decision],
        outcomes: Sequence[Outcome],
        now: int,
        specs: Mapping[str, Stage],
    ) -> tuple[list[RecordedDecision], list[OutcomeReceipt]]:
        """As `DecisionLog.record`."""
        known = self.decisions_by_id([d.id for d in decisions] + [o.decision for o in outcomes])
        plan, kept, noted = admit(decisions, outcomes, now, specs, known, len(self._by_seq) + 1)
        for seq, decision in plan.decisions:
            self._found[decision.id] = DecisionRecord(seq, _copy(decision), (), None)
            self._by_seq.append(decision.id)
            self._by_user.setdefault(decision.user, []).append(decision.id)
            if decision.is_actionable:
                self._pending[seq] = decision.expires
        for outcome in plan.outcomes:
            self._append(outcome)
        for seq in plan.hastened:
            self._pending[seq] = 0
        self._uncorrected |= set(plan.corrected)
        return kept, noted

    def withdraw(self, asked: Withdrawal, after: int, most: int) -> tuple[Withdrawal, int]:
        """As `OperatorLog.withdraw`; looks through all outcomes, which is enough for tests and trials."""
        numbered = ((self._numbers[o.decision, o.id], o) for f in self._found.values() for o in _about(f, asked))
        numbers = sorted(numbered, key=lambda pair: pair[0])
        found = [(number, one) for number, one in numbers if number > after][:most]
        if not found:
            return asked, 0
        if not asked.seq:
            asked = msgspec.structs.replace(asked, seq=len(self._withdrawals) + 1)
            self._withdrawals.append(asked)
        for outcome in voiding((one for _, one in found), asked):
            self._append(outcome)
            record = self._found[outcome.decision]
            if record.settlement is not None and not outcome.late:
                self._uncorrected.add(record.seq)
            elif record.seq in self._pending and not outcome.late:
                self._pending[record.seq] = record.decision.expires
        return asked, found[-1][0]

    def withdrawals(self) -> list[Withdrawal]:
        """As `OperatorLog.withdrawals`."""
        return list(self._withdrawals)

    def acknowledge(self, asked: AlarmAcknowledgement, after: int) -> AlarmAcknowledgement:
        """As `OperatorLog.acknowledge`."""
        numbers = {"seq": len(self._acknowledgements) + 1, "through": len(self._settlements)}
        kept = msgspec.structs.replace(asked, **numbers)
        self._acknowledgements.append(kept)
        if kept.verdict == "honest":
            for done, *_ in self._settlements[after:]:
                found = self._found[self._by_seq[done.decision_seq - 1]]
                newest = done.why == "held" and done.stage == kept.stage and found.settlement == done
                if newest and any(o.reporter == kept.reporter for o in found.outcomes):
                    self._uncorrected.add(done.decision_seq)
        return kept

    def acknowledgements(self) -> list[AlarmAcknowledgement]:
        """As `OperatorLog.acknowledgements`."""
        return list(self._acknowledgements)

    def operate(self, asked: OperatorAction) -> OperatorAction:
        """As `OperatorLog.operate`."""
        self._operator_actions.append(msgspec.structs.replace(asked, seq=len(self._operator_actions) + 1))
        return self._operator_actions[-1]

    def operator_actions(self) -> list[OperatorAction]:
        """As `OperatorLog.operator_actions`."""
        return list(self._operator_actions)

    def _append(self, outcome: Outcome) -> None:
        found = self._found[outcome.decision]
        self._found[outcome.decision] = found._replace(outcomes=(*found.outcomes, outcome))
        self._outcomes += 1
        self._numbers[outcome.decision, outcome.id] = self._outcomes

    def atomic(self) -> AbstractContextManager[object]:
        """Context that does nothing: there is no transaction in memory, so an error inside it takes nothing back."""
        return nullcontext()

    def try_writing(self, work: Callable[[], object]) -> None:
        """Nothing: writing in memory cannot fail, and could not be taken back."""

    def ingest(
        self,
        events: Sequence[Event],
        now: int,
        specs: Mapping[str, Stage],
        rules: JourneyFold,
        users: Collection[bytes] = (),
    ) -> IngestResult:
        """As `EventLog.ingest`."""

        def record(outcomes: Sequence[Outcome]) -> list[OutcomeReceipt]:
            return self.record([], outcomes, now, specs)[1]

        return ingest.ingest(self._rows, rules, events, now, record, users, self._before_late)

    def missed(self, most: int, reason: str | None = None) -> list[MissedReport]:
        """As `EventLog.missed`."""
        return self._rows.newest_missed(most, reason)

    def roots(self, users: Collection[bytes]) -> dict[bytes, bytes]:
        """As `EventLog.roots`."""
        return ingest.roots_of(self._rows, users)

    def person(self, user: bytes, most: int) -> Person:
        """As `EventLog.person`."""
        return self._rows.person(user, most)

    def events_after(self, after: int, most: int) -> list[tuple[int, Event]]:
        """As `EventLog.events_after`; looks through all events, which is enough for tests and trials."""
        return list(islice(((seq, event) for seq, event in self._rows.numbered() if seq > after), most))

    def recorded_events(self, ids: Collection[str]) -> set[str]:
        """As `EventLog.recorded_events`."""
        return set(self._rows.known(tuple(ids)))

    def last_event(self) -> int:
        """As `EventLog.last_event`."""
        return self._rows.arrived

    def events(self, users: Collection[bytes]) -> list[Event]:
        """As `EventLog.events`."""
        return sorted(self._rows.events(users), key=folding.order)

    def _decided(self, users: Collection[bytes]) -> list[DecisionRecord]:
        found = [self._found[i] for user in users for i in self._by_user.get(user, ())]
        return sorted(found, key=lambda f: f.seq)

    def matured(self, now: int, limit: int, stages: Collection[str]) -> list[MaturedDecision]:
        """As `LearningState.matured`; sorts all that is pending, which is enough for tests and trials."""
        ripe = sorted((due, seq) for seq, due in self._pending.items() if due <= now)
        numbers = [*(seq for _, seq in ripe), *sorted(self._uncorrected)]
        found = [f for seq in numbers if (f := self._found[self._by_seq[seq - 1]]).decision.stage in stages][:limit]
        return [MaturedDecision(f.seq, _copy(f.decision), f.outcomes, f.settlement) for f in found]

    def settle(
        self, settlements: Sequence[Settlement], updates: Sequence[StatisticsUpdate] = (), standing: Sequence[int] = ()
    ) -> dict[str, int]:
        """As `LearningState.settle`; everything is checked before anything is changed."""
        finite(settlements)
        settled = [s.decision_seq for s in settlements if not s.corrects]
        again = [*(s.decision_seq for s in settlements if s.corrects), *standing]
        if len(set(settled)) < len(settled) or not self._pending.keys() >= set(settled):
            raise LedgerError("the ledger refused a row: a decision is unknown, or settled already")
        if len(set(again)) < len(again) or not self._uncorrected >= set(again):
            raise LedgerError("the ledger refused a row: nothing new was reported of a settled decision")
        self._uncorrected -= set(again)
        for settlement in settlements:
            done = msgspec.structs.replace(settlement, seq=len(self._settlements) + 1)
            found = self._found[self._by_seq[done.decision_seq - 1]]
            self._pending.pop(done.decision_seq, None)
            self._found[found.decision.id] = found._replace(settlement=done, earlier=found.settlements)
            self._settlements.append((done, found.decision.x, found.decision.stage_digest))
            self._learning.versions[done.stage] = done.seq
        for update in updates:
            self._learning.replace(update)
        return {s.stage: self._learning.versions[s.stage] for s in settlements}

    def version(self, stage: str) -> int:
        """As `LearningState.version`."""
        return self._learning.versions.get(stage, 0)

    def statistics(self, key: StatisticsKey, rows: tuple[str, ...], d: int) -> StoredStatistics:
        """As `LearningState.statistics`."""
        return self._learning.statistics(key, rows, d)

    def replace_statistics(self, update: StatisticsUpdate) -> None:
        """As `LearningState.replace_statistics`."""
        self._learning.replace(update)

    def person_rewards(self, key: StatisticsKey, holdout: float) -> list[PersonReward]:
        """As `LearningState.person_rewards`."""
        sums: dict[tuple[bytes, str, bool], tuple[int, float]] = {}
        begun = self.first_settlement(key)
        for done, *_ in self._settlements[begun:]:
            found = self._found[self._by_seq[done.decision_seq - 1]]
            made, newest = found.decision, found.settlement == done
            held_out = self._specs[made.stage_digest].holdout == holdout
            if newest and held_out and done.stage == key.stage and done.first > begun and done.why != "erased":
                n, reward = sums.get((made.user, done.arm, made.holdout), (0, 0.0))
                sums[made.user, done.arm, made.holdout] = n + 1, reward + done.reward
        return [PersonReward(user, held, arm, *sums[user, arm, held]) for user, arm, held in sorted(sums)]

    def first_settlement(self, key: StatisticsKey) -> int:
        """As `LearningState.first_settlement`."""
        return self._learning.schemas.get(key, 0)

    def warm_start(self, key: StatisticsKey, rows: tuple[str, ...], d: int) -> tuple[WarmStart, Belief] | None:
        """As `LearningState.warm_start`."""
        return self._learning.warm_start(key, rows, d)

    def put_warm_start(self, key: StatisticsKey, warm: WarmStart, rows: tuple[str, ...], belief: Belief) -> None:
        """As `LearningState.put_warm_start`."""
        self._learning.put_warm_start(key, warm, rows, belief)

    def replace_warm_start(self, key: StatisticsKey, warm: WarmStart, rows: tuple[str, ...], belief: Belief) -> None:
        """As `LearningState.replace_warm_start`."""
        self._learning.put_warm_start(key, warm, rows, belief)

    def declarations(self) -> Declarations:
        """As `LearningState.declarations`."""
        return self._learning.declarations()

    def declare(
        self,
        served: Mapping[str, ServedStage],
        schemas: Mapping[StatisticsKey, int],
        era: DeclarationEra | None,
        arithmetic: tuple[int, int] | None,
    ) -> None:
        """As `LearningState.declare`."""
        self._learning.declare(served, schemas, era, arithmetic)

    def last(self) -> LedgerPosition:
        """As `DecisionLog.last`: the lengths of the lists."""
        return LedgerPosition(len(self._by_seq), self._outcomes, len(self._settlements), len(self._releases))

    def outcomes_after(self, stage: str, after: int, most: int) -> list[NumberedOutcome]:
        """As `DecisionLog.outcomes_after`; looks through all outcomes, which is enough for tests and trials."""
        found = list[NumberedOutcome]()
        for record in self.decisions(stage):
            decision, told = record.decision, record.outcomes
            numbers = {o.id: self._numbers[o.decision, o.id] for o in told}
            for o in told:
                found.append(NumberedOutcome(numbers[o.id], record.seq, decision.at, numbers.get(o.voids, 0), o))
        return sorted((one for one in found if one.seq > after), key=lambda one: one.seq)[:most]

    def open_decisions(self, stage: str, at: LedgerPosition | None = None) -> Iterator[DecisionRecord]:
        """As `DecisionLog.open_decisions`; with `at`, outcomes that came later are left out."""
        end = at or self.last()
        for i in self._by_seq[: end.decision]:
            found = self._found[i]
            if not found.decision.user:
                continue
            done = found.settled(end.settlement) is not None
            if found.decision.stage == stage and found.decision.is_actionable and not done:
                known = tuple(o for o in found.outcomes if self._numbers[o.decision, o.id] <= end.outcome)
                yield _handed_out(found.with_settlements(())._replace(outcomes=known))

    def open_after(self, after: int, most: int, stages: Collection[str]) -> list[DecisionRecord]:
        """As `DecisionLog.open_after`: copies."""
        found = (self._found[i] for i in self._by_seq[after:])
        waiting = (f for f in found if f.decision.stage in stages and f.decision.is_actionable and f.settlement is None)
        return [_handed_out(f) for f in islice(waiting, most)]

    def decisions_by_id(self, ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, DecisionRecord]:
        """As `DecisionLog.decisions_by_id`: copies."""
        return {i: _handed_out(self._found[i]) for i in ids if i in self._found}

    def settled(
        self, stage: str, through: int | None = None, after: int = 0
    ) -> Iterator[tuple[Settlement, Array, str]]:
        """As `LearningState.settled`: x (d,) is a copy."""
        for settlement, x, spec in self._settlements:
            if (
                settlement.arm
                and settlement.stage == stage
                and after < settlement.seq
                and (through is None or settlement.seq <= through)
            ):
                yield settlement, x.copy(), spec

    def decisions(self, stage: str | None = None, since: int = 0, after: int = 0) -> Iterator[DecisionRecord]:
        """As `DecisionLog.decisions`: copies, one at a time."""
        for i in self._by_seq[after:]:
            found = self._found[i]
            if found.decision.user and found.decision.at >= since and (stage is None or found.decision.stage == stage):
                yield _handed_out(found)

    def declared(self, stage: str) -> set[str]:
        """As `DecisionLog.declared`."""
        made = (found.decision for found in self._found.values() if found.decision.user)
        return {decision.stage_digest for decision in made if decision.stage == stage}

    def decisions_after(self, after: int, most: int) -> list[DecisionRecord]:
        """As `DecisionLog.decisions_after`: copies."""
        made = (self._found[i] for i in self._by_seq[after:])
        return [_handed_out(found) for found in islice((f for f in made if f.decision.user), most)]

    def decisions_before(self, stage: str, before: int, most: int) -> list[DecisionRecord]:
        """As `DecisionLog.decisions_before`: copies."""
        older = (self._found[i] for i in reversed(self._by_seq[: max(before - 1, 0)]))
        return [
            _handed_out(found)
            for found in islice((f for f in older if f.decision.user and f.decision.stage == stage), most)
        ]

    def decisions_found(self, wanted: DecisionFilter, above: int, before: int, most: int) -> list[DecisionRecord]:
        """As `DecisionLog.decisions_found`: copies."""
        older = (self._found[i] for i in reversed(self._by_seq[above : max(before - 1, 0)]))
        return [
            _handed_out(found)
            for found in islice((f for f in older if f.decision.user and wanted.fits(f.decision)), most)
        ]

    def tally_decisions(self, after: int, through: int) -> DecisionTallies:
        """As `DecisionLog.tally_decisions`."""
        made = (self._found[i] for i in self._by_seq[after:through])
        return tallies.of_decisions(found for found in made if found.decision.user)

    def tally_settlements(self, after: int, through: int) -> list[SettlementTally]:
        """As `DecisionLog.tally_settlements`."""
        return tallies.of_settlements((done, self._before(done)) for done, *_ in self._settlements[after:through])

    def _before(self, done: Settlement) -> Settlement | None:
        """The settlement that this one corrects."""
        if not done.corrects:
            return None
        found = self._found[self._by_seq[done.decision_seq - 1]]
        return max((one for one in found.settlements if one.seq < done.seq), key=lambda one: one.seq, default=None)

    def over_limit(self, stage: str, since: int, most: int) -> list[UserOverLimit]:
        """As `DecisionLog.over_limit`."""
        over: dict[bytes, list[int]] = {}
        for found in self._found.values():
            made = found.decision
            if made.stage == stage and made.at > since and not made.contribution:
                over.setdefault(made.user, []).append(made.at)
        users = sorted(over, key=lambda user: (-len(over[user]), user))[:most]
        return [UserOverLimit(user, len(over[user]), max(over[user])) for user in users]

    def earlier_decisions(self, asked: Sequence[tuple[bytes, int]], most: int) -> list[list[EarlierDecision]]:
        """As `DecisionLog.earlier_decisions`."""
        return [self._earlier(user, before, most) for user, before in asked]

    def _earlier(self, user: bytes, before: int, most: int) -> list[EarlierDecision]:
        found = (self._found[i] for i in reversed(self._by_user.get(user, ())))
        mine = (f.decision for f in found if f.seq < before and f.decision.is_actionable and not f.decision.holdout)
        return [
            EarlierDecision(
                at=d.at,
                nudge=d.arm != d.arms((NONE,))[0],
                propensity=1.0 - float(d.propensity[0]),
                refused=any(reason.startswith(NO_CONSENT) for reason in d.excluded.values()),
            )
            for d in islice(mine, most)
        ]

    def settlements_after(self, after: int, most: int) -> list[tuple[int, DecisionRecord]]:
        """As `LearningState.settlements_after`: copies."""
        done = islice((row for row in self._settlements[after:] if row[0].arm), most)
        return [(s.seq, _handed_out(self._found[self._by_seq[s.decision_seq - 1]])) for s, *_ in done]

    def stage_settlements_after(self, stage: str, after: int, most: int) -> list[StageSettlement]:
        """As `LearningState.stage_settlements_after`; looks through those of all stages."""
        there = (done for done, *_ in self._settlements[after:] if done.arm and done.stage == stage)
        mine = ((self._found[self._by_seq[done.decision_seq - 1]].decision, done) for done in islice(there, most))
        return [StageSettlement(made.id, made.at, done) for made, done in mine]

    def webhook_cursor(self, endpoint: str) -> WebhookCursor | None:
        """As `WebhookQueue.webhook_cursor`."""
        return self._cursors.get(endpoint)

    def webhook_deliveries(self, endpoint: str | None = None, *, dead: bool) -> list[WebhookDelivery]:
        """As `WebhookQueue.webhook_deliveries`."""
        mine = [one for one in list(self._letters.values()) if one.dead is dead and endpoint in (None, one.endpoint)]
        return sorted(mine, key=lambda one: (one.due, one.endpoint, one.event))

    def update_webhook_queue(
        self,
        cursors: dict[str, WebhookCursor],
        put: Sequence[WebhookDelivery],
        gone: Sequence[tuple[str, str]],
        most_dead: int | None = None,
    ) -> None:
        """As `WebhookQueue.update_webhook_queue`."""
        self._cursors |= cursors
        self._letters |= {(one.endpoint, one.event): one for one in put}
        for key in gone:
            self._letters.pop(key, None)
        for endpoint in {one.endpoint for one in put if most_dead is not None}:
            dead = sorted((one.at, one.event) for one in self.webhook_deliveries(endpoint, dead=True))
            for _, event in dead[: -most_dead if most_dead else None]:
                del self._letters[endpoint, event]

    def publish(self, release: Release) -> Release:
        """As `ReleaseLog.publish`."""
        kept = msgspec.structs.replace(release, seq=len(self._releases) + 1)
        self._releases.append(kept)
        return kept

    def releases(self, stage: str | None = None) -> list[Release]:
        """As `ReleaseLog.releases`."""
        return [release for release in self._releases if stage in (None, release.stage)]

    def begin_erasure(self, erasure: Erasure) -> Erasure:
        """As `ErasureLog.begin_erasure`."""
        for one in self.erasures_under_way():
            if one.users & erasure.users and one.forget >= erasure.forget:
                erasure = one._replace(users=one.users | erasure.users)
        self._erasing[erasure.number] = erasure
        return erasure

    def erasures_under_way(self) -> list[Erasure]:
        """As `ErasureLog.erasures_under_way`."""
        return [self._erasing[number] for number in sorted(self._erasing)]

    def erasable(self, users: Collection[bytes], most: int, before: int | None = None) -> list[DecisionRecord]:
        """As `ErasureLog.erasable`: copies."""
        found = (one for one in self._decided(users)[::-1] if before is None or one.seq < before)
        return [_handed_out(one) for one in islice(found, most)]

    def erase_decisions(
        self,
        erasures: Sequence[Erasure],
        now: int,
        erased: Sequence[ErasedDecision],
        settlements: Sequence[Settlement] = (),
        updates: Sequence[StatisticsUpdate] = (),
    ) -> bool:
        """As `ErasureLog.erase_decisions`."""
        if settlements:
            self.settle(settlements)
        for one in erased:
            self._leave(one)
        for update in updates:
            self._learning.replace(update)
        gone = [one.record.decision.id for one in erased]
        self._rows.uncredit(gone)
        self._letters = {key: one for key, one in self._letters.items() if not any(f":{i}" in key[1] for i in gone)}
        erasure = by_user(erasures)
        for asked in dict.fromkeys(erasure[one.record.decision.user] for one in erased):
            mine = [one for one in erased if erasure[one.record.decision.user] == asked]
            first = min((one.record.seq for one in mine if one.remainder is None), default=0)
            outcomes = sum(len(one.record.outcomes) for one in mine)
            self._enter(asked, now, (len(mine), outcomes, 0, 0), first)
        return True

    def _leave(self, erased: ErasedDecision) -> None:
        """In this order, because other threads read meanwhile."""
        seq, before = erased.record.seq, self._found[erased.record.decision.id]
        left, ended = erased.remainder, before.settlements
        outcomes = erased.outcomes if left else ()
        numbers = [self._numbers.pop((o.decision, o.id)) for o in before.outcomes]
        self._pending.pop(seq, None)
        self._uncorrected.discard(seq)
        self._by_user[before.decision.user].remove(before.decision.id)
        if left is None:
            left = nothing(before.decision)
            self._found[left.id] = DecisionRecord(seq, left, (), None)
            ended = tuple(msgspec.structs.replace(done, **_NOTHING) for done in ended)
        else:
            self._found[left.id] = DecisionRecord(seq, left, outcomes, None)
            self._by_user.setdefault(left.user, []).insert(0, left.id)  # the newest are erased first
            self._numbers |= {(o.decision, o.id): n for o, n in zip(outcomes, numbers, strict=True)}
        for done in ended:
            self._settlements[done.seq - 1] = (done, left.x, left.stage_digest)
        self._found[left.id] = DecisionRecord(seq, left, outcomes, None).with_settlements(ended)
        self._by_seq[seq - 1] = left.id
        del self._found[before.decision.id]

    def erase_events(self, erasures: Sequence[Erasure], now: int, most: int) -> bool:
        """As `ErasureLog.erase_events`."""
        left, erasure = most, by_user(erasures)
        for asked in dict.fromkeys(erasure.values()):
            if n := self._rows.erase(asked.users, left):
                self._enter(asked, now, (0, 0, n, 0))
                left -= n
        return left == 0

    def end_erasures(self, erasures: Sequence[Erasure], now: int) -> None:
        """As `ErasureLog.end_erasures`."""
        users = users_of(erasures)
        self._before_late.forget(users)
        self._rows.unlink(users)
        for asked in erasures:
            self._erasing.pop(asked.number, None)
            self._enter(asked, now, (0, 0, 0, len(asked.users)))

    def _enter(self, erasure: Erasure, now: int, counted: tuple[int, int, int, int], first: int = 0) -> None:
        """`counted`: decisions, outcomes, events and ids; the ids go last."""
        number, done = len(self._erasures) + 1, counted[3] > 0
        entry = ErasureEntry(number, erasure.entry, now, erasure.forget, *counted, first=first, done=done)
        self._erasures.append(entry)

    def erasures(self, after: int = 0, number: bytes | None = None) -> list[ErasureEntry]:
        """As `ErasureLog.erasures`."""
        return [one for one in self._erasures[after:] if number in (None, one.number)]

    def at_rest(self, after: RestCursor, before: int, most: int, stages: Collection[str]) -> RestPage:
        """As `ErasureLog.at_rest`."""
        return rest.page(self._resting(), after, before, most, stages)

    def is_at_rest(self, users: Collection[bytes], before: int) -> bool:
        """As `ErasureLog.is_at_rest`."""
        return not self._resting().came(users, before)

    def _resting(self) -> MemoryRestRows:
        return MemoryRestRows(self._found, self._by_seq, self._pending.keys() | self._uncorrected, self._rows)

    def overwrite_erased(self, first: int, most: int) -> int:  # noqa: ARG002 - there is no file
        """As `ErasureLog.overwrite_erased`: there is nothing to overwrite."""
        return 0

    def decision_times(self, stage: str) -> Iterator[DecisionTime]:
        """As `ErasureLog.decision_times`."""
        for found in self.decisions(stage):
            made = found.decision
            if made.is_actionable and not made.holdout:
                yield DecisionTime(found.seq, made.stage_digest, made.at, made.expires)

    def counts(self) -> RowCounts:
        """As `DecisionLog.counts`."""
        return RowCounts(len(self._by_seq), self._outcomes, len(self._settlements), len(self._pending))

    def describe(self) -> dict[str, str]:
        """As `Store.describe`: in memory, and not durable."""
        return {"engine": "memory", "durable": "no"}

    def close(self) -> None:
        """Forget the decisions: the ledger ends with the store."""
        self._found.clear()
        self._by_seq.clear()


_NOTHING = {"arm": "", "at": 0, "reward": 0.0, "why": "erased", "learned": False, "tau": 0.0, "nu": 0.0, "outcomes": 0}


def nothing(decision: Decision) -> Decision:
    """Decision of which nothing is left but its stage."""
    none, empty = np.zeros(0), dict[str, str]()
    return Decision(
        id=uuid.uuid4(),
        at=0,
        expires=0,
        stage=decision.stage,
        stage_digest=decision.stage_digest,
        settlement_version=0,
        user=b"",
        request=b"",
        x=none,
        propensity=none,
        mean=none,
        sd=none,
        u=0.0,
        arm="",
        holdout=False,
        excluded=empty,
        evidence={},
        notes=(),
        moment=NOT_NOW,
    )


def _about(found: DecisionRecord, asked: Withdrawal) -> Iterator[Outcome]:
    """Outcomes of a decision that a withdrawal is about, and that are not withdrawn yet."""
    for one in rewards.standing(found.outcomes):
        if one.reporter == asked.reporter and asked.since <= one.received < asked.until and not one.voids:
            yield one


def _handed_out(found: DecisionRecord) -> DecisionRecord:
    return found._replace(decision=_copy(found.decision))


def _copy(decision: Decision) -> Decision:
    """The same value, sharing nothing that could be changed in place."""
    return msgspec.structs.replace(
        decision,
        x=decision.x.copy(),
        phi=decision.phi.copy(),
        propensity=decision.propensity.copy(),
        mean=decision.mean.copy(),
        sd=decision.sd.copy(),
        excluded=dict(decision.excluded),
        evidence=dict(decision.evidence),
    )
