"""Learner of a simulation: what is settled and what is open at each stage of an app, and the snapshots that follow.

It folds into the same `bandit.learning.statistics` as the service's learner, for whole batches at once and without a
ledger between, so that the same decisions and outcomes give the same bits. Shapes: n rows, d features, k arms.
"""

from collections.abc import Mapping
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from bandit import engine
from bandit.arrays import Array, Ints, Mask
from bandit.belief import Belief
from bandit.catalogue.model import Stage
from bandit.engine import PreparedPolicy
from bandit.learning import pending
from bandit.learning.loss import ExposureLog, closed
from bandit.learning.loss_account import Exposures
from bandit.learning.pending import OpenDecisions
from bandit.learning.statistics import SettledRows, StageStatistics, nothing
from bandit.snapshot import Snapshot, pooled


class LearningRows(NamedTuple):
    """Columns of n decisions to learn from. `reward` (n,) is on [0, 1], as the window of the decision will end; `mean`
    and `sd` (n,) are what the policy of `version` expected of the arm that was shown. Times in µs; `answered` is when a
    reward comes within the window, 0 if none does.
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
    propensity: Array  # (n, k)
    baseline: Array  # (n,) what was expected of no nudge
    eligible: Mask  # (n, k)

    def only(self, rows: NDArray[np.bool_]) -> "LearningRows":
        """The decisions where `rows` (n,) is True."""
        return LearningRows._make(part[rows] for part in self)


class SimulatedLearner:
    """Learner of one app in a simulation. `prepared` holds the policy that decides at each stage until the next `tick`.

    A simulation puts the decisions of a step in, then ticks: what has matured is settled and folded, what is open is
    laid over it, and every stage's snapshot is prepared anew where something changed.
    """

    def __init__(self, app: str, stages: Mapping[str, Stage]):
        self._app, self._stages, self._settled = app, dict(stages), 0
        self._statistics = {name: nothing(stage) for name, stage in stages.items()}
        self._exposed = {name: ExposureLog(s.spec, s.names, s.d) for name, s in self._statistics.items()}
        self._open: dict[str, list[LearningRows]] = {name: [] for name in stages}
        self._firm = self._pooled()
        self.prepared: dict[str, PreparedPolicy] = {
            name: closed(engine.prepare(snapshot)) for name, snapshot in self._firm.items()
        }

    @property
    def alarms(self) -> dict[str, int]:
        """How often each stage's watch for drift has raised one."""
        return {name: statistics.drift_state.epoch for name, statistics in self._statistics.items()}

    def put(self, stage: str, rows: LearningRows) -> None:
        """Decisions that were just made."""
        if not len(rows.arm):
            return
        self._open[stage].append(rows)
        self._exposed[stage].put(Exposures(rows.x, rows.propensity, rows.baseline, rows.eligible, rows.at))

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
                    self._statistics[name] = self._settle(name, rows.only(ripe), now)
        self._firm = self._pooled()
        seen = [msgspec.structs.replace(s, pending=self._so_far(name, now)) for name, s in self._firm.items()]
        for snapshot in pooled(seen):
            last = self.prepared[snapshot.stage].snapshot
            if snapshot.version != last.version or snapshot.pending is not None or last.pending is not None:
                self.prepared[snapshot.stage] = engine.prepare(snapshot)
        self.prepared = {name: self._exposed[name].accounted(live, now) for name, live in self.prepared.items()}

    def _pooled(self) -> dict[str, Snapshot]:
        settled = [statistics.snapshot(self._app, name) for name, statistics in self._statistics.items()]
        return {s.stage: s for s in pooled(settled)}

    def _settle(self, name: str, rows: LearningRows, now: int) -> StageStatistics:
        stage, live, n = self._stages[name], self._firm[name], len(rows.arm)
        x = stage.learner.design(rows.x, rows.arm, rows.propensity)
        tau, nu = stage.learner.sites(live.belief, live.arms, x, rows.arm, rows.reward)
        settled = SettledRows(
            seq=self._settled + 1 + np.arange(n),
            settled_at=np.full(n, now),
            arm=rows.arm,
            x=rows.x,
            reward=rows.reward,
            tau=tau,
            nu=nu,
            at=rows.at,
            expires=rows.expires,
            answered=rows.answered,
            mean=rows.mean,
            sd=rows.sd,
            version=rows.version,
            propensity=rows.propensity,
        )
        self._settled += n
        return self._statistics[name].fold(settled)._replace(version=self._settled)

    def _so_far(self, name: str, now: int) -> Belief | None:
        """What open decisions say at `now`."""
        if not self._open[name]:
            return None
        (rows,) = self._open[name]
        known = (rows.answered > 0) & (rows.answered <= now)
        reward = np.where(known, rows.reward, self._stages[name].reward.scaled(self._stages[name].reward.default))
        answered = np.where(known, rows.answered, 0)
        times = (rows.at, rows.expires, answered)
        seen = OpenDecisions(np.arange(len(rows.arm)), rows.arm, *times, reward, rows.x, rows.propensity)
        return pending.amounts_to(self._firm[name], seen, self._statistics[name].delays, now)
