"""Sufficient statistics of one stage: what its settlements amount to, and the fold that adds settlements to them.

The service folds what has just matured, a rebuild folds the whole ledger, the simulator folds simulated decisions: all
three call `StageStatistics.fold`, so that their sums have the same bits. Sums are exact (see `bandit.belief`): any
batching and any order end in the same statistics.

Shapes: n rows, k arms that are known, d features, B buckets of delay (`bandit.learning.delay`). Times in µs.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bandit import features
from bandit.arrays import Array, Ints
from bandit.belief import Belief, add, empty, subtract
from bandit.catalogue.model import Stage
from bandit.learning import delay, drift
from bandit.learning.drift import SURE, DriftState, Residual
from bandit.learning.nudge_price import NudgeSums, RecentNudges, SettledNudges, learned
from bandit.learning.pending import answered, lateness
from bandit.learning.recoding import contexts
from bandit.learning.settlement import propensities
from bandit.policies import Centred
from bandit.policies.protocol import RetiredArms
from bandit.records import Decision, Outcome, Settlement
from bandit.reporters.reward_watch import RewardWatch
from bandit.snapshot import Snapshot

PastNudges = Callable[[Sequence[tuple[Decision, Settlement]]], RecentNudges]
"""Finds out what settled decisions found of their persons' past."""


class SettledRows(NamedTuple):
    """Columns of n learned settlements of one stage, in the order of the ledger.

    Settlements that teach nothing (holdout, over limit, not activated, another schema, held) are left out. `arm` counts
    in the names of the statistics they are folded into, `x` is encoded as the stage declares it now, `reward` is on
    [0, 1]. `mean` and `sd` are what the policy of `version` expected of the arm that was shown. `recent`: what they
    found of their persons' past; None where the stage learns no price of a nudge.
    """

    seq: Ints  # (n,) number of the decision's first settlement
    settled_at: Ints  # (n,) µs
    arm: NDArray[np.intp]  # (n,)
    x: Array  # (n, d)
    reward: Array  # (n,)
    tau: Array  # (n,) of the site
    nu: Array  # (n,)
    at: Ints  # (n,) when the decision was made, µs
    expires: Ints  # (n,) end of its window, µs
    answered: Ints  # (n,) when the first reward or retraction came, µs; 0: nobody answered
    mean: Array  # (n,)
    sd: Array  # (n,)
    version: Ints  # (n,) settlements that the deciding policy had learned
    propensity: Array  # (n, k) of the arms that are known, as recorded
    recent: RecentNudges | None = None

    def only(self, rows: NDArray[np.bool_]) -> "SettledRows":
        """The rows where `rows` (n,) is True."""
        past = None if self.recent is None else self.recent.only(rows)
        return SettledRows._make([*(column[rows] for column in self[:-1]), past])


