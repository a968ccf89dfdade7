"""The service's learning, in arrays: sites of matured rows, exact sums by epoch, alarms of drift, pooled snapshots.

It calls the functions that the service's learner calls, for whole batches at once, without a ledger between.

Shapes: n rows, d features, k arms.
"""

from collections.abc import Mapping
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from bandit import drift, engine, features
from bandit.belief import Belief, add, empty, sites
from bandit.catalogue import Stage
from bandit.drift import SURE, Seen, Watch
from bandit.engine import Live
from bandit.log import Array
from bandit.snapshot import Snapshot, pooled


class Matured(NamedTuple):
    """Rows of one stage whose window has ended. `reward` in its own units; mean and sd are of the arm shown."""

    x: Array  # (n, d)
    arm: NDArray[np.intp]  # (n,)
    reward: Array  # (n,)
    mean: Array  # (n,)
    sd: Array  # (n,)
    version: NDArray[np.int64]  # (n,)


class Brain:
    """What an app has learned. `lives` decides until the next `learn`."""

    def __init__(self, app: str, stages: Mapping[str, Stage]):
        self._epochs: dict[str, tuple[Belief, ...]] = {}
        self._settled = 0
        snapshots = []
        for name, stage in stages.items():
            self._epochs[name] = (empty(len(stage.arms), len(features.schema(stage.features).columns)),)
            snapshots.append(Snapshot(app, name, stage, 0, self._epochs[name][0]))
        self.watches = dict.fromkeys(stages, Watch())
        self.lives: dict[str, Live] = {}
        self._publish(snapshots)

    def learn(self, matured: Mapping[str, Matured], at: int) -> None:
        """Add what matured at time `at` (microseconds) to the sums, and publish. Nothing matured: nothing changes."""
        snapshots = []
        for name, live in self.lives.items():
            rows = matured.get(name)
            if rows is None or not len(rows.arm):
                snapshots.append(live.snapshot)
                continue
            self._add(name, live.snapshot, rows, at)
            self._settled += len(rows.arm)
            belief = drift.weighed(live.snapshot.spec.drift, self._epochs[name])
            snapshots.append(msgspec.structs.replace(live.snapshot, version=self._settled, belief=belief))
        if any(len(rows.arm) for rows in matured.values()):
            self._publish(snapshots)

    def _add(self, name: str, snapshot: Snapshot, rows: Matured, at: int) -> None:
        stage, arms = snapshot.spec, snapshot.spec.arms
        k = len(arms)
        low, high = stage.reward.min, stage.reward.max
        reward = (np.clip(rows.reward, low, high) - low) / (high - low)
        tau, nu = stage.learner.sites(snapshot.belief, snapshot.arms, rows.x, rows.arm, reward)
        sure = np.flatnonzero(rows.sd <= SURE * rows.mean * (1.0 - rows.mean) + 1e-3)  # `scan` decides; others cannot
        seen = [
            Seen(self._settled + i + 1, at, arms[a], y, q, sd, version)
            for i, a, y, q, sd, version in zip(
                *(part.tolist() for part in (sure, rows.arm[sure], reward[sure], rows.mean[sure], rows.sd[sure])),
                rows.version[sure].tolist(),
                strict=True,
            )
        ]
        watch = drift.scan(stage.drift, self.watches[name], seen)
        parts = list(self._epochs[name])
        parts += [empty(k, rows.x.shape[1])] * (watch.epoch + 1 - len(parts))
        ends = np.array([alarm.through for alarm in watch.alarms])
        epoch = np.searchsorted(ends, self._settled + np.arange(1, len(rows.arm) + 1), side="left")
        for e in np.unique(epoch).tolist():
            mine = epoch == e
            made = sites(k, rows.x[mine], rows.arm[mine], tau[mine], nu[mine], reward[mine])
            parts[e] = add(parts[e], made)
        self.watches[name], self._epochs[name] = watch, tuple(parts)

    def _publish(self, snapshots: list[Snapshot]) -> None:
        for snapshot in pooled(snapshots):
            last = self.lives.get(snapshot.stage)
            if last is None or last.snapshot.version != snapshot.version:
                self.lives[snapshot.stage] = engine.ready(snapshot)
