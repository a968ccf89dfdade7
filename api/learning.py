"""The learning step: what matured → settlements, sums, alarms of drift and a published snapshot of every stage.

It runs in the writer thread. Sums are kept for each epoch of a stage (see `bandit.drift`); those of the present epoch
stand in the ledger under the stage's name, those of epoch e that is over under "stage@e".
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby

import msgspec
import numpy as np

from api.metrics import Metrics
from api.stores.protocol import Store
from bandit import drift, engine, features, learner
from bandit.belief import Belief, add, empty
from bandit.catalogue import Catalogue, Stage
from bandit.drift import Seen, Watch
from bandit.engine import Live
from bandit.records import Decision, Matured, Settlement
from bandit.snapshot import Snapshot, pooled

Settled = Callable[[Iterable[tuple[Decision, Settlement]]], None]


class Learning:
    """`lives` holds the published snapshot of each stage: reading it is one reference, replacing it one assignment."""

    def __init__(self, store: Store, catalogue: Catalogue, metrics: Metrics, settled: Settled):
        self._store = store
        self._specs = store.specs()
        self._catalogue = catalogue
        self._metrics = metrics
        self._settled = settled  # told of what was settled, once it is durable
        self.load()

    def load(self) -> None:
        """Begin with what is in the ledger."""
        meta, snapshots = self._store.meta(), []
        self.watches: Mapping[str, Watch] = {n: watch_of(meta, n, s) for n, s in self._catalogue.stages.items()}
        self._epochs: Mapping[str, tuple[Belief, ...]] = {}
        for name, stage in self._catalogue.stages.items():
            epochs, version = stored(self._store, name, stage, self.watches[name].epoch)
            self._epochs = {**self._epochs, name: epochs}
            belief = drift.weighed(stage.drift, epochs)
            snapshots.append(Snapshot(self._catalogue.app, name, stage, version, belief))
        self.lives: Mapping[str, Live] = self._ready(snapshots, {})

    def step(self, now: int, most: int) -> int:
        """Settle what matured, at most so many, and publish; how many. Exactly once: one transaction.

        Each decision is settled by the rules it was made under. Those of a stage that was removed from the catalogue
        wait in the ledger.
        """
        matured = sorted(self._store.due(now, most, self._catalogue.stages), key=_declared)
        if not matured:
            return 0
        last, settlements = self._store.last_settlement(), list[Settlement]()
        epochs, watches = dict(self._epochs), dict(self.watches)
        for name, group in groupby(matured, key=lambda m: m.decision.stage):
            rows = list(group)
            done = self._settle(name, rows, now)
            numbers = range(last + len(settlements) + 1, last + len(settlements) + len(done) + 1)
            stage = self._catalogue.stages[name]
            watches[name] = drift.scan(stage.drift, watches[name], _seen(self._specs, stage, rows, done, numbers))
            epochs[name] = _summed(stage, epochs[name], watches[name], rows, done, numbers)
            settlements += done
        beliefs, facts = self._changed(epochs, watches)
        versions = self._store.settle(settlements, beliefs, facts)
        fresh = {}
        for name, version in versions.items():
            belief = drift.weighed(self._catalogue.stages[name].drift, epochs[name])
            fresh[name] = msgspec.structs.replace(self.lives[name].snapshot, version=version, belief=belief)
        self._epochs, self.watches = epochs, watches
        self.lives = self._ready([fresh.get(name, live.snapshot) for name, live in self.lives.items()], self.lives)
        by_seq = {m.seq: m.decision for m in matured}
        self._settled((by_seq[settlement.decision_seq], settlement) for settlement in settlements)
        for settlement in settlements:
            self._metrics.settlements.labels(settlement.stage, settlement.why).inc()
        return len(matured)

    def _settle(self, name: str, rows: list[Matured], now: int) -> list[Settlement]:
        live = self.lives[name].snapshot
        return [
            settlement
            for (_, spec), part in groupby(rows, key=_declared)
            for settlement in learner.settle(self._specs[spec], list(part), now, live=live)
        ]

    def _changed(
        self, epochs: Mapping[str, tuple[Belief, ...]], watches: Mapping[str, Watch]
    ) -> tuple[dict[str, tuple[tuple[str, ...], Belief]], dict[str, str]]:
        """Rows of the ledger that differ from what is in it: sums by stage and epoch, and watches."""
        beliefs, facts = {}, {}
        for name, parts in epochs.items():
            stage, before = self._catalogue.stages[name], self._epochs[name]
            for e in range(len(before) - 1, len(parts)):
                if e >= len(before) or parts[e] is not before[e] or len(parts) > len(before):
                    beliefs[key(name, stage, e, len(parts))] = stage.arms, parts[e]
            if watches[name] != self.watches[name]:
                facts[f"watch:{kept(name, stage)}"] = msgspec.json.encode(watches[name]).decode()
        return beliefs, facts

    def _ready(self, snapshots: Sequence[Snapshot], before: Mapping[str, Live]) -> dict[str, Live]:
        """What decides from now on. A stage about which nothing new is known keeps its posterior."""
        lives = {}
        for snapshot in pooled(snapshots):
            name, last = snapshot.stage, before.get(snapshot.stage)
            known = last is not None and last.snapshot.version == snapshot.version
            lives[name] = last if last is not None and known else engine.ready(snapshot)
            self._metrics.version.labels(name).set(snapshot.version)
            self._metrics.alarms.labels(name).set(self.watches[name].epoch)
        return lives


def kept(name: str, stage: Stage) -> str:
    """Under which name the ledger keeps what a stage has learned: each schema has its own."""
    return name if stage.schema == 1 else f"{name}#{stage.schema}"


def key(name: str, stage: Stage, epoch: int, epochs: int) -> str:
    """Where the ledger keeps an epoch's sums."""
    return kept(name, stage) if epoch == epochs - 1 else f"{kept(name, stage)}@{epoch}"


