"""What the ledger's settlements of a stage amount to: sums of each epoch, counts of delays, the watch for drift.

A tally has a row for each arm that the stage declared under its present schema: the declared ones first, in their
order, then the retired ones by name. It is kept in the ledger beside the settlements, and can be counted again from
them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

import msgspec
import numpy as np

from api.stores.protocol import DecisionRecord, LedgerPosition, Store
from bandit import features
from bandit.arrays import Array
from bandit.belief import Belief, add, empty
from bandit.catalogue.model import Stage
from bandit.learning import delay, drift
from bandit.learning.drift import DriftState
from bandit.learning.pending import answered, lateness
from bandit.learning.recoding import contexts
from bandit.learning.settlement import contribution
from bandit.policies.protocol import RetiredArms
from bandit.records import Decision, Outcome, Settlement
from bandit.snapshot import Snapshot

Settled = tuple[Decision, Sequence[Outcome], Settlement]

_BATCH = 5000


class WarmStart(msgspec.Struct, frozen=True, kw_only=True):
    """A log that was learned from before: what each of its rows counts, and the first decision that knows of it."""

    weight: float
    rows: int
    digest: str
    since: int


class StageStatistics(NamedTuple):
    """`retired`: name → type. `epochs`: sums of each, oldest first, over `rows`. `delays`: (names, buckets)."""

    spec: Stage
    retired: dict[str, str]
    version: int
    watch: DriftState
    epochs: tuple[Belief, ...]
    delays: Array
    warm: Belief | None = None  # of the declared arms, each row with its weight

    @property
    def names(self) -> tuple[str, ...]:
        """Every arm that is known."""
        return (*self.spec.arms, *self.retired)

    @property
    def rows(self) -> tuple[str, ...]:
        """Names of the rows of its sums."""
        return self.spec.belief_rows(self.names)

    @property
    def d(self) -> int:
        """Columns of x."""
        return int(self.epochs[0].shift.shape[1])

    def snapshot(self, app: str, name: str) -> Snapshot:
        """What has settled, each epoch with its weight."""
        total, k, n = drift.weighed(self.spec.drift, self.epochs), len(self.spec.arms), len(self.names)
        gone = RetiredArms(tuple(self.retired), tuple(self.retired.values()), total.precision[k:n], total.shift[k:n])
        mine = [self.rows.index(row) for row in self.spec.belief_rows(self.spec.arms)]
        belief = Belief(*(part[mine] for part in total))
        belief = belief if self.warm is None else add(belief, self.warm)
        return Snapshot(app, name, self.spec, self.version, belief, retired=gone if self.retired else None)

    def answers(self, rows: Iterable[Settled]) -> Array:
        """Counts of how late learned decisions were answered, (names, buckets)."""
        late = [
            (self.names.index(done.arm), d.at, d.expires, answered(outcomes))
            for d, outcomes, done in rows
            if done.learned and done.why != "silence" and done.arm in self.names
        ]
        table = np.array(late, dtype=np.int64).reshape(-1, 4)
        return delay.counted(len(self.names), table[:, 0], lateness(table[:, 1], table[:, 2], table[:, 3]))


def statistics_key(name: str, stage: Stage) -> str:
    """Under which name the ledger keeps what a stage has learned: each schema has its own."""
    return name if stage.schema == 1 else f"{name}#{stage.schema}"


def epoch_key(name: str, stage: Stage, epoch: int, epochs: int) -> str:
    """Where the ledger keeps an epoch's sums."""
    return statistics_key(name, stage) if epoch == epochs - 1 else f"{statistics_key(name, stage)}@{epoch}"


def facts_of(name: str, tally: StageStatistics) -> dict[str, str]:
    """The tally's watch and delays as the ledger keeps them."""
    own = statistics_key(name, tally.spec)
    delays = {arm: row.astype(int).tolist() for arm, row in zip(tally.names, tally.delays, strict=True) if row.any()}
    return {
        f"watch:{own}": msgspec.json.encode(tally.watch).decode(),
        f"delays:{own}": msgspec.json.encode(delays).decode(),
    }


def tallies(store: Store, stages: Mapping[str, Stage]) -> dict[str, StageStatistics]:
    """The stages' tallies as the ledger keeps them."""
    return {name: _stored(store, name, stage) for name, stage in stages.items()}


def _stored(store: Store, name: str, stage: Stage) -> StageStatistics:
    """Its parts are of one version, also while a service writes."""
    while (tally := _read(store, name, stage)).version != store.version(name):
        pass
    return tally


