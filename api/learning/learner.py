"""Learner: what matured → settlements, sums, delays, alarms of drift; and the snapshot of every stage.

It runs in the writer thread. `bandit.learning.statistics` does the arithmetic, `api.ledger.statistics_store` knows what
the ledger has to replace.
"""

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from itertools import groupby
from time import perf_counter
from typing import NamedTuple, TypeVar

import msgspec
import numpy as np

from api.ledger import erasure, exposures, nudges
from api.ledger.erasure import ErasureStep, LearnedState
from api.ledger.statistics_store import key_of, load, update_of, warm_sums, watched, without
from api.metrics import Metrics
from api.stores.decision_log import LAST, OutcomeReceipt, RecordedDecision
from api.stores.erasure_log import Erasure
from api.stores.learning_state import StatisticsUpdate, WarmStart
from api.stores.protocol import Store
from api.stores.replica_log import LedgerNews
from bandit import engine
from bandit.belief import Belief
from bandit.catalogue.model import Catalogue, Stage
from bandit.engine import PreparedPolicy
from bandit.errors import NotFound
from bandit.learning import pending, rewards
from bandit.learning.drift import DriftState
from bandit.learning.loss import ExposureLog, closed, day_of
from bandit.learning.loss_statement import statement
from bandit.learning.pending import KnownDecision, OpenDecisionTable
from bandit.learning.settlement import settle
from bandit.learning.statistics import StageStatistics, settled_rows
from bandit.records import AlarmAcknowledgement, Decision, MaturedDecision, PendingBasis, Settlement
from bandit.reporters import acknowledgements
from bandit.reporters.reward_watch import RewardAlarm, RewardWatch
from bandit.snapshot import Snapshot, pooled

log = logging.getLogger("journey_bandit.learner")

T = TypeVar("T")
Settled = Callable[[Iterable[tuple[Decision, Settlement, Settlement | None]]], None]
"""Told of decisions that have settled, and of the settlement that each had before, if this one corrects it."""

AT_START = 20_000
"""Open decisions that are read before the first decision is made; the others are read beside the work."""
_PAGE = 2000  # open decisions that are taken in at a time
_SHARE = 10.0  # publishing may take a tenth of the writer's time
_PER_WINDOW = 500  # what is open is looked at so often in an attribution window, if nothing settles
_FASTEST, _SLOWEST = 20_000, 2_000_000  # µs between two such looks


class _Publication(NamedTuple):
    """Policies that were computed, by stage, how long it took (seconds), and whether all open decisions were known."""

    prepared: Mapping[str, PreparedPolicy]
    seconds: float
    complete: bool


