"""The service's learning, in arrays: what is settled, exact sums by epoch, alarms of drift, what is open, snapshots.

It calls the functions that the service's learner calls, for whole batches at once, without a ledger between.

Shapes: n rows, d features, k arms.
"""

from collections.abc import Mapping
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from bandit import engine, features
from bandit.arrays import Array, Ints
from bandit.belief import Belief, add, empty
from bandit.catalogue.model import Stage
from bandit.engine import PreparedPolicy
from bandit.learning import delay, drift, pending, settlement
from bandit.learning.drift import SURE, DriftState, Residual
from bandit.learning.pending import OpenDecisions
from bandit.snapshot import Snapshot, pooled


class LearningRows(NamedTuple):
    """Decisions to learn from. Reward (n,) in [0, 1] units, as its window will end; mean and sd are of the arm shown.
    Times in µs; `answered` is when a reward comes within the window, 0 if none does.
    """

    x: Array  # (n, d)
    arm: NDArray[np.intp]  # (n,)
    reward: Array
    mean: Array
    sd: Array
    version: Ints
    at: Ints
    expires: Ints
    answered: Ints

    def only(self, rows: NDArray[np.bool_]) -> "LearningRows":
        """Some of the decisions."""
        return LearningRows._make(part[rows] for part in self)


class SettledSums(NamedTuple):
    """What a stage has settled: its epochs, how late answers came (k, B), the watch, and the version."""

    epochs: tuple[Belief, ...]
    delays: Array
    watch: DriftState
    version: int


class SimulatedLearner:
    """What an app has learned. `prepared` decides until the next `tick`."""

    def __init__(self, app: str, stages: Mapping[str, Stage]):
        self._app, self._stages, self._settled = app, dict(stages), 0
        self._sums = {name: _nothing(stage) for name, stage in stages.items()}
        self._open: dict[str, list[LearningRows]] = {name: [] for name in stages}
        self._firm = self._pooled()
        self.prepared: dict[str, PreparedPolicy] = {
            name: engine.prepare(snapshot) for name, snapshot in self._firm.items()
        }

    @property
    def alarms(self) -> dict[str, int]:
        """How often each stage's watch for drift has raised one."""
        return {name: sums.watch.epoch for name, sums in self._sums.items()}

    def put(self, stage: str, rows: LearningRows) -> None:
        """Decisions that were just made."""
        if len(rows.arm):
            self._open[stage].append(rows)

    def tick(self, now: int) -> None:
        """Settle what has matured by `now` (µs), and decide from now on with what is known then."""
        for name, waiting in self._open.items():
            if waiting:
                rows = (
                    LearningRows(*map(np.concatenate, zip(*waiting, strict=True))) if len(waiting) > 1 else waiting[0]
                )
                ripe = rows.expires <= now
                self._open[name] = [rows.only(~ripe)] if ripe.any() else [rows]
                if ripe.any():
                    self._sums[name] = self._settle(name, rows.only(ripe), now)
        self._firm = self._pooled()
        seen = [msgspec.structs.replace(s, pending=self._so_far(name, now)) for name, s in self._firm.items()]
        for snapshot in pooled(seen):
            last = self.prepared[snapshot.stage].snapshot
            if snapshot.version != last.version or snapshot.pending is not None or last.pending is not None:
                self.prepared[snapshot.stage] = engine.prepare(snapshot)

    def _pooled(self) -> dict[str, Snapshot]:
        snapshots = []
        for name, stage in self._stages.items():
            sums = self._sums[name]
            snapshots.append(Snapshot(self._app, name, stage, sums.version, drift.weighed(stage.drift, sums.epochs)))
        return {s.stage: s for s in pooled(snapshots)}

    def _settle(self, name: str, rows: LearningRows, now: int) -> SettledSums:
        stage, live, sums = self._stages[name], self._firm[name], self._sums[name]
        tau, nu = stage.learner.sites(live.belief, live.arms, rows.x, rows.arm, rows.reward)
        watch = drift.scan(stage.drift, sums.watch, _seen(stage, rows, self._settled, now))
        zero, k = empty(*sums.epochs[0].shift.shape), len(stage.arms)
        epochs = [*sums.epochs, *[zero] * (watch.epoch + 1 - len(sums.epochs))]
        ends = np.array([alarm.through for alarm in watch.alarms])
        epoch = np.searchsorted(ends, self._settled + 1 + np.arange(len(rows.arm)), side="left")
        for e in np.unique(epoch).tolist():
            part = epoch == e
            mine = rows.only(part)
            gained = settlement.sum_sites(stage, k, mine.x, mine.arm, tau[part], nu[part], mine.reward)
            epochs[e] = add(epochs[e], gained)
        came = rows.only(rows.answered > 0)
        late = pending.lateness(came.at, came.expires, came.answered)
        self._settled += len(rows.arm)
        return SettledSums(tuple(epochs), sums.delays + delay.counted(k, came.arm, late), watch, self._settled)

    def _so_far(self, name: str, now: int) -> Belief | None:
        """What open decisions say at `now`."""
        if not self._open[name]:
            return None
        (rows,) = self._open[name]
        known = (rows.answered > 0) & (rows.answered <= now)
        reward = np.where(known, rows.reward, self._stages[name].reward.scaled(self._stages[name].reward.default))
        answered = np.where(known, rows.answered, 0)
        seen = OpenDecisions(np.arange(len(rows.arm)), rows.arm, rows.at, rows.expires, answered, reward, rows.x)
        return pending.amounts_to(self._firm[name], seen, self._sums[name].delays, now)


def _nothing(stage: Stage) -> SettledSums:
    zero = empty(len(stage.belief_rows(stage.arms)), len(features.schema(stage.features).columns))
    return SettledSums((zero,), np.zeros((len(stage.arms), delay.BUCKETS)), DriftState(), 0)


def _seen(stage: Stage, rows: LearningRows, before: int, now: int) -> list[Residual]:
    """What the watch looks at. Rows that `scan` would pass over, because too little was known, are left out here."""
    sure = np.flatnonzero(rows.sd <= SURE * np.maximum(rows.mean * (1.0 - rows.mean), 0.005))
    parts = (rows.arm[sure], rows.reward[sure], rows.mean[sure], rows.sd[sure], rows.version[sure])
    arms = stage.arms
    return [
        Residual(before + i + 1, now, arms[a], y, q, sd, version)
        for i, a, y, q, sd, version in zip(sure.tolist(), *(part.tolist() for part in parts), strict=True)
    ]