def _read(store: Store, name: str, stage: Stage) -> StageStatistics:
    version, meta = store.version(name), store.meta()
    watch = msgspec.json.decode(meta.get(f"watch:{statistics_key(name, stage)}", "{}"), type=DriftState)
    gone, d = retired(store, meta, name, stage), len(features.of(stage).columns)
    names = (*stage.arms, *gone)
    rows = stage.belief_rows(names)
    epochs = [store.belief(epoch_key(name, stage, e, watch.epoch + 1), rows, d)[0] for e in range(watch.epoch + 1)]
    found = msgspec.json.decode(meta.get(f"delays:{statistics_key(name, stage)}", "{}"), type=dict[str, list[int]])
    delays = np.array([found.get(arm, [0] * delay.BUCKETS) for arm in names], dtype=np.float64)
    return StageStatistics(stage, gone, version, watch, tuple(epochs), delays, warmed(store, meta, name, stage))


def warmed(
    store: Store, meta: Mapping[str, str], name: str, stage: Stage, decision: int | None = None
) -> Belief | None:
    """The weighted sums of the log that the stage began with, if any, as `decision` knew them."""
    text = meta.get(f"warm:{statistics_key(name, stage)}")
    if text is None:
        return None
    warm = msgspec.json.decode(text, type=WarmStart)
    if decision is not None and decision < warm.since:
        return None
    d = len(features.of(stage).columns)
    sums, _ = store.belief(f"{statistics_key(name, stage)}@warm", stage.belief_rows(stage.arms), d)
    return Belief(*(warm.weight * part for part in sums))


def retired(
    store: Store, meta: Mapping[str, str], name: str, stage: Stage, through: int | None = None
) -> dict[str, str]:
    """Nudges that the stage declared under its schema and does not declare now, with their types.

    through: as things stood when this decision was made.
    """
    specs, gone = store.specs(), dict[str, str]()
    for era in sorted(k for k in meta if k.startswith("era:")):
        if through is None or int(era.removeprefix("era:")) <= through:
            spec = specs.get(msgspec.json.decode(meta[era], type=dict[str, str]).get(name, ""))
            if spec is not None and spec.schema == stage.schema:
                gone |= {nudge: declared.type for nudge, declared in spec.nudges.items()}
    return {nudge: gone[nudge] for nudge in sorted(gone.keys() - set(stage.arms))}


def recounted(
    store: Store, name: str, stage: Stage, through: int | None = None, decision: int | None = None
) -> tuple[StageStatistics, int]:
    """The tally from scratch over the stage's settlements, and how many there are.

    With `through`, as it was when that many of the ledger's settlements had been learned, and `decision` was made.
    Alarms are facts of the ledger: those that had been raised by then count.
    """
    meta = store.meta()
    watch = msgspec.json.decode(meta.get(f"watch:{statistics_key(name, stage)}", "{}"), type=DriftState)
    if through is not None:
        watch = DriftState(alarms=tuple(a for a in watch.alarms if a.through <= through))
    gone = retired(store, meta, name, stage, decision)
    names = (*stage.arms, *gone)
    zero = empty(len(stage.belief_rows(names)), len(features.of(stage).columns))
    tally = StageStatistics(
        spec=stage,
        retired=gone,
        version=store.version(name) if through is None else through,
        watch=watch,
        epochs=(zero,) * (watch.epoch + 1),
        delays=np.zeros((len(names), delay.BUCKETS)),
        warm=warmed(store, meta, name, stage, decision),
    )
    settled = _settled(store, name, int(meta.get(f"since:{statistics_key(name, stage)}", 0)), through)
    count = 0
    while batch := list(islice(settled, _BATCH)):
        tally, count = _with(tally, batch, store.specs()), count + len(batch)
    return tally, count


def _settled(store: Store, name: str, after: int, through: int | None) -> Iterator[Settled]:
    end = store.last().settlement if through is None else through
    for found in store.decisions(name):
        done = found.settlement
        if done is not None and after < done.seq <= end:
            yield found.decision, found.outcomes, done


def _with(tally: StageStatistics, batch: Sequence[Settled], specs: Mapping[str, Stage]) -> StageStatistics:
    rows = [(decision, done) for decision, _, done in batch if done.learned]
    of = np.array([drift.epoch_of(tally.watch, done.seq) for _, done in rows])
    epochs = list(tally.epochs)
    for e in np.unique(of).tolist():
        mine = [row for row, epoch in zip(rows, of, strict=True) if epoch == e]
        x = contexts(np.array([d.x for d, _ in mine]), [d.stage_digest for d, _ in mine], specs, tally.spec)
        epochs[e] = add(epochs[e], contribution(tally.spec, [done for _, done in mine], x, tally.names))
    return tally._replace(epochs=tuple(epochs), delays=tally.delays + tally.answers(batch))


def open_at(store: Store, name: str, found: DecisionRecord) -> Iterator[DecisionRecord]:
    """The stage's decisions that were open when what `found` was made with was published."""
    basis = found.decision.pending_basis
    return store.open_decisions(
        name, LedgerPosition(basis.decisions, basis.outcomes, found.decision.settlement_version)
    )