def watch_of(meta: Mapping[str, str], name: str, stage: Stage) -> Watch:
    """The stage's watch as the ledger has it."""
    return msgspec.json.decode(meta.get(f"watch:{kept(name, stage)}", "{}"), type=Watch)


def stored(store: Store, name: str, stage: Stage, alarms: int) -> tuple[tuple[Belief, ...], int]:
    """The sums of each epoch, oldest first, and the version."""
    d = len(features.schema(stage.features).columns)
    parts = [store.belief(key(name, stage, e, alarms + 1), stage.arms, d)[0] for e in range(alarms + 1)]
    return tuple(parts), store.version(name)


def _seen(
    specs: Mapping[str, Stage], stage: Stage, rows: list[Matured], done: list[Settlement], numbers: range
) -> list[Seen]:
    """What the watch looks at: learned rows of arms that are still declared."""
    seen = []
    for matured, settlement, seq in zip(rows, done, numbers, strict=True):
        decision = matured.decision
        spec = specs[decision.spec]
        if settlement.learned and decision.arm in stage.arms:
            a = spec.arms.index(decision.arm)
            reward = spec.reward.scaled(settlement.reward)
            expected = float(decision.mean[a]), float(decision.sd[a])
            seen.append(Seen(seq, settlement.at, decision.arm, reward, *expected, decision.version))
    return seen


def _summed(
    stage: Stage,
    epochs: tuple[Belief, ...],
    watch: Watch,
    rows: list[Matured],
    done: list[Settlement],
    numbers: range,
) -> tuple[Belief, ...]:
    """The sums with these rows added, each to its epoch."""
    parts = list(epochs)
    parts += [empty(*epochs[0].shift.shape)] * (watch.epoch + 1 - len(parts))
    of = np.array([drift.epoch_of(watch, seq) for seq in numbers])
    for e in np.unique(of).tolist():
        mine = [i for i in np.flatnonzero(of == e).tolist() if done[i].learned]
        if not mine:
            continue
        x = np.array([rows[i].decision.x for i in mine])
        parts[e] = add(parts[e], learner.contribution(stage, [done[i] for i in mine], x))
    return tuple(parts)


def _declared(matured: Matured) -> tuple[str, str]:
    """Stage, and digest of its declaration when the decision was made."""
    return matured.decision.stage, matured.decision.spec
