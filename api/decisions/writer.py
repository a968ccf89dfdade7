"""Writing of decisions and outcomes: durable first, then what was reserved is kept or given back, counted, answered.

Native calls, feature flags and rankings all write here, so that a conflict, a retry, an overloaded queue and a failing
disk mean the same for each of them.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from prometheus_client import Counter, Histogram

from api.clocks import Clock
from api.decisions.maker import DecisionMaker, PendingDecision
from api.learning.worker import ORIGINAL, Worker
from api.metrics import Metrics
from api.stores.decision_log import OutcomeReceipt, RecordedDecision
from api.stores.event_log import IngestResult
from api.stores.protocol import Store
from bandit.errors import Conflict, JourneyBanditError, Overloaded
from bandit.records import NOT_NOW, Decision, Outcome

_TRIES = 20
"""How often a decision is made before its caller is told to ask later, while other replicas decide about the same."""


class WrittenDecision(NamedTuple):
    """Decision as the ledger holds it. `duplicate`: it was made before. `reused`: it is the original of this visit,
    asked for once more.
    """

    decision: Decision
    duplicate: bool
    reused: bool


class DecisionWriter:
    """Writer of one app's decisions and outcomes, between the event loop and the ledger's thread.

    Guarantees: what `write` returns is durable; every reservation that `DecisionMaker.prepare` made is committed or
    cancelled exactly once, whatever happens between (a full queue, a failing disk, a caller that leaves). Belongs to
    one event loop.
    """

    def __init__(self, worker: Worker, maker: DecisionMaker, store: Store, metrics: Metrics, clock: Clock):
        self._worker = worker
        self._clock = clock
        self._maker = maker
        self._specs = store.specs()
        self._metrics = metrics
        self._made: dict[tuple[str, str, str], tuple[Counter, Histogram]] = {}  # by stage, arm and holdout
        worker.listen(self._ingested)

    async def write(
        self, pending: Sequence[PendingDecision], *, field: str = "decision_id", name: str = ""
    ) -> list[WrittenDecision | JourneyBanditError]:
        """Each decision as the ledger holds it, in order; one durable transaction for all.

        A decision whose id is in the ledger already is answered with the original (`duplicate`), or with a Conflict if
        the original was another request; `field` and `name` say how the caller knows the id. A decision that rests on
        what another replica has changed meanwhile is made again, and written in another transaction; what is wrong with
        it then is its answer. Raises Overloaded if nothing was written, and Unavailable if that is not known: then
        reservations stay, because a budget may last longer but must never be overspent.
        """
        found = dict[int, WrittenDecision | JourneyBanditError]()
        left = dict(enumerate(pending))
        for _ in range(_TRIES):
            recorded = await self._submit([*left.values()])
            lost = list[int]()
            for (place, one), kept in zip(left.items(), recorded, strict=True):
                if kept is None:
                    self._maker.cancel(one)
                    lost.append(place)
                else:
                    found[place] = self._concluded(one, kept, field, name)
            left = self._again({place: left[place] for place in lost}, found)
            if not left:
                return [found[place] for place in range(len(pending))]
        for place, one in left.items():
            self._maker.cancel(one)
            found[place] = Overloaded(
                "other replicas decide for the same people, or under the same limit, all the time"
            )
        return [found[place] for place in range(len(pending))]

    def _again(
        self, lost: Mapping[int, PendingDecision], found: dict[int, WrittenDecision | JourneyBanditError]
    ) -> dict[int, PendingDecision]:
        """Decisions that were not written, made again; what is wrong with the others is put into `found`."""
        left = dict[int, PendingDecision]()
        for place, one in lost.items():
            assert one.again is not None  # noqa: S101 - the worker refuses no other
            try:
                left[place] = one.again(self._clock())
            except JourneyBanditError as error:
                found[place] = error
        return left

    async def _submit(self, pending: Sequence[PendingDecision]) -> Sequence[RecordedDecision | None]:
        """What became of each decision, None for one that is to be made again; one durable transaction. Raises as
        `write` does.
        """
        try:
            written = self._worker.submit(
                [one.decision for one in pending],
                known=[None if one.again is None else ORIGINAL if one.reused else one.known for one in pending],
            )
        except Overloaded:
            for one in pending:
                self._maker.cancel(one)
            raise
        recorded: Sequence[RecordedDecision | None] | None = None
        try:
            recorded, _ = await written
        finally:
            if recorded is None:  # not known to be durable, or the caller has left
                for one in pending:
                    self._maker.commit(one)
        return recorded

    async def report(self, outcomes: Sequence[Outcome]) -> list[OutcomeReceipt]:
        """Receipt of each outcome, in order; one durable transaction for all. Raises Overloaded and Unavailable."""
        _, receipts = await self._worker.submit(outcomes=outcomes)
        for outcome, receipt in zip(outcomes, receipts, strict=True):
            self._count(outcome.kind, receipt)
            if outcome.kind == "activation" and receipt.status in ("recorded", "duplicate"):
                self._maker.activated(outcome.decision)
        return list(receipts)

    def _concluded(
        self, pending: PendingDecision, recorded: RecordedDecision, field: str, name: str
    ) -> WrittenDecision | Conflict:
        if pending.reused:
            return WrittenDecision(recorded.decision, duplicate=True, reused=True)
        if recorded.duplicate:
            self._maker.cancel(pending)
            if recorded.decision.request != pending.decision.request:
                problem = f"{name or recorded.decision.id} was used for another request"
                return Conflict(field, problem, f"send a new {field.rpartition('_')[2]}, or repeat the same request")
        else:
            self._maker.commit(pending)
            self._count_decision(recorded.decision)
        return WrittenDecision(recorded.decision, recorded.duplicate, reused=False)

    def _count_decision(self, decision: Decision) -> None:
        spec, stage = self._specs[decision.stage_digest], decision.stage
        arm = spec.belief_row(decision.arm) if decision.is_actionable else NOT_NOW
        row = stage, arm, str(decision.holdout).lower()
        made = self._made.get(row)
        if made is None:  # finding a metric by its labels costs more than counting
            made = self._made[row] = self._metrics.decisions.labels(*row), self._metrics.propensity.labels(stage)
        counter, propensity = made
        counter.inc()
        if not decision.contribution:
            self._metrics.over_limit.labels(stage).inc()
        propensity.observe(float(decision.propensity[decision.arms(spec.arms).index(decision.arm)]))

    def _count(self, kind: str, receipt: OutcomeReceipt) -> None:
        self._metrics.outcomes.labels(kind, receipt.status).inc()
        if receipt.late and receipt.status == "recorded":
            self._metrics.late.inc()
        if receipt.notes:
            self._metrics.clipped.labels(receipt.stage).inc()

    def _ingested(self, change: IngestResult) -> None:
        """Events are durable: sessions move on, and what the events reported counts as any outcome."""
        self._maker.apply(change)
        for credited, receipt in change.noted:
            self._count("void" if credited.voids else credited.kind, receipt)
        for miss in change.missed:
            self._metrics.uncredited.labels(miss.stage, miss.kind, miss.reason).inc()
