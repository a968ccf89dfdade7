"""Learner of a simulation: what is settled and what is open at each stage of an app, and the snapshots that follow.

It folds into the same `bandit.learning.statistics` as the service's learner, for whole batches at once and without a
ledger between, so that the same decisions and outcomes give the same bits. Shapes: n rows, d features, k arms.
"""

from collections.abc import Mapping, Sequence
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
from bandit.learning.loss_account import DAY, Exposures
from bandit.learning.nudge_price import MOST_EARLIER, EarlierDecisions, NudgePrice, RecentNudges, recent
from bandit.learning.pending import OpenDecisions
from bandit.learning.statistics import SettledRows, StageStatistics, nothing
from bandit.policies import Centred
from bandit.snapshot import Snapshot, pooled


class LearningRows(NamedTuple):
    """Columns of n decisions to learn from. `reward` (n,) is on [0, 1], as the window of the decision will end; `mean`
    and `sd` (n,) are what the policy of `version` expected of the arm that was shown. Times in µs; `answered` is when a
    reward comes within the window, 0 if none does. `user`: number of the person; `opted_out`: whether the person
    switched nudges off after it.
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
    user: Ints
    opted_out: Mask
    recent: RecentNudges | None = None  # what they found of their persons' past; the learner puts it in

    def only(self, rows: NDArray[np.bool_]) -> "LearningRows":
        """The decisions where `rows` (n,) is True."""
        past = None if self.recent is None else self.recent.only(rows)
        return LearningRows._make([*(part[rows] for part in self[:-1]), past])


class VisitHistory:
    """Newest decisions of every person at any stage, MOST_EARLIER at most, as a service reads them from its ledger.
    Mutable, of one thread.
    """

    def __init__(self) -> None:
        self._count = np.zeros(0, dtype=np.int64)  # (N,) decisions of each person
        self._kept = EarlierDecisions.none(0)  # (N, m), in turn

    def found(self, user: Ints, at: Ints, opted_out: Mask) -> RecentNudges:
        """What n decisions made now find of their persons' past."""
        self._grow(int(user.max(initial=-1)) + 1)
        m = min(int(self._count[user].max(initial=0)), MOST_EARLIER)
        mine = EarlierDecisions._make(part[user, :m] for part in self._kept)
        return recent(at, mine, opted_out, np.ones(len(at), dtype=bool), np.full(len(at), float(DAY)))

    def put(self, user: Ints, at: Ints, nudge: Mask, propensity: Array, opted_out: Mask) -> None:
        """Keep n decisions, each of another person."""
        place = user, self._count[user] % MOST_EARLIER
        new = at, nudge, propensity, opted_out, np.ones(len(at), dtype=bool)
        for part, values in zip(self._kept, new, strict=True):
            part[place] = values
        self._count[user] += 1

    def _grow(self, people: int) -> None:
        before = self._kept
        if people > len(self._count):
            n = max(people, 2 * len(self._count)) - len(self._count)
            self._count = np.concatenate([self._count, np.zeros(n, dtype=np.int64)])
            more = (np.zeros((n, MOST_EARLIER), dtype=part.dtype) for part in before)
            self._kept = EarlierDecisions._make(
                np.concatenate([part.reshape(-1, MOST_EARLIER), new]) for part, new in zip(before, more, strict=True)
            )


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
        self._history = VisitHistory()
        self._priced = any(isinstance(stage.learner, Centred) for stage in stages.values())
        self._firm = self._pooled()
        self.prepared: dict[str, PreparedPolicy] = {
            name: closed(engine.prepare(snapshot)) for name, snapshot in self._firm.items()
        }

    @property
    def alarms(self) -> dict[str, int]:
        """How often each stage's watch for drift has raised one."""
        return {name: statistics.drift_state.epoch for name, statistics in self._statistics.items()}

    @property
    def prices(self) -> dict[str, NudgePrice]:
        """Price of a nudge at each stage that learns one, of what has settled."""
        return {name: s.nudge_price for name, s in self._firm.items() if s.nudge_price is not None}

    def put(self, stage: str, rows: LearningRows) -> None:
        """Decisions that were just made."""
        if not len(rows.arm):
            return
        if self._priced:
            rows = rows._replace(recent=self._history.found(rows.user, rows.at, rows.opted_out))
            self._history.put(rows.user, rows.at, rows.arm > 0, 1.0 - rows.propensity[:, 0], rows.opted_out)
        self._open[stage].append(rows)
        day = np.floor(rows.at / DAY).astype(np.int64)
        self._exposed[stage].put(Exposures(rows.x, rows.propensity, rows.baseline, rows.eligible, rows.at, day))

    def tick(self, now: int) -> None:
        """Settle what has matured by `now` (µs), and decide from now on with what is known then."""
        for name, waiting in self._open.items():
            if waiting:
                rows = _joined(waiting) if len(waiting) > 1 else waiting[0]
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
            recent=rows.recent if isinstance(stage.learner, Centred) else None,
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
        every = np.ones(len(rows.arm), dtype=bool)
        seen = OpenDecisions(np.arange(len(rows.arm)), rows.arm, *times, reward, rows.x, rows.propensity, every)
        return pending.amounts_to(self._firm[name], seen, self._statistics[name].delays, now)


def _joined(parts: Sequence[LearningRows]) -> LearningRows:
    past = [part.recent for part in parts if part.recent is not None]
    columns = (np.concatenate(column) for column in zip(*(part[:-1] for part in parts), strict=True))
    both = RecentNudges._make(map(np.concatenate, zip(*past, strict=True))) if past else None
    return LearningRows._make([*columns, both])