class StageStatistics(NamedTuple):
    """Sufficient statistics of a stage under one schema: an immutable value, derived from the ledger's settlements.

    `retired` names nudges that were declared under this schema and are not now, with their types: what they taught is
    kept. `epochs` are exact sums, one for each epoch between alarms of drift, oldest first, over `rows`; `delays` (k,
    B) counts how late answers came; `warm` is what a log from before taught, each row with its weight, over the
    declared arms. `nudges` are the sums, over all epochs, from which the price of a nudge follows. `version` is the
    number of the stage's last settlement. `reward_watch`: what the keys that report rewards are watched for; `fold`
    leaves it as it is.
    """

    spec: Stage
    retired: dict[str, str]
    version: int
    drift_state: DriftState
    epochs: tuple[Belief, ...]
    delays: Array
    warm: Belief | None = None
    nudges: NudgeSums = NudgeSums()
    reward_watch: RewardWatch = RewardWatch()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the k arms that are known: the declared ones in their order, then the retired ones by name."""
        return (*self.spec.arms, *self.retired)

    @property
    def rows(self) -> tuple[str, ...]:
        """Names of the rows of its sums: the arms, and for revenue the arms' amounts."""
        return self.spec.belief_rows(self.names)

    @property
    def d(self) -> int:
        """Columns of x."""
        return int(self.epochs[0].shift.shape[1])

    def snapshot(self, app: str, name: str) -> Snapshot:
        """Snapshot of what has settled: each epoch with its weight, open decisions and other stages left out."""
        total, k, n = drift.weighed(self.spec.drift, self.epochs), len(self.spec.arms), len(self.names)
        kinds = tuple(self.retired.values())
        gone = RetiredArms(tuple(self.retired), kinds, total.precision[k:n], total.shift[k:n]) if kinds else None
        policy = self.spec.learner
        price = learned(self.nudges, policy.prior_mean) if isinstance(policy, Centred) else None
        whole = self._declared(drift.summed(self.epochs)) if self.drift_state.epoch else None
        return Snapshot(
            *(app, name, self.spec, self.version, self._declared(total)),
            retired=gone,
            nudge_price=price,
            undiscounted=whole,
        )

    def _declared(self, sums: Belief) -> Belief:
        """Sums over the declared arms only, with what a warm start taught."""
        mine = [self.rows.index(row) for row in self.spec.belief_rows(self.spec.arms)]
        belief = Belief(*(part[mine] for part in sums))
        return belief if self.warm is None else add(belief, self.warm)

    def fold(self, rows: SettledRows, *, alarms_known: bool = False) -> "StageStatistics":
        """Statistics after `rows`, which follow those that were folded before; `version` is left to the caller.

        Residuals of the rows go through the stage's drift rule, and an alarm begins a new epoch. With `alarms_known`
        the alarms of `drift_state` are taken as they stand, as a rebuild does: an alarm is a fact of the ledger.
        """
        state = self.drift_state
        if not alarms_known:
            state = drift.scan(self.spec.drift, state, self._residuals(rows), _allowed(self.spec))
        zero = empty(len(self.rows), self.d)
        epochs = [*self.epochs, *[zero] * (state.epoch + 1 - len(self.epochs))]
        epoch, learner = drift.epochs_of(state, rows.seq), self.spec.learner
        for e in np.unique(epoch).tolist():
            part = rows.only(epoch == e)
            x = learner.design(part.x, part.arm, part.propensity)
            sums = learner.sums(len(self.names), x, part.arm, part.tau, part.nu, part.reward)
            epochs[e] = add(epochs[e], sums)
        came = rows.only(rows.answered > 0)
        late = lateness(came.at, came.expires, came.answered)
        delays = self.delays + delay.counted(len(self.names), came.arm, late)
        nudges = self.nudges
        if rows.recent is not None:
            nudges = nudges.plus(SettledNudges(rows.arm > 0, rows.reward, rows.mean), rows.recent)
        return self._replace(drift_state=state, epochs=tuple(epochs), delays=delays, nudges=nudges)

    def without(self, rows: SettledRows) -> "StageStatistics":
        """Statistics as if `rows`, which were folded before, had never been: the inverse of `fold`, to the bit. What
        the drift rule found stays: an alarm is a fact of the ledger. `version` is left to the caller.
        """
        zero = empty(len(self.rows), self.d)
        none = self._replace(epochs=(zero,) * len(self.epochs), delays=np.zeros_like(self.delays), nudges=NudgeSums())
        part = none.fold(rows, alarms_known=True)
        epochs = tuple(
            subtract(mine, theirs) if theirs is not zero else mine
            for mine, theirs in zip(self.epochs, part.epochs, strict=True)
        )
        delays, nudges = self.delays - part.delays, self.nudges.minus(part.nudges)
        return self._replace(epochs=epochs, delays=delays, nudges=nudges)

    def _residuals(self, rows: SettledRows) -> list[Residual]:
        """What the drift rule looks at: rows of declared arms. Rows of which too little was known, which `drift.scan`
        would pass over, are left out for speed.
        """
        sure = rows.sd <= SURE * np.maximum(rows.mean * (1.0 - rows.mean), 0.005)
        mine, arms = rows.only(sure & (rows.arm < len(self.spec.arms))), self.spec.arms
        columns = (mine.seq, mine.settled_at, mine.arm, mine.reward, mine.mean, mine.sd, mine.version)
        return [
            Residual(seq, at, arms[arm], reward, mean, sd, version)
            for seq, at, arm, reward, mean, sd, version in zip(*(c.tolist() for c in columns), strict=True)
        ]


