"""Open decisions: those whose window is open, as columns, and the belief that they amount to so far.

Columns belong to one thread: the learner's. What they amount to is a pure function of the rows, the time and the counts
of delays, so any past snapshot can be computed again from the ledger.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bandit.arrays import Array, Ints
from bandit.belief import Belief
from bandit.catalogue.model import Stage
from bandit.learning import delay, rewards
from bandit.learning.delay import AnswerDelays
from bandit.learning.recoding import recoded
from bandit.learning.settlement import propensities
from bandit.records import Decision, Outcome
from bandit.snapshot import Snapshot

_FIRST = 256  # rows there is room for at first


class OpenDecisions(NamedTuple):
    """Open decisions as n rows of columns, in the order of the ledger: numbers, arm indices, times in µs (`answered` 0
    where nobody has answered), reward (n,) in [0, 1], x (n, d), and propensities (n, k) of the arms declared now.
    """

    seq: Ints  # (n,)
    arm: Ints  # (n,)
    at: Ints  # (n,)
    expires: Ints  # (n,)
    answered: Ints  # (n,)
    reward: Array  # (n,) in [0, 1], what it would be if the window ended now
    x: Array  # (n, d)
    propensity: Array  # (n, k)


def row(seq: int, decision: Decision, outcomes: Sequence[Outcome], spec: Stage, live: Stage) -> OpenDecisions | None:
    """One open decision as columns of length 1, or None if it teaches `live`, the stage as declared now, nothing as
    things stand. `spec`: the stage under which it was made.
    """
    arm = spec.belief_row(decision.arm)
    if decision.holdout or arm not in live.arms or live.reward.settle == "reward":
        return None
    verdict = rewards.settle(
        spec, outcomes, holdout=False, current=spec.schema == live.schema, deferred=decision.deferred
    )
    if not verdict.learned:
        return None
    came = 0 if verdict.why == "silence" else answered(outcomes)
    times = (decision.at, decision.expires, came)
    numbers = [np.array([v], dtype=np.int64) for v in (seq, live.arms.index(arm), *times)]
    return OpenDecisions._make(
        [
            *numbers,
            np.array([spec.reward.scaled(verdict.reward)]),
            recoded(decision.x[None], spec, live),
            propensities([decision], spec.arms, live.arms),
        ]
    )


def answered(outcomes: Sequence[Outcome]) -> int:
    """Time (µs) at which the first reward or retraction in time was received, 0 if none was."""
    return min((o.received for o in rewards.in_force(outcomes) if o.kind != "activation"), default=0)


def lateness(at: Ints, expires: Ints, answered: Ints) -> Array:
    """Delays of answers as shares of the window, (n,), from times (n,) in µs."""
    return np.asarray(np.clip((answered - at) / np.maximum(expires - at, 1), 0.0, 1.0), dtype=np.float64)


class OpenDecisionTable:
    """Table of the open decisions of one stage, with room to grow: amortised appends. Mutable, of one thread, the
    learner's.
    """

    def __init__(self, k: int, d: int):
        self._rows = _room(_FIRST, k, d)
        self._place: dict[int, int] = {}  # seq → where its row is; rows that are in no place are dead
        self._n = 0

    def __len__(self) -> int:
        return len(self._place)

    def put(self, seq: int, new: OpenDecisions | None) -> None:
        """Add decision number `seq`, or replace what is known of it; `new` None: it teaches nothing as things stand, or
        is over.
        """
        if new is None:
            self._place.pop(seq, None)
            return
        if seq not in self._place:
            if self._n == len(self._rows.seq):
                self._grow()
            self._place[seq], self._n = self._n, self._n + 1
        for column, value in zip(self._rows, new, strict=True):
            column[self._place[seq]] = value[0]

    def rows(self) -> OpenDecisions:
        """Rows that are open now, as columns in the order of the ledger."""
        seqs = np.fromiter(self._place, dtype=np.int64, count=len(self._place))
        places = np.fromiter(self._place.values(), dtype=np.int64, count=len(self._place))
        return OpenDecisions._make(column[places[np.argsort(seqs)]] for column in self._rows)

    def _grow(self) -> None:
        """Forget the dead, and make room for twice as many as are left."""
        kept = self.rows()
        self._n = len(kept.seq)
        self._rows = _room(max(_FIRST, 2 * self._n), kept.propensity.shape[1], kept.x.shape[1])
        self._place = dict(zip(kept.seq.tolist(), range(self._n), strict=True))
        for column, values in zip(self._rows, kept, strict=True):
            column[: self._n] = values


def _room(n: int, k: int, d: int) -> OpenDecisions:
    numbers = [np.zeros(n, dtype=np.int64) for _ in range(5)]
    return OpenDecisions._make([*numbers, np.zeros(n), np.zeros((n, d)), np.zeros((n, k))])


def amounts_to(live: Snapshot, rows: OpenDecisions, counts: Array, now: int) -> Belief | None:
    """Provisional belief: what the open decisions say at `now` (µs), beyond the settled belief of `live`; None if there
    are none, if the stage waits for its windows to end, or if it declares no delay and no answer has come.

    counts: answers of settled decisions by arm and delay, (k, B), as `delay.counted`. The learner calls it for each
    snapshot; a receipt calls it again with the same rows and gets the same bits.
    """
    spec = live.stage_spec
    if not len(rows.seq) or spec.reward.waits:
        return None
    age = lateness(rows.at, rows.expires, np.full_like(rows.at, now))
    came = rows.answered > 0
    late = lateness(rows.at[came], rows.expires[came], rows.answered[came])
    answers = AnswerDelays(rows.arm[came], late, age[came])
    trust = delay.trust(counts, answers, spec.reward.typical)
    if trust == 0.0:
        return None
    f = delay.distribution(counts, answers, spec.reward.typical)
    weight = np.where(came, 1.0, delay.answered_by(f, rows.arm, age))
    some = weight > 0.0
    arm, reward, weight = rows.arm[some], rows.reward[some], weight[some]
    learner = spec.learner
    x = learner.design(rows.x[some], arm, rows.propensity[some])
    tau, nu = learner.provisional(live.belief, live.arms, x, arm, reward, weight)
    whole = learner.weighted_sums(len(spec.arms), x, arm, tau, nu, reward, weight)
    return whole if trust == 1.0 else Belief(*(trust * part for part in whole))
