"""Writer thread: it owns the only writing connection, commits whatever queued during the last fsync, and learns.

Natural group commit, no timer: one caller waits for one fsync, a thousand callers share one. Learning follows in the
same thread, so the position in the ledger is the order of commits, and a settlement, its belief and its version are one
transaction.
"""

import asyncio
import logging
import sqlite3
import sys
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from contextlib import contextmanager
from itertools import compress, islice
from time import perf_counter
from typing import Any, NamedTuple, TypeVar

import msgspec

from api import clocks
from api.clocks import Clock
from api.learning.learner import Learner, Settled
from api.learning.replicas import Followed, ReplicaFollower, SharedLimits
from api.ledger import erasure
from api.ledger.catalogue_changes import CATALOGUE, served_digest
from api.ledger.clock_marks import ClockMarks
from api.ledger.erasure import ErasureStep
from api.metrics import Metrics
from api.operations.guardrail_watch import GuardrailWatch
from api.operations.operator_state import OperatorState
from api.operations.stage_watch import WHO, StageDecider, StageRollback, StageWatch
from api.releases.deciding_policies import DecidingPolicies
from api.releases.service import ReleaseService, declared_by
from api.stores.decision_log import OutcomeReceipt, RecordedDecision
from api.stores.erasure_log import Erasure
from api.stores.event_log import EventCredits, IngestResult, Status
from api.stores.learning_state import WarmStart
from api.stores.protocol import Store
from api.stores.replica_log import LedgerNews
from bandit.belief import Belief
from bandit.catalogue.model import Catalogue, Stage
from bandit.errors import InvalidRequest, JourneyBanditError, LedgerError, NotFound, Overloaded, Unavailable
from bandit.journey import folding
from bandit.records import AlarmAcknowledgement, Decision, Event, OperatorAction, Outcome, Release
from bandit.release import NO_NUDGE

log = logging.getLogger("journey_bandit.worker")

Answer = tuple[list[RecordedDecision | None], list[OutcomeReceipt]]
Told = tuple[Status, EventCredits]
T = TypeVar("T")
TraceCommit = Callable[[Sequence[Decision], int, int, "asyncio.Future[Any]"], None]
"""Told of decisions, numbers of outcomes and of events, and the future of their commit, when they are queued."""

_NOTHING = EventCredits({}, {})

_MOST = 4000  # rows that callers write in one transaction
_STEP, _LONGEST = 128, 256  # rows that are settled in one transaction at least and at most: callers wait for it
_GATHER = 0.5  # seconds in which what matures is gathered: a step costs something that no row adds to
_KEEP = 10_000  # decisions that a start may have to count again
_TICK = 0.05  # seconds between looks for something to do while nobody writes
_TRIAL_SHARE = 9  # how many times as long as a trial of writing took the next one waits
_HELP = 5.0  # seconds between two looks of a replica that does not lead at what is due
_LATE = 10_000_000  # µs that something is due before such a replica settles it
_LOOK = 0.1  # seconds between two looks for what other replicas have committed, while nothing is written here
_TRIAL_PAUSE = 0.5  # seconds that it waits for that at most


ORIGINAL = -1
"""In place of the number of news: the decision was made before, and is asked for once more."""


class WriteJob(NamedTuple):
    """Write job of one caller: rows, and the future that gets the answer: what became of decisions and outcomes, of
    events, or of a release. `learn`: answer only after the learner has caught up. `known`: of each decision the number
    of the news of other replicas that it rests on, None if it stands whatever others do.
    """

    decisions: Sequence[Decision]
    outcomes: Sequence[Outcome]
    events: Sequence[Event]
    future: asyncio.Future[Any]
    learn: bool
    release: Release | None = None
    known: Sequence[int | None] = ()

    @property
    def rests_on(self) -> Sequence[int | None]:
        """`known` of each decision."""
        return self.known or (None,) * len(self.decisions)

    @property
    def rows(self) -> int:
        """Room that the job takes in the queue, in rows: at least one."""
        return max(1, len(self.decisions) + len(self.outcomes) + len(self.events))


