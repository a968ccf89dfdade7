"""Open decisions: those whose window is open, as columns, and the belief that they amount to so far.

Columns belong to one thread: the learner's. What they amount to is a pure function of the rows, the time and the counts
of delays, so any past snapshot can be computed again from the ledger.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from bandit.arrays import Array, Ints
from bandit.belief import Belief
from bandit.catalogue.model import Stage
from bandit.learning import delay, rewards
from bandit.learning.delay import AnswerDelays
from bandit.learning.recoding import recoded
from bandit.learning.rewards import SettledReward
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


class KnownDecision(NamedTuple):
    """Open decision as the ledger knows it: its number, the decision, and what has been reported of it."""

    seq: int
    decision: Decision
    outcomes: Sequence[Outcome] = ()


def answered(outcomes: Sequence[Outcome]) -> int:
    """Time (µs) at which the first reward or retraction in time was received, 0 if none was."""
    return min((o.received for o in rewards.in_force(outcomes) if o.kind != "activation"), default=0)


def lateness(at: Ints, expires: Ints, answered: Ints) -> Array:
    """Delays of answers as shares of the window, (n,), from times (n,) in µs."""
    return np.asarray(np.clip((answered - at) / np.maximum(expires - at, 1), 0.0, 1.0), dtype=np.float64)


class OpenDecisionTable:
    """Table of the open decisions of one stage as it is declared now, `live`, whose contexts have d columns; with room
    to grow: amortised appends. Mutable, of one thread, the learner's.
    """

    def __init__(self, live: Stage, d: int):
        self._live = live
        self._rows = _room(_FIRST, len(live.arms), d)
        self._place: dict[int, int] = {}  # seq → where its row is; rows that are in no place are dead
        self._n = 0

    def __len__(self) -> int:
        return len(self._place)

    def put(self, known: Iterable[KnownDecision], specs: Mapping[str, Stage]) -> None:
        """Add decisions, or replace what is known of them; those that teach nothing as things stand are left out. Each
        is read as it was declared: `specs` holds declarations by digest.
        """
        declared: dict[str, list[KnownDecision]] = {}
        for one in known:
            declared.setdefault(one.decision.stage_digest, []).append(one)
        for digest, some in declared.items():
            self.drop(one.seq for one in some)
            new = _columns(some, specs[digest], self._live)
            if new is None:
                continue
            end = self._n + len(new.seq)
            while end > len(self._rows.seq):
                self._grow(len(new.seq))
                end = self._n + len(new.seq)
            for column, values in zip(self._rows, new, strict=True):
                column[self._n : end] = values
            self._place.update(zip(new.seq.tolist(), range(self._n, end), strict=True))
            self._n = end

    def drop(self, seqs: Iterable[int]) -> None:
        """Forget decisions, by their numbers: they are over. Numbers that are not here are ignored."""
        for seq in seqs:
            self._place.pop(seq, None)

    def rows(self) -> OpenDecisions:
        """Rows that are open now, as columns in the order of the ledger."""
        seqs = np.fromiter(self._place, dtype=np.int64, count=len(self._place))
        places = np.fromiter(self._place.values(), dtype=np.int64, count=len(self._place))
        return OpenDecisions._make(column[places[np.argsort(seqs)]] for column in self._rows)

    def _grow(self, more: int) -> None:
        """Forget the dead, and make room for twice as many as there will be."""
        kept = self.rows()
        self._n = len(kept.seq)
        self._rows = _room(max(_FIRST, 2 * (self._n + more)), kept.propensity.shape[1], kept.x.shape[1])
        self._place = dict(zip(kept.seq.tolist(), range(self._n), strict=True))
        for column, values in zip(self._rows, kept, strict=True):
            column[: self._n] = values


def _columns(known: Sequence[KnownDecision], spec: Stage, live: Stage) -> OpenDecisions | None:
    """Columns of those of the decisions, all made under `spec`, that teach `live` something as things stand; None if
    none does.
    """
    rows, rewarded, came = list[KnownDecision](), list[float](), list[int]()
    silent: dict[bool, SettledReward] = {}  # of decisions that nobody answered, by whether they are deferred
    current = spec.schema == live.schema
    for one in known if live.reward.settle != "reward" else ():
        made = one.decision
        if made.holdout or spec.belief_row(made.arm) not in live.arms:
            continue
        verdict = None if one.outcomes else silent.get(made.deferred)
        if verdict is None:
            verdict = rewards.settle(spec, one.outcomes, holdout=False, current=current, deferred=made.deferred)
            if not one.outcomes:
                silent[made.deferred] = verdict
        if verdict.learned:
            rows.append(one)
            rewarded.append(spec.reward.scaled(verdict.reward))
            came.append(0 if verdict.why == "silence" else answered(one.outcomes))
    if not rows:
        return None
    index, decisions = {arm: a for a, arm in enumerate(live.arms)}, [one.decision for one in rows]
    numbers: list[list[int]] = [
        [one.seq for one in rows],
        [index[spec.belief_row(d.arm)] for d in decisions],
        [d.at for d in decisions],
        [d.expires for d in decisions],
        came,
    ]
    return OpenDecisions._make(
        [
            *(np.array(column, dtype=np.int64) for column in numbers),
            np.array(rewarded),
            recoded(np.array([d.x for d in decisions]), spec, live),
            propensities(decisions, spec.arms, live.arms),
        ]
    )


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