class Learner:
    """Learner of one app's stages, owned by the `Worker`.

    Guarantees: a decision is settled exactly once, by the rules it was made under; its settlement, the sums it changes
    and the new version are one transaction, so a crash leaves all or none. Threads: all methods run in the writer
    thread (the constructor before it starts), which hands the computation of policies to a thread of the learner's own.
    `prepared` holds the published policy of each stage and is replaced by one assignment, never changed, so the event
    loop reads it without a lock.
    """

    def __init__(
        self,
        store: Store,
        catalogue: Catalogue,
        metrics: Metrics,
        settled: Settled,
        scale: float = 1.0,
        before: "Learner | None" = None,
        *,
        now: int,
    ):
        self._store = store
        self._specs = store.specs()
        self._catalogue = catalogue
        self._metrics = metrics
        self._settled = settled  # told of what was settled, once it is durable
        shortest = min(stage.reward.seconds for stage in catalogue.stages.values()) * scale * 1e6
        self._pace = min(max(shortest / _PER_WINDOW, _FASTEST), _SLOWEST)
        self._scale = scale
        self._elsewhere = ThreadPoolExecutor(1, thread_name_prefix="policy-publisher")
        self._newest_basis = 0  # time of the newest snapshot
        self._floor = 0  # time of the earliest snapshot yet to be published
        self.load(now, before)

    def load(self, now: int, before: "Learner | None" = None) -> None:
        """Begin with what is in the ledger: statistics, position, exposures and open decisions; called at the start,
        and after an error, because what failed may be in the ledger all the same. Stages with a loss account are
        published at once, at `now` (µs since 1970).

        `before` is a learner that has ended, and knows the open decisions of the stages that are declared as they were.
        """
        self._statistics: Mapping[str, StageStatistics] = load(self._store, self._catalogue.stages)
        self._last = self._store.last()
        newest = self._store.decisions_after(self._last.decision - 1, 1)
        self._newest_basis = max([self._newest_basis, *(one.decision.pending_basis.at for one in newest)])
        self._acknowledged: Sequence[AlarmAcknowledgement] = self._store.acknowledgements()
        self._open = {name: OpenDecisionTable(tally.spec, tally.d) for name, tally in self._statistics.items()}
        if before is not None:
            before._look()
        self._heard: dict[int, KnownDecision] = {}  # committed since the last look at what is open
        self._exposing: list[Decision] = []  # committed since the exposures were last counted
        self._unread = set(self._catalogue.stages)  # stages whose open decisions are not all known yet
        self._begun, self._read_through = self._last.decision, 0
        self._old = {name: OpenDecisionTable(tally.spec, tally.d) for name, tally in self._statistics.items()}
        for name, stage in self._catalogue.stages.items():
            if before is not None and not before._unread and before._catalogue.stages.get(name) == stage:
                self._open[name] = before._open[name]
                self._unread.remove(name)
        self._metrics.reading.set(not self.read(AT_START))
        self._published_at, self._rest_until, self._news = 0, 0.0, False
        self._publication: Future[_Publication] | None = None  # one that was under way is of what was known before
        self._alone: dict[str, Snapshot] = {}
        self._anew = frozenset[str]()  # stages whose belief has changed without a settlement
        self._firm = self._pooled(self._statistics)
        self.prepared: Mapping[str, PreparedPolicy] = {
            name: closed(engine.prepare(snapshot)) for name, snapshot in self._firm.items()
        }
        self._exposed = exposures.load(self._store, self._catalogue.stages)
        self._kept = 0  # what is kept may be older than the newest decision: not known
        if not self._unread and any(stage.loss_share is not None for stage in self._catalogue.stages.values()):
            self._adopt(self._prepare(now)())
            self._rest_until = 0.0
        else:
            self._show()

    def read(self, most: int) -> bool:
        """Read at most `most` of the open decisions that are not known yet; returns whether all are known. Until then,
        nothing that is open teaches anything, in any stage, and loss accounts are closed.
        """
        while self._unread and most > 0:
            size = min(most, _PAGE)
            page = self._store.open_after(self._read_through, size, self._unread)
            page = [one for one in page if one.seq <= self._begun]  # those that came since are heard of
            for name, some in _by_stage((KnownDecision(*one[:3]) for one in page), lambda one: one.decision).items():
                self._old[name].put(some, self._specs, self._held(name))
            most -= size
            if len(page) == size:
                self._read_through = page[-1].seq
                continue
            self._look()
            for name in self._unread:
                self._old[name].join(self._open[name])
                self._open[name] = self._old[name]
            self._old, self._unread, self._news = {}, set(), True
        return not self._unread

    @property
    def knows_all(self) -> bool:
        """Whether all open decisions are known."""
        return not self._unread

    @property
    def watches(self) -> Mapping[str, DriftState]:
        """State of the drift rule of each stage (alarms, running sums), by name. Read by any thread."""
        return {name: tally.drift_state for name, tally in self._statistics.items()}

    @property
    def reward_watches(self) -> Mapping[str, RewardWatch]:
        """State of the watch over those who report rewards of each stage, by name. Read by any thread."""
        return {name: tally.reward_watch for name, tally in self._statistics.items()}

    def observe(self, kept: Sequence[RecordedDecision], noted: Sequence[OutcomeReceipt]) -> None:
        """Take in what was just committed, in the order of the ledger: open decisions and what has been reported of
        them. Called by the worker after each commit.
        """
        new = [entry for entry in kept if not entry.duplicate]
        stages = self._catalogue.stages
        for entry in new:
            decision = entry.decision
            if decision.stage in stages and decision.is_actionable:
                self._heard[entry.seq] = KnownDecision(entry.seq, decision)
                self._exposing.append(decision)
        for note in noted:
            found = note.found
            if found is not None and found.settlement is None and found.decision.stage in stages:
                self._heard[found.seq] = KnownDecision(*found[:3])
        decisions, outcomes = len(new), sum(note.found is not None for note in noted)
        self._last = self._last._replace(
            decision=self._last.decision + decisions, outcome=self._last.outcome + outcomes
        )

    def begin_after(self, at: int) -> None:
        """Publish from now on with times later than `at` (µs) and than all before. Another replica has changed what was
        known: by their times receipts tell what was published before from what was after.
        """
        self._newest_basis = max(self._newest_basis, at) + 1
        self._floor = self._newest_basis

    def follow(self, news: LedgerNews) -> None:
        """Take in what other replicas have committed: decisions, what was reported of them, and what has settled.
        Called by the worker in the transaction that begins with the news.
        """
        made = [RecordedDecision(one.decision, duplicate=False, seq=one.seq) for one in news.decisions]
        self._newest_basis = max([self._newest_basis, *(one.decision.pending_basis.at for one in news.decisions)])
        self.observe(made, [OutcomeReceipt("recorded", found=one) for one in news.reported])
        self._last = news.through
        if not news.settled:
            return
        self._look()
        done: dict[str, list[int]] = {}
        for _, record in news.settled:
            done.setdefault(record.decision.stage, []).append(record.seq)
        stages = {name: self._catalogue.stages[name] for name in done.keys() & self._catalogue.stages.keys()}
        known = self.reward_watches
        self._statistics = {**self._statistics, **load(self._store, stages)}
        for name in stages:
            for table in (self._open[name], *((self._old[name],) if name in self._unread else ())):
                table.drop(done[name])
            raised = self.reward_watches[name].alarms[len(known[name].alarms) :]
            self._look_again(name, {alarm.reporter for alarm in raised})
        self._firm, self._news = self._pooled(self._statistics), True

    def _look(self) -> None:
        """Take what was heard into the open decisions and the exposures: many rows at a time cost a fraction of one at
        a time.
        """
        made, self._exposing = self._exposing, []
        heard = [one for one in self._heard.values() if one.decision.is_actionable]
        self._heard = {}
        for name, some in _by_stage(heard, lambda one: one.decision).items():
            new = some
            if name in self._unread:  # what is between the two will be read with its outcomes
                old = [one for one in some if one.seq <= self._read_through]
                self._old[name].put(old, self._specs, self._held(name))
                new = [one for one in some if one.seq > self._begun]
            self._open[name].put(new, self._specs, self._held(name))
        for name, decisions in _by_stage(made, lambda one: one).items():
            if self._catalogue.stages[name].loss_share is not None:
                self._exposed[name].put_decisions(decisions, self._specs)

    def step(self, now: int, most: int, *, corrections_only: bool = False) -> int:
        """Settle at most `most` decisions that matured by `now` (µs since 1970), and return how many; one transaction.
        Raises LedgerError and Unavailable: then `load` must run before the next step.

        Each decision is settled by the rules it was made under. Those of a stage that was removed from the catalogue
        wait in the ledger. With `corrections_only`, what is open stays open.
        """
        found = self._store.matured(-1 if corrections_only else now, most, self._catalogue.stages)
        due = min((m.decision.expires for m in found if m.settled is None), default=now)
        self._metrics.overdue.set(max(0, now - due) / 1e6)
        if not found:
            return 0
        self._look()
        matured = sorted((m for m in found if self._may_settle(m)), key=_declared)
        standing = [m.seq for m in found if not self._may_settle(m)]
        last, settlements = self._last.settlement, list[Settlement]()
        new, known = dict(self._statistics), self.reward_watches
        for name, group in groupby(matured, key=lambda m: m.decision.stage):
            new[name], done = self._settle(name, list(group), now, last + len(settlements) + 1)
            settlements += done
        changed = (update_of(name, now, self._statistics[name]) for name, now in new.items())
        updates = [self._with_exposures(update) for update in changed if update]
        versions = self._store.settle(settlements, updates, standing)
        self._statistics = {
            name: s._replace(version=versions[name]) if name in versions else s for name, s in new.items()
        }
        self._last = self._last._replace(settlement=last + len(settlements))
        alarms = {name: s.reward_watch.alarms[len(known[name].alarms) :] for name, s in new.items()}
        self._tell(alarms)
        self._firm, self._news = self._pooled(self._statistics), True
        for name, group in groupby(matured, key=lambda m: m.decision.stage):
            over = [m.seq for m in group]
            for table in (self._open[name], *((self._old[name],) if name in self._unread else ())):
                table.drop(over)
        for name, raised in alarms.items():
            self._look_again(name, {alarm.reporter for alarm in raised})
        self._settled((m.decision, done, m.settled) for m, done in zip(matured, settlements, strict=True))
        for row, many in Counter((one.stage, one.why) for one in settlements).items():
            self._metrics.settlements.labels(*row).inc(many)
        return len(found)

    def acknowledge(self, asked: AlarmAcknowledgement) -> AlarmAcknowledgement:
        """Keep what was found out about a key that was accused at a stage; the acknowledgement as the ledger has it. If
        the key is honest, what is held of it is learned by the next steps. Again with the same verdict, before another
        alarm, nothing is done. Raises NotFound if the stage has no alarm about the key, LedgerError and Unavailable.
        """
        watch = self.reward_watches.get(asked.stage, RewardWatch())
        alarms = [alarm for alarm in watch.alarms if alarm.reporter == asked.reporter]
        if not alarms:
            problem = f"stage {asked.stage!r} has no alarm about the key {asked.reporter!r}"
            raise NotFound("reporter", problem, "name a stage and a key as /v1/policies has them in reward_alarms")
        before = acknowledgements.about(alarms[-1], self.acknowledged_of(asked.stage))
        if before is not None and before.verdict == asked.verdict:
            return before
        at = max(asked.at, self._newest_basis + 1)  # receipts tell what was published before from what was after
        kept = self._store.acknowledge(msgspec.structs.replace(asked, at=at), alarms[0].through)
        self._acknowledged = [*self._acknowledged, kept]
        self._look_again(asked.stage, {asked.reporter})
        self._news = True
        self._show()
        return kept

    def acknowledged_of(self, name: str) -> list[AlarmAcknowledgement]:
        """Acknowledgements of alarms about keys at a stage, in their order. Called by any thread."""
        return [one for one in self._acknowledged if one.stage == name]

    def unacknowledged(self, name: str) -> tuple[RewardAlarm, ...]:
        """Alarms about keys at a stage that nobody has acknowledged. Called by any thread."""
        return acknowledgements.unacknowledged(self.reward_watches[name].alarms, self.acknowledged_of(name))

    def held(self, name: str) -> frozenset[str]:
        """Keys whose rewards teach nothing now at a stage that pauses at an alarm. Called by any thread."""
        return self._held(name) if self._catalogue.stages[name].reward_alarm == "pause" else frozenset()

    def _held(self, name: str, alarms: Sequence[RewardAlarm] | None = None, number: int = LAST) -> frozenset[str]:
        """Keys whose rewards a settlement of this number holds, of these alarms; of all, the next one."""
        alarms = self.reward_watches[name].alarms if alarms is None else alarms
        return acknowledgements.held(alarms, self.acknowledged_of(name), number) if alarms else frozenset()

    def _look_again(self, name: str, reporters: Collection[str]) -> None:
        """Take the stage's open decisions in again of which these keys have reported: it may teach nothing now, or
        something again.
        """
        if reporters and any(spec.reward_alarm == "pause" for spec in self._specs.values()):
            for found in self._store.open_decisions(name):
                if any(one.reporter in reporters for one in found.outcomes):
                    self._heard[found.seq] = KnownDecision(*found[:3])

    def erase(self, asked: Sequence[Erasure], under_way: Sequence[Erasure], now: int) -> ErasureStep:
        """Do one step of erasures (`erasure.step`) at `now` (µs since 1970), also to what is known here; one
        transaction. Called by the worker. Raises LedgerError and Unavailable: then `load` must run.
        """
        self._look()
        known = LearnedState(self._statistics, self._exposed, self._last.decision)
        newest = max(self._published_at, self._newest_basis)
        now = max(now, newest + 1)  # receipts tell what was published before from what was after
        done = erasure.step(self._store, asked, under_way, known, now)
        if done.records:
            self._forget(done)
        return done

    def warm_again(self, stages: Mapping[str, Stage], found: Mapping[str, tuple[WarmStart, Belief]]) -> None:
        """Take warm starts that were learned again, and are in the ledger, for those of the stages that are still
        declared so. Called by the worker.
        """
        for name in found:
            statistics = self._statistics.get(name)
            if statistics is not None and statistics.spec.schema == stages[name].schema:
                warm = warm_sums(self._store, name, statistics.spec)
                self._statistics = {**self._statistics, name: statistics._replace(warm=warm)}
                self._alone.pop(name, None)
                self._anew |= {name}
        self._firm, self._news = self._pooled(self._statistics), True

    def _forget(self, done: ErasureStep) -> None:
        last = self._last.settlement
        numbered = [msgspec.structs.replace(one, seq=last + i) for i, one in enumerate(done.settlements, 1)]
        self._last = self._last._replace(settlement=last + len(numbered))
        versions = {one.stage: one.seq for one in numbered}
        self._statistics = {
            name: done.statistics.get(name, s)._replace(version=versions.get(name, s.version))
            for name, s in self._statistics.items()
        }
        self._exposed = {**self._exposed, **done.exposed}
        for name in done.statistics:
            self._alone.pop(name, None)
        self._anew |= done.statistics.keys()
        self._firm, self._news = self._pooled(self._statistics), True  # what is being computed is followed by another
        for record in done.records:
            for tables in (self._open, self._old):
                if record.decision.stage in tables:
                    tables[record.decision.stage].drop([record.seq])
        by_seq = {record.seq: record.decision for record in done.records}
        self._settled((by_seq[one.decision_seq], one, None) for one in numbered)
        for one in numbered:
            self._metrics.settlements.labels(one.stage, one.why).inc()

    def _with_exposures(self, update: StatisticsUpdate) -> StatisticsUpdate:
        """The update, with what the stage's decisions exposed people to so far, where it declares a loss."""
        stage = self._catalogue.stages[update.key.stage]
        if stage.loss_share is None:
            return update
        log = self._exposed[update.key.stage]
        return update._replace(exposures=exposures.stored(stage, log, self._last.decision))

    def publish(self, now: int, *, force: bool = False) -> bool:
        """Publish policies with what is known at `now` (µs since 1970): at once where something settled, from time to
        time where decisions are open. They are computed in a thread of their own, from what is known now, and are
        published at a later call: what it takes grows with the number of open decisions, and callers do not wait for
        it. It may take a tenth of the time at most. With `force`, they are published when this returns. Returns whether
        nothing is being computed any more. Raises what computing raised.
        """
        if self._publication is not None:
            if not (force or self._publication.done()):
                return False
            done, self._publication = self._publication, None
            self._adopt(done.result())
        if not force and perf_counter() < self._rest_until:
            return True
        looked = now - self._published_at >= self._pace and (self._heard or any(map(len, self._open.values())))
        if not (force or self._news or looked):
            return True
        self._published_at, self._news = now, False
        work = self._prepare(now)
        if force:
            self._adopt(work())
        else:
            self._publication = self._elsewhere.submit(work)
        return force

    def keeps(self, least: int) -> bool:
        """Whether `keep` has anything to do."""
        return self._last.decision - self._kept >= least

    def keep(self, least: int) -> None:
        """Keep what decisions exposed people to, if so many were made since the start, or since it was kept: else the
        next start would count all of them, where nothing has settled meanwhile. Raises LedgerError and Unavailable.
        """
        if not self.keeps(least):
            return
        self._look()
        stages = ((name, stage) for name, stage in self._catalogue.stages.items() if stage.loss_share is not None)
        updates = [self._with_exposures(StatisticsUpdate(key_of(name, stage), (), {})) for name, stage in stages]
        if updates:
            self._store.settle([], updates)
        self._kept = self._last.decision

    def close(self) -> None:
        """Wait for what is being computed, and end the thread of its own. Called by the worker when it stops."""
        self._elsewhere.shutdown()

    def _adopt(self, found: _Publication) -> None:
        self.prepared = found.prepared
        self._rest_until = perf_counter() + _SHARE * found.seconds
        self._metrics.publish_seconds.observe(found.seconds)
        if found.complete:
            self._metrics.reading.set(0)
        self._show()

    def _prepare(self, now: int) -> Callable[[], _Publication]:
        """Computation of the policies with what is known now; any thread may run it, whatever is learned meanwhile."""
        self._look()
        now = max([now, self._floor, *(one.at for one in self._acknowledged)])
        self._newest_basis = max(now, self._newest_basis)
        basis = PendingBasis(now, self._last.decision, self._last.outcome)
        firm, last, anew = self._firm, self.prepared, self._anew
        self._anew = frozenset()
        all_known = () if self._unread else firm  # all or none: stages say things to each other
        rows = {name: self._open[name].rows() for name in all_known}
        counts = {name: self._statistics[name].delays[: len(one.stage_spec.arms)] for name, one in firm.items()}
        exposed = {name: copy(log) for name, log in self._exposed.items()}

        def compute() -> _Publication:
            start, snapshots = perf_counter(), list[Snapshot]()
            for name, snapshot in firm.items():
                if name in rows:
                    seen = pending.amounts_to(snapshot, rows[name], counts[name], now)
                    snapshots.append(msgspec.structs.replace(snapshot, pending=seen, pending_basis=basis))
                else:
                    snapshots.append(snapshot)
            lives = {}
            for snapshot in pooled(snapshots):
                before = last[snapshot.stage]
                kept = not anew and _same(before.snapshot, snapshot)
                live = before if kept else engine.prepare(snapshot)
                known = snapshot.stage in rows
                lives[snapshot.stage] = (
                    self._accounted(live, snapshot, exposed[snapshot.stage], now) if known else closed(live)
                )
            return _Publication(lives, perf_counter() - start, len(rows) == len(firm))

        return compute

    def _accounted(self, live: PreparedPolicy, snapshot: Snapshot, log: ExposureLog, now: int) -> PreparedPolicy:
        """The policy with its loss account at `now`; its basis is then that of `snapshot`, although nothing else may be
        new.
        """
        stage = snapshot.stage_spec
        if stage.loss_share is None:
            return live
        window = max(1, round(stage.reward.seconds * self._scale * 1e6))
        return log.accounted(live._replace(snapshot=snapshot), now, day_of(stage, window))

    def _pooled(self, known: Mapping[str, StageStatistics]) -> dict[str, Snapshot]:
        """Snapshots of what has settled, with what stages say to each other; of each stage made anew only if more has
        settled there.
        """
        app = self._catalogue.app
        for name, tally in known.items():
            last = self._alone.get(name)
            if last is None or last.version != tally.version:
                self._alone[name] = tally.snapshot(app, name)
        return {s.stage: s for s in pooled([self._alone[name] for name in known])}

    def _show(self) -> None:
        for name, live in self.prepared.items():
            self._metrics.version.labels(name).set(live.snapshot.version)
            self._metrics.open_decisions.labels(name).set(len(self._open[name]))
            self._metrics.alarms.labels(name).set(self._statistics[name].drift_state.epoch)
            self._metrics.reward_alarms.labels(name).set(len(self._statistics[name].reward_watch.alarms))
            self._metrics.reward_alarms_open.labels(name).set(len(self.unacknowledged(name)))
            if (account := live.snapshot.loss_account) is not None:
                self._metrics.show_loss(name, statement(live.snapshot.stage_spec, account))

    def _tell(self, alarms: Mapping[str, Sequence[RewardAlarm]]) -> None:
        """Say which keys are newly accused, once that is durable."""
        for name, new in alarms.items():
            for alarm in new:
                log.warning(
                    "stage %s: the key %r brought a mean reward of %.3g in %d decisions for %s; usual is %.3g at "
                    "most: look at whose it is, and acknowledge the alarm (reward_alarm)%s",
                    *(name, alarm.reporter, alarm.reward / alarm.decisions, alarm.decisions, alarm.arm, alarm.allowed),
                    "; until then what it reports teaches nothing" if self.held(name) else "",
                )

    def _may_settle(self, matured: MaturedDecision) -> bool:
        """Whether it settles: what was settled under an earlier schema, of which no sums are kept up, stands."""
        schema = self._catalogue.stages[matured.decision.stage].schema
        return matured.settled is None or self._specs[matured.decision.stage_digest].schema == schema

    def _settle(
        self, name: str, rows: Sequence[MaturedDecision], now: int, first: int
    ) -> tuple[StageStatistics, list[Settlement]]:
        """Statistics of a stage after these rows have settled, and their settlements, numbered from `first`. What was
        settled before is taken out first, so that what corrects it is learned as if the other had not been.
        """
        before, live = self._statistics[name], self._firm[name]
        wrong = [(m.decision, m.outcomes[: m.settled.outcomes], m.settled) for m in rows if m.settled is not None]
        if wrong:
            before = without(self._store, before, wrong)
            live = before.snapshot(self._catalogue.app, name)
        done = [
            settlement
            for (_, spec), part in groupby(rows, key=_declared)
            for settlement in settle(self._specs[spec], list(part), now, live=live)
        ]
        done = [msgspec.structs.replace(one, seq=first + i) for i, one in enumerate(done)]
        seen = [(m.decision, m.outcomes, one) for m, one in zip(rows, done, strict=True) if not one.corrects]
        before = watched(before, seen)
        if alarms := before.reward_watch.alarms:
            done = [self._or_held(m, one, alarms) for m, one in zip(rows, done, strict=True)]
        settled = [(m.decision, m.outcomes, one) for m, one in zip(rows, done, strict=True)]
        past, after = nudges.past(self._store), before
        for again in (False, True):
            if some := [row for row in settled if bool(row[2].corrects) == again]:
                after = after.fold(settled_rows(after, some, self._specs, past), alarms_known=again)
        return after, done

    def _or_held(self, matured: MaturedDecision, done: Settlement, alarms: Sequence[RewardAlarm]) -> Settlement:
        """The settlement, which teaches nothing if it rests on a reward of a key whose rewards are held by then."""
        spec, keys = self._specs[matured.decision.stage_digest], self._held(done.stage, alarms, done.seq)
        if done.learned and done.why == "reward" and rewards.is_held(spec, matured.outcomes, keys):
            return msgspec.structs.replace(done, why="held", learned=False, tau=0.0, nu=0.0)
        return done


def _same(last: Snapshot, new: Snapshot) -> bool:
    """Whether both decide alike: nothing has settled since, nothing is open, and other stages say the same."""
    if last.version != new.version or last.pending is not None or new.pending is not None:
        return False
    if last.cross_stage_factor is None or new.cross_stage_factor is None:
        return last.cross_stage_factor is new.cross_stage_factor
    mine, theirs = last.cross_stage_factor, new.cross_stage_factor
    same = np.array_equal(mine.precision, theirs.precision) and np.array_equal(mine.shift, theirs.shift)
    return same and mine.keys == theirs.keys


def _by_stage(values: Iterable[T], made: Callable[[T], Decision]) -> dict[str, list[T]]:
    """Values by the stage of their decisions, in order."""
    found: dict[str, list[T]] = {}
    for value in values:
        found.setdefault(made(value).stage, []).append(value)
    return found


def _declared(matured: MaturedDecision) -> tuple[str, str]:
    """Stage, and digest of its declaration when the decision was made."""
    return matured.decision.stage, matured.decision.stage_digest
