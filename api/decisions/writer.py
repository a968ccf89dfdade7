"""Writing of decisions and outcomes: durable first, then what was reserved is kept or given back, counted, answered.

Native calls, feature flags and rankings all write here, so that a conflict, a retry, an overloaded queue and a failing
disk mean the same for each of them.
"""

from collections.abc import Sequence

from prometheus_client import Counter, Histogram

from api.decisions.maker import DecisionMaker, PendingDecision
from api.learning.worker import Worker
from api.metrics import Metrics
from api.stores.decision_log import OutcomeReceipt, RecordedDecision
from api.stores.event_log import IngestResult
from api.stores.protocol import Store
from bandit.errors import Conflict, Overloaded
from bandit.records import Decision, Outcome


class DecisionWriter:
    """Writer of one app's decisions and outcomes, between the event loop and the ledger's thread.

    Guarantees: what `write` returns is durable; every reservation that `DecisionMaker.prepare` made is committed or
    cancelled exactly once, whatever happens between (a full queue, a failing disk, a caller that leaves). Belongs to
    one event loop.
    """

    def __init__(self, worker: Worker, maker: DecisionMaker, store: Store, metrics: Metrics):
        self._worker = worker
        self._maker = maker
        self._specs = store.specs()
        self._metrics = metrics
        self._made: dict[tuple[str, str, str], tuple[Counter, Histogram]] = {}  # by stage, arm and holdout
        worker.listen(self._ingested)

    async def write(
        self, pending: Sequence[PendingDecision], *, field: str = "decision_id", name: str = ""
    ) -> list[RecordedDecision | Conflict]:
        """Each decision as the ledger holds it, in order; one durable transaction for all.

        A decision whose id is in the ledger already is answered with the original (`duplicate`), or with a Conflict if
        the original was another request; `field` and `name` say how the caller knows the id. Raises Overloaded if
        nothing was written, and Unavailable if that is not known: then reservations stay, because a budget may last
        longer but must never be overspent.
        """
        try:
            written = self._worker.submit([one.decision for one in pending])
        except Overloaded:
            for one in pending:
                self._maker.cancel(one)
            raise
        recorded: Sequence[RecordedDecision] | None = None
        try:
            recorded, _ = await written
        finally:
            if recorded is None:  # not known to be durable, or the caller has left
                for one in pending:
                    self._maker.commit(one)
        return [self._concluded(one, kept, field, name) for one, kept in zip(pending, recorded, strict=True)]

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
    ) -> RecordedDecision | Conflict:
        if pending.reused:
            return recorded
        if recorded.duplicate:
            self._maker.cancel(pending)
            if recorded.decision.request != pending.decision.request:
                problem = f"{name or recorded.decision.id} was used for another request"
                return Conflict(field, problem, f"send a new {field.rpartition('_')[2]}, or repeat the same request")
        else:
            self._maker.commit(pending)
            self._count_decision(recorded.decision)
        return recorded

    def _count_decision(self, decision: Decision) -> None:
        spec, stage = self._specs[decision.stage_digest], decision.stage
        row = stage, spec.belief_row(decision.arm), str(decision.holdout).lower()
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