class Worker:
    """Writer of one ledger, with its thread: it commits what callers submit, and learns in between. `learning` is its
    learner, which belongs to the thread; `releases` is its service of releases.

    Guarantees. Durability: a future resolves after its rows are on disk. Order: jobs are committed in the order in
    which they were queued (a release before the rows that wait with it), and within one transaction decisions come
    before outcomes, and those before events. Failure: a transaction that fails is answered Unavailable to all jobs in
    it, because it is not known whether it is durable; the thread goes on, and tries by itself whether those rows can be
    written by now: until they can, `failing` names "write", whatever else is committed meanwhile. An error
    in learning is retried, while the last published policies decide. Pace: what matures is gathered for half a
    second and settled in steps of as many rows as were decided meanwhile, 128 at least and 256 at most; after each
    of them callers have the thread for as long as it took, so that no backlog holds them up. Back-pressure: a job
    that would make the queue longer than `bound` rows is refused with Overloaded and nothing of it is written,
    unless it is the only one. Replicas. On a ledger that others write to as well, each transaction begins with what
    they have committed (`news`): learned, limits and sessions follow it, and a decision that rests on older news of
    its user, or that a limit on everyone does not allow any more, is not written: it is to be made again. Whichever
    replica leads settles what matures; `leading` says whether this one does. Threads: `submit`, `take` and `admit`
    are called in an event loop, where their futures resolve; `run`, `prepared`, `alive` and `failing` may be used
    from any thread. `start` and `stop` are called once, by the owner.
    """

    def __init__(
        self,
        store: Store,
        catalogue: Catalogue,
        clock: Clock,
        metrics: Metrics,
        bound: int = 10_000,
        settled: Settled = lambda _: None,
        scale: float = 1.0,
        *,
        asked: bool = False,
        before: "Worker | None" = None,
    ):
        self._store = store
        self._rules = folding.rules(catalogue)
        self._folded: Callable[[IngestResult], None] = lambda _: None
        self._specs = store.specs()
        self._clock = clock
        self._metrics = metrics
        self._bound = bound
        self._asked = asked  # learn only when a caller waits for it: nothing depends on how fast this thread is
        self._jobs: deque[WriteJob] = deque()
        self._chores: deque[Callable[[], None]] = deque()
        self._queued = 0
        self.trace_commit: TraceCommit | None = None  # set before it starts
        self._waiting: list[WriteJob] = []  # answered when what matured so far was learned
        self._rest_until, self._settle_at = 0.0, 0.0
        self._since = 0  # decisions that were committed since the last step
        self._behind = False  # more has matured than the last step took
        self._reload = False  # what failed may be in the ledger all the same: learn on from what is there
        self._wake = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)
        self.chore_seconds = 0.0  # that the last work of `run` took
        self.leading = not store.shared
        self._replicas = ReplicaFollower(store, settled)
        self._served = served_digest(catalogue)
        self._help_at = 0.0  # when a replica that does not lead looks whether the leader settles
        self._look_at = 0.0  # when news is looked for next
        self.failing: dict[str, str] = {}  # what does not work now: "write" or "learn" → why
        self._unwritten: list[WriteJob] = []  # the last rows that the ledger could not take: tried until it can
        self._try_at = 0.0
        if before is not None:  # another worker mends nothing
            self.failing, self._unwritten = dict(before.failing), before._unwritten
        told, known = self._replicas.settled, _sound(before, store)
        self.learning = Learner(store, catalogue, metrics, told, scale, known, now=clock())
        self._marks = ClockMarks(store, clock, metrics)
        self.operators = OperatorState(store, catalogue)
        self.pauses, self.traffic = self.operators.pauses, self.operators.traffic
        self.guardrails = GuardrailWatch(store, catalogue, self.pauses, scale)
        self.releases = ReleaseService(store, catalogue, metrics, self.traffic)
        self.register()
        self.stage_watch = StageWatch(store, catalogue, self.pauses, self._decider)

    def register(self) -> None:
        """Register the declarations that releases decide under, and those of stages whose ramp or holdout an operator
        has set. Called before the thread starts.
        """
        self.releases.register()
        for stage in self.learning.prepared:
            self.traffic.register(stage, self._declared_at(stage))

    def _declared_at(self, stage: str) -> list[Stage]:
        """Declarations that decisions of a stage may be made under, but for what operators set; none of a stage that is
        not declared.
        """
        learned, served = self.learning.prepared.get(stage), self.releases.prepared.get(stage)
        return [spec for policy in (learned, served) if policy is not None for spec in declared_by(policy)]

    def _decider(self, stage: str) -> StageDecider:
        prepared, newest = self.prepared[stage], self.releases.current.get(stage)
        approved = newest is not None and newest.kind != "rollback" and newest.version not in ("", NO_NUDGE)
        began, revocable = newest.at if newest else 0, approved and prepared.release != 0
        shows = newest is None or newest.version != NO_NUDGE
        return StageDecider(prepared.release, prepared.spec, prepared.snapshot.stage_spec, began, revocable, shows)

    def roll_back(self, asked: StageRollback, now: int) -> "futures.Future[Release | None]":
        """Take back the release of which an alarm was raised, and no other: None if that does not decide any more.
        Raises as `run` and `ReleaseService.rollback` do.
        """

        def work() -> Release | None:
            history = self._store.releases(asked.stage)
            if not history or history[-1].seq != asked.release:
                return None
            return self.releases.rollback(asked.stage, None, WHO, now, asked.reason, now)

        return self.run(work, together=True)

    def listen(self, folded: Callable[[IngestResult], None]) -> None:
        """Register the listener that is told, in the event loop, what events have changed, before those who sent them
        are answered: the DecisionWriter. Where that is not known, their users count as moved, so that they are read
        from the ledger again. There is one, set before `start`.
        """
        self._folded = folded

    def share(self, limits: SharedLimits, followed: Followed) -> None:
        """Keep to limits on everyone together with other replicas, and tell `followed`, in the event loop, what they
        have committed, with its number, before those are answered whose decisions are to be made again. Called before
        `start`, for a ledger that is shared.
        """
        self._replicas.share(limits, followed)

    def start(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Start the thread: from now on it commits and learns. A worker starts once. `loop`: event loop in which
        `share`'s listener is told of news; without one it is told in the thread.
        """
        self._replicas.loop = loop
        self._thread.start()

    def stop(self) -> None:
        """Commit what is queued, then end the thread and wait for that. Later submissions raise Overloaded. Not for the
        event loop: it blocks.
        """
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join()

    @property
    def prepared(self) -> DecidingPolicies:
        """Policy that decides at each stage: its approved release, or else what has been learned; while a candidate is
        judged, both halves. Reading it takes no lock.
        """
        return DecidingPolicies(self.releases.served, self.learning.prepared, self.traffic)

    @property
    def alive(self) -> bool:
        """Whether the thread runs. If it does not, nothing can be written, and health says so."""
        return self._thread.is_alive()

    def submit(
        self,
        decisions: Sequence[Decision] = (),
        outcomes: Sequence[Outcome] = (),
        *,
        learn: bool = False,
        known: Sequence[int | None] = (),
    ) -> asyncio.Future[Answer]:
        """Queue decisions and outcomes; the future resolves with what became of each when they are durable, or fails
        with Unavailable if that is not known. With `learn`, it resolves after what matured so far was learned too. With
        `known`, of each decision the number of the news that it rests on, those that are to be made again are None in
        the answer. Raises Overloaded at once when too many rows wait already, or the service stops.
        """
        job = WriteJob(decisions, outcomes, (), asyncio.get_running_loop().create_future(), learn, known=known)
        self._queue(job)
        return job.future

    def take(self, events: Sequence[Event]) -> asyncio.Future[list[Told]]:
        """Queue events; the future resolves with what became of each, and what it is credited to, in order. Raises as
        `submit` does.
        """
        job = WriteJob((), (), events, asyncio.get_running_loop().create_future(), learn=False)
        self._queue(job)
        return job.future

    def run(self, work: Callable[[], T], *, together: bool = False) -> "futures.Future[T]":
        """Do `work` between two commits, in the thread that may write; called from any thread. The future has its
        result, or its error: other exceptions than ours become Unavailable. With `together`, it is one transaction of a
        ledger that is shared, and knows what others have released. Raises Overloaded when the service stops.
        """
        future: futures.Future[T] = futures.Future()

        def chore() -> None:
            if not future.set_running_or_notify_cancel():
                return  # the caller has left before it was begun; from here on it cannot
            start = perf_counter()
            try:
                with self._together(only=together):
                    result = work()
                if together:
                    self._serve_releases()
                self.chore_seconds = perf_counter() - start
                future.set_result(result)
            except JourneyBanditError as error:
                future.set_exception(error)
            except Exception as error:  # noqa: BLE001 - whatever it was, the caller must be told
                future.set_exception(Unavailable(f"{type(error).__name__}: {error}"))

        with self._wake:
            if self._stopping:
                raise Overloaded("the service is stopping")
            self._chores.append(chore)
            self._wake.notify()
        return future

    def erase(self, asked: Sequence[Erasure], under_way: Sequence[Erasure] = ()) -> "futures.Future[ErasureStep]":
        """Do one step of erasures between two commits: begin those that are asked for, and go on with the first of all
        (`erasure.step`). Raises as `run` does.
        """

        def work() -> ErasureStep:
            try:
                with self._together():
                    self._load()
                    return self.learning.erase(asked, under_way, self._clock())
            except Exception:
                self._reload = True  # what failed may be in the ledger all the same
                raise

        return self.run(work)

    def acknowledge(self, asked: AlarmAcknowledgement) -> "futures.Future[AlarmAcknowledgement]":
        """Keep what was found out about an accused key (`Learner.acknowledge`). Raises as `run` and that do."""

        def work() -> AlarmAcknowledgement:
            try:
                with self._together():
                    self._load()
                    return self.learning.acknowledge(asked)
            except NotFound:
                raise
            except Exception:
                self._reload = True  # what failed may be in the ledger all the same
                raise

        return self.run(work)

    def operate(self, asked: OperatorAction) -> "futures.Future[OperatorAction]":
        """Keep what an operator did to a nudge (`PausedNudges.change`); it is in force for whatever is written from
        then on. Raises as `run` and that do.
        """

        def work() -> OperatorAction:
            with self._together():
                kept = self.operators.change(asked, self._declared_at(asked.stage))
            self.operators.load()
            return kept

        return self.run(work)

    def warm_again(
        self, stages: Mapping[str, Stage], found: Mapping[str, tuple[WarmStart, Belief]]
    ) -> "futures.Future[None]":
        """Keep warm starts of these stages that were learned again, and decide by them. Raises as `run` does."""

        def work() -> None:
            try:
                with self._together():
                    erasure.replace_warm_starts(self._store, stages, found)
                self.learning.warm_again(stages, found)
            except BaseException:
                self._reload = True  # it may be in the ledger, and is not known here
                raise

        return self.run(work)

    async def admit(self, release: Release) -> Release:
        """Release as the ledger keeps it, once it decides. Raises InvalidRequest if it does not fit, Overloaded and
        Unavailable.
        """
        future: asyncio.Future[Release] = asyncio.get_running_loop().create_future()
        self._queue(WriteJob((), (), (), future, learn=False, release=release))
        return await future

    def _queue(self, job: WriteJob) -> None:
        with self._wake:
            if self._stopping or (self._jobs and self._queued + job.rows > self._bound):
                raise Overloaded("the service is stopping" if self._stopping else "the ledger's queue is full")
            self._queued += job.rows
            self._jobs.append(job)
            self._wake.notify()
        if self.trace_commit is not None:
            self.trace_commit(job.decisions, len(job.outcomes), len(job.events), job.future)

    def _run(self) -> None:
        while True:
            with self._wake:
                if not (self._jobs or self._chores or self._waiting or self._stopping):
                    self._wake.wait(max(self._rest_until - perf_counter(), 0.001) if self._behind else _TICK)
                jobs = self._take()
                chore = self._chores.popleft() if self._chores else None
                if self._stopping and not jobs and not self._waiting and chore is None:
                    break
            for job in jobs:
                if job.release:
                    self._admit(job, job.release)
            jobs = [job for job in jobs if not job.release]
            if jobs:
                self._commit(jobs)
            if "write" in self.failing and perf_counter() >= self._try_at:
                self._try()
            elif self._store.shared and perf_counter() >= self._look_at:
                self._look_for_news()
            if chore is not None:
                chore()
            self._learn()
        self._end()

    def _end(self) -> None:
        """Keep what the next start would have to count again, and end the learner's own thread."""
        try:
            if not self._reload and self.leading:
                with self._together():
                    self.learning.keep(1)
                self._marks.keep(at_once=True)
        except Exception as error:  # noqa: BLE001 - the next start counts it; nothing is lost
            self._failed("learn", error)
        finally:
            self.learning.close()

    def _take(self) -> list[WriteJob]:
        jobs, rows = list[WriteJob](), 0
        while self._jobs and (not jobs or rows + self._jobs[0].rows <= _MOST):
            jobs.append(self._jobs.popleft())
            rows += jobs[-1].rows
        self._queued -= rows
        self._metrics.queue.set(self._queued)
        return jobs

    def _commit(self, jobs: Sequence[WriteJob]) -> None:
        start = perf_counter()
        try:
            with self._together():
                kept, noted, folded = self._write(jobs)
        except Exception as error:  # noqa: BLE001 - whatever it was, the callers must be told: not known to be durable
            self._failed("write", error)
            self._keep_unwritten(jobs, error)
            self._reload = True
            unavailable = error if isinstance(error, Unavailable) else Unavailable(f"{type(error).__name__}: {error}")
            users = {user for job in jobs for event in job.events for user in (event.user, event.alias) if user}
            _reject(jobs, unavailable, lambda: self._folded(IngestResult([], {}, users, [])))
            return
        if not self._unwritten:
            self._recovered("write")
        if not self._reload:
            self.learning.observe(
                [one for one in kept if one is not None], [*noted, *(note for _, note in folded.noted)]
            )
        self._since += len(kept)
        self._metrics.commit_seconds.observe(perf_counter() - start)
        self._metrics.commit_rows.observe(len(kept) + len(noted) + len(folded.taken))
        first = (lambda: self._folded(folded)) if folded.taken or folded.noted else None
        events = [event for job in jobs for event in job.events]
        told = [(status, folded.credits.get(e.id, _NOTHING)) for e, status in zip(events, folded.taken, strict=True)]
        answers = _shared(jobs, kept, noted, told)
        _resolve([(job, answer) for job, answer in answers if not job.learn], first)
        self._waiting += [job for job in jobs if job.learn]

    def _admit(self, job: WriteJob, release: Release) -> None:
        try:
            with self._together():
                kept = self.releases.admit(msgspec.structs.replace(release, at=self._clock()))
            self._serve_releases()
        except (InvalidRequest, Unavailable) as error:
            _reject([job], error)
        except Exception as error:  # noqa: BLE001 - whatever it was, the caller must be told
            _reject([job], Unavailable(f"{type(error).__name__}: {error}"))
        else:
            _resolve([(job, kept)])

    def _write(
        self, jobs: Sequence[WriteJob]
    ) -> tuple[list[RecordedDecision | None], list[OutcomeReceipt], IngestResult]:
        """One durable transaction: decisions before what is said about them, that before events. Decisions that are to
        be made again, because of other replicas, are not written: None.
        """
        asked = [pair for job in jobs for pair in zip(job.decisions, job.rests_on, strict=True)]
        stand = self._standing(asked)
        standing = list(compress(asked, stand))
        recorded, noted, folded = self._append([decision for decision, _ in standing], jobs)
        for (decision, known), one in zip(standing, recorded, strict=True):
            if one.duplicate and known is not None and known != ORIGINAL:
                self._replicas.give_back(decision)
        kept = iter(recorded)
        return [next(kept) if stands else None for stands in stand], noted, folded

    def _standing(self, asked: Sequence[tuple[Decision, int | None]]) -> list[bool]:
        """Which of these decisions may be written. An original that was asked for once more may only be a duplicate: of
        one that is in the ledger, or stands here.
        """
        if self.operators.stale:
            self.operators.load()
        if not (self._store.shared or self.operators):
            return [True] * len(asked)
        again = [decision.id for decision, known in asked if known == ORIGINAL]
        there = set(self._store.decisions_by_id(again)) if again else set[uuid.UUID]()
        stand = list[bool]()
        for decision, known in asked:
            if known == ORIGINAL:  # what was answered keeps to the ramp and holdout of then
                stands = decision.id in there and not self.pauses.refuses(decision)
            else:
                refused = known is not None and self.operators.refuses(decision)
                stands = not refused and self._replicas.stands(decision, known)
            if stands:
                there.add(decision.id)
            stand.append(stands)
        return stand

    def _append(
        self, decisions: Sequence[Decision], jobs: Sequence[WriteJob]
    ) -> tuple[list[RecordedDecision], list[OutcomeReceipt], IngestResult]:
        outcomes = [o for job in jobs for o in job.outcomes]
        events = [e for job in jobs for e in job.events]
        now = self._clock()
        with self._store.atomic():
            kept, noted = self._store.record(decisions, outcomes, now, self._specs)
            shown = self._shown(outcomes, noted)
            if not events and not shown:
                return kept, noted, IngestResult([], {}, (), [])
            return kept, noted, self._store.ingest(events, now, self._specs, self._rules, shown)

    def _shown(self, outcomes: Sequence[Outcome], noted: Sequence[OutcomeReceipt]) -> set[bytes]:
        """Users to whom something was really shown: what they reported may belong to that."""
        if not self._rules.outcomes:
            return set()
        return {
            note.found.decision.user
            for outcome, note in zip(outcomes, noted, strict=True)
            if outcome.kind == "activation" and note.status == "recorded" and note.found
        }

    def _keep_unwritten(self, jobs: Sequence[WriteJob], error: Exception) -> None:
        """Keep rows that the ledger could not take, with those before as far as they fit into one transaction. Errors
        of other kinds are of these rows alone, and say nothing of the ledger.
        """
        self._try_at = perf_counter() + _TICK
        if not _of_storage(error):
            return
        kept, rows = deque[WriteJob](), 0
        for job in reversed([*self._unwritten, *jobs]):
            rows += job.rows
            if kept and rows > _MOST:
                break
            kept.appendleft(job)
        self._unwritten = list(kept)

    def _try(self) -> None:
        """Find out whether writing works again: nobody may ask while the service says that it is not ready. The rows
        that failed are written and taken back, because other tables and pages may be sound where theirs are not; then
        a fact is committed, because what is taken back was not synced.
        """
        start = perf_counter()
        try:
            self._check_catalogue()
            if self._unwritten:
                decisions = [d for job in self._unwritten for d in job.decisions]
                self._store.try_writing(lambda: self._append(decisions, self._unwritten))
            self._store.set_meta({"probed": str(self._clock())})
        except Exception as error:  # noqa: BLE001 - as above
            self._failed("write", error)
            if not _of_storage(error):
                self._unwritten = []
        else:
            self._unwritten = []
            self._recovered("write")
        end = perf_counter()
        self._try_at = end + _TICK + min(_TRIAL_SHARE * (end - start), _TRIAL_PAUSE)

    def _learn(self) -> None:
        """Settle some of what matured, if it is time to, and answer who waits for all of it once it is done. An error
        is kept for health, and told to who waits.
        """
        start = perf_counter()
        if not self._waiting and (self._asked or start < self._rest_until or "write" in self.failing):
            return
        waiting, self._waiting, more, unread, looked = self._waiting, [], False, False, False
        try:
            with self._together(only=self._reload):
                self._load()
            with self._together(only=not self.learning.knows_all):
                unread = not self.learning.read(sys.maxsize if waiting else _STEP)
            if waiting or start >= self._settle_at:
                more = self._settle(waiting)
                self._settle_at, looked = start if more else start + _GATHER, True
            if self.leading:
                with self._together(only=self.learning.keeps(_KEEP)):
                    self.learning.keep(_KEEP)
                self._marks.keep()
            published = self.learning.publish(self._clock(), force=bool(waiting) and not more)
            if published and looked and not unread:
                self._recovered("learn")  # not while what failed is tried again
        except Exception as error:  # noqa: BLE001 - learning is retried; decisions go on with the last good snapshot
            self._failed("learn", error)
            self._reload = True
            if waiting:
                _reject(waiting, Unavailable(f"what matured could not be learned: {error}"))
        else:
            if more:
                self._waiting = waiting
            else:
                _resolve([(job, ([], [])) for job in waiting])
        end = perf_counter()
        self._rest_until, self._behind = end + (end - start), more or unread

    def _settle(self, waiting: Sequence[WriteJob]) -> bool:
        """Settle some of what matured, or where another replica does, look whether it has; whether there is more."""
        if self.leading:
            with self._together():
                most = self._step()
                return self.learning.step(clocks.settling(self._clock), most) == most
        if perf_counter() >= self._help_at:  # who leads may hang, or be behind: whoever settles settles the same
            self._help_at = perf_counter() + _HELP
            with self._together():
                self.learning.step(clocks.settling(self._clock) - _LATE, _STEP)
        if not waiting:
            return False
        if self._stopping:
            raise Unavailable("the service is stopping")
        with self._together():
            more = bool(self._store.matured(clocks.settling(self._clock), 1, self._rules.catalogue.stages))
        if more:
            with self._wake:
                self._wake.wait(_TICK)
        return more

    def _step(self) -> int:
        """Rows to settle next: as many as were decided since the last step, here or by other replicas, so that settling
        keeps pace where much is decided, and what matured long ago makes nobody wait for large steps.
        """
        most, self._since = min(max(_STEP, self._since), _LONGEST), 0
        return most

    @contextmanager
    def _together(self, *, only: bool = True) -> Iterator[None]:
        """One transaction of a ledger that is shared, which begins with the news; nothing for others, nor where it is
        not asked for by `only`.
        """
        if not (only and self._store.shared):
            yield
            return
        try:
            with self._store.atomic():
                self._check_catalogue()
                self._take_in(self._replicas.follow())
                yield
        except BaseException:
            self._replicas.failed()
            raise
        self._replicas.committed()

    def _serve_releases(self) -> None:
        """Serve what was admitted to a ledger that is shared, now that it is committed."""
        if self._store.shared:
            self._store.register({})
            self.releases.load()

    def _check_catalogue(self) -> None:
        """Unavailable if other replicas serve another catalogue by now: what is decided by this one could not be told
        from the rest.
        """
        if self._store.shared and self._store.meta().get(CATALOGUE) != self._served:
            raise Unavailable("other replicas serve another catalogue by now: give it to this one, and restart it")

    def _take_in(self, news: LedgerNews | None) -> None:
        """Learn what other replicas have committed, serve what they released, and then tell the event loop; or begin
        again with what is in the ledger, where that was changed, or what is known here may be something else.
        """
        if news is None:
            self._load()
            return
        self.operators.stale = self.operators.stale or news.operated
        self._since += len(news.decisions)
        try:
            if news.released or news.rewritten:
                self._store.register({})  # what others have declared since
                self.releases.load()
            if self.operators.stale:
                self.operators.load()
            if news.rewritten:
                self._reload = True
                self.learning.begin_after(news.at)
            if self._reload:
                self._load()
            else:
                self.learning.follow(news)
        except BaseException:
            self._reload = True  # it will not be told again
            raise
        finally:
            self._replicas.tell(news)

    def _look_for_news(self) -> None:
        """Look whether other replicas have committed anything, and whether this one leads."""
        self._look_at = perf_counter() + _LOOK
        try:
            self.leading = self._store.leads()
            if self._store.has_news():
                with self._together():
                    pass
            self._recovered("follow")
        except Exception as error:  # noqa: BLE001 - tried again; each commit follows too, or fails
            self._failed("follow", error)

    def _load(self) -> None:
        """Begin again with what is in the ledger, where what is known here may be something else."""
        if self._reload:
            if self._store.shared:  # news that could not be taken in is not told again
                self._store.register({})
                self.releases.load()
            self.operators.load()
            self.learning.load(self._clock())
            self._replicas.load()
            self._reload = False

    def _failed(self, what: str, error: Exception) -> None:
        self._metrics.ledger_errors.labels(what).inc()
        if what not in self.failing:
            log.error("%s fails: %s", what, error, exc_info=None if isinstance(error, LedgerError) else error)
        self.failing[what] = f"{type(error).__name__}: {error}"

    def _recovered(self, what: str) -> None:
        if self.failing.pop(what, None):
            log.warning("%s works again", what)


def _of_storage(error: Exception) -> bool:
    """Whether an error is of the disk or the file, and not of the rows that were written."""
    return isinstance(error, Unavailable | sqlite3.Error | OSError)


def _sound(worker: Worker | None, store: Store) -> Learner | None:
    """What a worker that has ended knew, if it is what the ledger holds: others may have written to one that is
    shared.
    """
    return None if worker is None or store.shared or worker.failing or worker._reload else worker.learning


def _shared(
    jobs: Sequence[WriteJob],
    kept: Sequence[RecordedDecision | None],
    noted: Sequence[OutcomeReceipt],
    taken: Sequence[Told],
) -> Iterator[tuple[WriteJob, Answer | list[Told]]]:
    """Each job's part of what became of all rows."""
    decided, said, told = iter(kept), iter(noted), iter(taken)
    for job in jobs:
        if job.events:
            yield job, list(islice(told, len(job.events)))
        else:
            yield job, (list(islice(decided, len(job.decisions))), list(islice(said, len(job.outcomes))))


def _resolve(
    answers: Sequence[tuple[WriteJob, Answer | list[Told] | Release]], first: Callable[[], None] | None = None
) -> None:
    """Wake the callers of one event loop with one call, after `first`."""

    def finish() -> None:
        if first:
            first()
        for job, answer in answers:
            if not job.future.done():
                job.future.set_result(answer)

    if answers:
        answers[0][0].future.get_loop().call_soon_threadsafe(finish)


def _reject(
    jobs: Sequence[WriteJob], error: Unavailable | InvalidRequest, first: Callable[[], None] = lambda: None
) -> None:
    """Fail the callers of one event loop with one call, after `first`."""

    def finish() -> None:
        first()
        for job in jobs:
            if not job.future.done():
                job.future.set_exception(error)

    jobs[0].future.get_loop().call_soon_threadsafe(finish)
