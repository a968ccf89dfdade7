"""Statistics store: the statistics of a ledger's stages, loaded as they are kept, counted again from the settlements,
and written. The only code that turns `bandit.learning.statistics.StageStatistics` into rows and back.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice

import numpy as np

from api.ledger import nudges
from api.stores.decision_log import LAST, DecisionRecord, LedgerPosition, SettledDecision
from api.stores.learning_state import StatisticsKey, StatisticsUpdate
from api.stores.protocol import Store
from bandit import features
from bandit.arrays import Array
from bandit.belief import Belief
from bandit.catalogue.model import Stage
from bandit.learning import delay, rewards
from bandit.learning.drift import DriftState
from bandit.learning.nudge_price import NudgeSums
from bandit.learning.statistics import StageStatistics, nothing, settled_rows
from bandit.records import Decision, Outcome, Settlement
from bandit.reporters import acknowledgements
from bandit.reporters.reward_watch import RewardWatch, WatchedReward, scan

_BATCH = 5000


def key_of(name: str, stage: Stage) -> StatisticsKey:
    """Key under which the ledger keeps the statistics of a stage as it is declared: its name and schema."""
    return StatisticsKey(name, stage.schema)


def load(store: Store, stages: Mapping[str, Stage]) -> dict[str, StageStatistics]:
    """Statistics of the stages as the ledger keeps them, by name; each stage's are of one version, also while a service
    writes. Called by the learner at the start, and by audits.
    """
    return {name: _stored(store, name, stage) for name, stage in stages.items()}


def _stored(store: Store, name: str, stage: Stage) -> StageStatistics:
    empty = nothing(stage, retired(store, name, stage))
    found = store.statistics(key_of(name, stage), empty.rows, empty.d)
    return empty._replace(
        version=found.version,
        drift_state=found.drift_state,
        epochs=found.epochs,
        delays=_table(found.delays or {}, empty.names),
        warm=warm_sums(store, name, stage),
        nudges=found.nudges,
        reward_watch=found.reward_watch,
    )


def recount(
    store: Store, name: str, stage: Stage, through: int | None = None, decision: int | None = None
) -> tuple[StageStatistics, int]:
    """Statistics counted from scratch over the stage's settlements, and how many settlements there are.

    With `through`, as they were when that many of the ledger's settlements had been learned, and decision number
    `decision` was made. Alarms are facts of the ledger: those that had been raised by then count.
    """
    state = store.statistics(key_of(name, stage), (), 0).drift_state
    if through is not None:
        state = DriftState(alarms=tuple(alarm for alarm in state.alarms if alarm.through <= through))
    counted = nothing(stage, retired(store, name, stage, decision), state)
    log = settled(store, name, store.first_settlement(key_of(name, stage)), through)
    rows, specs = 0, store.specs()
    while batch := list(islice(log, _BATCH)):
        counted = counted.fold(settled_rows(counted, batch, specs, nudges.past(store)), alarms_known=True)
        rows += len(batch)
    version = store.version(name) if through is None else through
    return counted._replace(version=version, warm=warm_sums(store, name, stage, decision)), rows


def without(store: Store, statistics: StageStatistics, settled: Sequence[SettledDecision]) -> StageStatistics:
    """Statistics as if these settled decisions had not been: what they added is taken out, to the bit. Called where
    decisions are forgotten, and where they are corrected. `version` is left to the caller.
    """
    return statistics.without(settled_rows(statistics, settled, store.specs(), nudges.past(store)))


def update_of(name: str, now: StageStatistics, before: StageStatistics | None = None) -> StatisticsUpdate | None:
    """Update that makes the ledger keep the statistics `now` if it keeps `before`: only what differs. None if nothing
    does. Without `before`, all of `now`.
    """
    kept = before.epochs if before else ()
    epochs = {e: sums for e, sums in enumerate(now.epochs) if e >= len(kept) or sums is not kept[e]}
    drift_state = None if before and now.drift_state == before.drift_state else now.drift_state
    same_delays = before is not None and np.array_equal(now.delays, before.delays)
    before_nudges = before.nudges if before else NudgeSums()
    changed = None if now.nudges == before_nudges else now.nudges
    watch = None if now.reward_watch == (before.reward_watch if before else RewardWatch()) else now.reward_watch
    if not epochs and drift_state is None and same_delays and changed is None and watch is None:
        return None
    counts = {arm: row.astype(int).tolist() for arm, row in zip(now.names, now.delays, strict=True) if row.any()}
    delays = None if same_delays else counts
    return StatisticsUpdate(
        key_of(name, now.spec), now.rows, epochs, drift_state, delays, nudges=changed, reward_watch=watch
    )


def watched(
    statistics: StageStatistics, settled: Sequence[tuple[Decision, tuple[Outcome, ...], Settlement]]
) -> StageStatistics:
    """Statistics with the reward watch after these settlements, which come in their order. Of what is neither learned
    nor held, and where the stage wants no alarm, nothing is seen.
    """
    if statistics.spec.reward_alarm == "none":
        return statistics
    scaled = statistics.spec.reward.scaled
    rows = [
        WatchedReward(done.seq, done.at, done.arm, min(max(scaled(done.reward), 0.0), 1.0), _reporters(outcomes, done))
        for _, outcomes, done in settled
        if done.learned or done.why == "held"
    ]
    return statistics._replace(reward_watch=scan(statistics.reward_watch, rows))


def _reporters(outcomes: Sequence[Outcome], done: Settlement) -> frozenset[str]:
    """Keys that reported the rewards that count; nobody, if none does."""
    if done.why not in ("reward", "held"):
        return frozenset()
    return frozenset(o.reporter for o in rewards.in_force(outcomes) if o.kind == "reward" and o.reporter)


def holds(store: Store, key: StatisticsKey) -> Callable[[int], frozenset[str]]:
    """Keys whose rewards a settlement of this number holds, at a stage and under a schema."""
    alarms = store.statistics(key, (), 0).reward_watch.alarms
    acknowledged = [one for one in store.acknowledgements() if one.stage == key.stage]
    return lambda number: acknowledgements.held(alarms, acknowledged, number) if alarms else frozenset()


def held_then(store: Store, key: StatisticsKey, through: int, at: int) -> frozenset[str]:
    """Keys whose rewards taught a snapshot nothing that had learned the settlements up to number `through`, and was
    made at `at` (µs).
    """
    alarms = [alarm for alarm in store.statistics(key, (), 0).reward_watch.alarms if alarm.through <= through]
    known = [one for one in store.acknowledgements() if one.stage == key.stage and one.at <= at]
    return acknowledgements.held(alarms, known, LAST)


def replace(store: Store, name: str, statistics: StageStatistics) -> None:
    """Write all statistics of a stage, whatever the ledger keeps, in one transaction; for `claim`, when what was
    learned was summed again.
    """
    update = update_of(name, statistics)
    assert update is not None  # noqa: S101 - without `before` everything is new
    store.replace_statistics(update)


def warm_sums(store: Store, name: str, stage: Stage, decision: int | None = None) -> Belief | None:
    """Weighted sums (a belief over the stage's rows and columns) of the log that a stage began with, as decision number
    `decision` knew them; None without a warm start, or before it.
    """
    found = store.warm_start(key_of(name, stage), stage.belief_rows(stage.arms), len(features.of(stage).columns))
    if found is None or (decision is not None and decision < found[0].since):
        return None
    warm, sums = found
    return Belief(*(warm.weight * part for part in sums))


def retired(store: Store, name: str, stage: Stage, through: int | None = None) -> dict[str, str]:
    """Nudges that a stage declared earlier under its schema and does not declare now, with their types, by name in
    order: the ledger keeps their rows. With `through`, as things stood when the decision of that number was made.
    """
    specs, gone = store.specs(), dict[str, str]()
    for era in store.declarations().eras:
        if through is None or era.first <= through:
            spec = specs.get(era.digests.get(name, ""))
            if spec is not None and spec.schema == stage.schema:
                gone |= {nudge: declared.type for nudge, declared in spec.nudges.items()}
    return {nudge: gone[nudge] for nudge in sorted(gone.keys() - set(stage.arms))}


def open_at(store: Store, name: str, found: DecisionRecord) -> Iterator[DecisionRecord]:
    """Decisions of a stage that were open when the snapshot that decided `found` was published, in order, with the
    outcomes known then.
    """
    basis = found.decision.pending_basis
    at = LedgerPosition(basis.decisions, basis.outcomes, found.decision.settlement_version)
    return store.open_decisions(name, at)


def settled(store: Store, name: str, after: int, through: int | None) -> Iterator[SettledDecision]:
    """Settled decisions of a stage, in the order of the decisions: those first settled above number `after`, each as it
    had settled up to `through`, if that is given.
    """
    end = store.last().settlement if through is None else through
    for found in store.decisions(name):
        done = found.settled(end)
        if done is not None and after < done[2].first:
            yield done


def _table(delays: Mapping[str, object], names: tuple[str, ...]) -> Array:
    """Counts (k, B) of the named arms."""
    return np.array([delays.get(arm, [0] * delay.BUCKETS) for arm in names], dtype=np.float64)