def _allowed(spec: Stage) -> float:
    """Sds, as the policy samples it, that an expectation may be wrong by. For a centred policy they are two of its
    posterior: its people tire as it learns to reach them, which is no change of theirs.
    """
    learner = spec.learner
    return drift.ALLOWED / learner.alpha if isinstance(learner, Centred) else drift.ALLOWED


def nothing(
    stage: Stage, retired: Mapping[str, str] | None = None, drift_state: DriftState | None = None
) -> StageStatistics:
    """Statistics before any settlement: zeros for every epoch that `drift_state` knows of."""
    gone, state = dict(retired or {}), drift_state or DriftState()
    names = (*stage.arms, *gone)
    zero = empty(len(stage.belief_rows(names)), len(features.of(stage).columns))
    return StageStatistics(stage, gone, 0, state, (zero,) * (state.epoch + 1), np.zeros((len(names), delay.BUCKETS)))


def settled_rows(
    statistics: StageStatistics,
    settled: Sequence[tuple[Decision, Sequence[Outcome], Settlement]],
    specs: Mapping[str, Stage],
    past: PastNudges | None = None,
) -> SettledRows:
    """Rows of the ledger as columns that `statistics` folds: those that were learned, of arms that it knows.

    `specs`: digest → declaration of every stage that the ledger ever registered; each decision is read as it was
    declared, and its context is encoded again where the stage's ranges are wider now. `past` finds out what they
    found of their persons' past.
    """
    spec, index = statistics.spec, {arm: a for a, arm in enumerate(statistics.names)}
    rows = [row for row in settled if row[2].learned and row[2].arm in index]
    shown = [d.arms(specs[d.stage_digest].arms).index(d.arm) for d, _, _ in rows]
    x = np.array([d.x for d, _, _ in rows]).reshape(len(rows), statistics.d)
    silent = [done.why == "silence" for _, _, done in rows]
    came = [0 if no else max(answered(outcomes), 1) for no, (_, outcomes, _) in zip(silent, rows, strict=True)]
    return SettledRows(
        seq=_whole([done.first for _, _, done in rows]),
        settled_at=_whole([done.at for _, _, done in rows]),
        arm=np.array([index[done.arm] for _, _, done in rows], dtype=np.intp),
        x=contexts(x, [d.stage_digest for d, _, _ in rows], specs, spec),
        reward=spec.reward.all_scaled([done.reward for _, _, done in rows]),
        tau=np.array([done.tau for _, _, done in rows]),
        nu=np.array([done.nu for _, _, done in rows]),
        at=_whole([d.at for d, _, _ in rows]),
        expires=_whole([d.expires for d, _, _ in rows]),
        answered=_whole(came),
        mean=np.array([float(d.mean[a]) for (d, _, _), a in zip(rows, shown, strict=True)]),
        sd=np.array([float(d.sd[a]) for (d, _, _), a in zip(rows, shown, strict=True)]),
        version=_whole([d.settlement_version for d, _, _ in rows]),
        propensity=_recorded([d for d, _, _ in rows], specs, statistics.names),
        recent=past([(d, done) for d, _, done in rows]) if past and isinstance(spec.learner, Centred) else None,
    )


def _recorded(made: Sequence[Decision], specs: Mapping[str, Stage], names: tuple[str, ...]) -> Array:
    """Recorded propensities (n, k) over the arms `names`, of decisions under any declarations."""
    p = np.zeros((len(made), len(names)))
    for digest in {d.stage_digest for d in made}:
        mine = [i for i, d in enumerate(made) if d.stage_digest == digest]
        p[mine] = propensities([made[i] for i in mine], specs[digest].arms, names)
    return p


def _whole(values: Sequence[int]) -> Ints:
    return np.array(values, dtype=np.int64)
