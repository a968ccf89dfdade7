"""Open decisions: those whose window is open, as columns, and the belief that they amount to so far.

Columns belong to one thread: the learner's. What they amount to is a pure function of the rows, the time and the counts
of delays, so any past snapshot can be computed again from the ledger.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bandit.arrays import Array, Ints, Mask
from bandit.belief import Belief, add, empty
from bandit.catalogue.model import Stage
from bandit.learning import delay, rewards
from bandit.learning.delay import AnswerDelays
from bandit.learning.recoding import recoded
from bandit.learning.rewards import SettledReward
from bandit.learning.settlement import propensities
from bandit.numerics import versions
from bandit.records import Decision, Outcome
from bandit.snapshot import Snapshot

_FIRST = 256  # rows there is room for at first
_TOGETHER = 2**14  # rows that are weighed together: beyond, what is needed beside them grows


class OpenDecisions(NamedTuple):
    """Open decisions as n rows of columns, in the order of the ledger: numbers, arm indices, times in µs (`answered` 0
    where nobody has answered), reward (n,) in [0, 1], x (n, d), and propensities (n, k) of the arms declared now.
    Floats are of any width that holds them: x is on the 2⁻¹² grid, propensities are multiples of 2⁻²⁴.

    `open` says which rows teach something as things stand: others, and some that are over, may stand between them.
    """

    seq: Ints  # (n,)
    arm: Ints  # (n,)
    at: Ints  # (n,)
    expires: Ints  # (n,)
    answered: Ints  # (n,)
    reward: Array  # (n,) in [0, 1], what it would be if the window ended now
    x: Array  # (n, d)
    propensity: Array  # (n, k)
    open: Mask  # (n,)


class KnownDecision(NamedTuple):
    """Open decision as the ledger knows it: its number, the decision, and what has been reported of it."""

    seq: int
    decision: Decision
    outcomes: Sequence[Outcome] = ()


def answered(outcomes: Sequence[Outcome]) -> int:
    """Time (µs) at which the first reward or retraction in time was received, 0 if none was."""
    return min((o.received for o in rewards.in_force(outcomes) if o.kind in rewards.MONEY), default=0)


def lateness(at: Ints, expires: Ints, answered: Ints) -> Array:
    """Delays of answers as shares of the window, (n,), from times (n,) in µs."""
    return np.asarray(np.clip((answered - at) / np.maximum(expires - at, 1), 0.0, 1.0), dtype=np.float64)


class OpenDecisionTable:
    """Table of the open decisions of one stage as it is declared now, `live`, whose contexts have d columns; with room
    to grow: amortised appends. Mutable, of one thread, the learner's; what `rows` has given does not change any more.
    """

    def __init__(self, live: Stage, d: int):
        self._live = live
        self._d = d
        self._rows = self._room(_FIRST)
        self._there = np.zeros(_FIRST, dtype=bool)  # not over yet
        self._n = 0

    def __len__(self) -> int:
        """Decisions that teach something as things stand."""
        return int(np.count_nonzero(self._rows.open[: self._n]))

    def put(self, known: Iterable[KnownDecision], specs: Mapping[str, Stage], held: Collection[str] = ()) -> None:
        """Add decisions, or replace what is known of them. Each is read as it was declared: `specs` holds declarations
        by digest. `held`: keys whose rewards teach nothing now.
        """
        declared: dict[str, dict[int, KnownDecision]] = {}
        for one in known:
            declared.setdefault(one.decision.stage_digest, {})[one.seq] = one
        for digest, some in declared.items():
            new = _columns(list(some.values()), specs[digest], self._live, held)
            if new is None or len(new.seq) < len(some):
                self.drop(some.keys() - set(() if new is None else new.seq.tolist()))
            if new is None:
                continue
            place, there = self._places(new.seq)
            for column, values in zip(_reported(self._rows), _reported(new), strict=True):
                column[place[there]] = values[there]
            if not there.all():
                self._add([column[~there] for column in new])

    def drop(self, seqs: Iterable[int]) -> None:
        """Forget decisions, by their numbers: they are over. Numbers that are not here are ignored."""
        place, there = self._places(np.fromiter(seqs, dtype=np.int64))
        over = place[there]
        self._there[over] = self._rows.open[over] = False

    def join(self, later: "OpenDecisionTable") -> None:
        """Add the rows of another table of the same stage, none of which is here."""
        there = later._there[: later._n]
        if there.any():
            self._add([column[: later._n][there] for column in later._rows])

    def rows(self) -> OpenDecisions:
        """Rows as columns in the order of the ledger: what may be reported yet is a copy, the rest are views."""
        found = OpenDecisions._make(column[: self._n] for column in self._rows)
        return found._replace(answered=found.answered.copy(), reward=found.reward.copy(), open=found.open.copy())

    def _places(self, seqs: Ints) -> tuple[Ints, Mask]:
        """Where rows of these numbers are, and which are there and not over, (m,) each."""
        if not self._n:
            return np.zeros(len(seqs), dtype=np.int64), np.zeros(len(seqs), dtype=bool)
        here = self._rows.seq[: self._n]
        place = np.minimum(np.searchsorted(here, seqs), self._n - 1)
        return place, (here[place] == seqs) & self._there[place]

    def _add(self, new: Sequence[NDArray[Any]]) -> None:
        """Add rows that are not there. Cells that `rows` has given a view of are never written: where there is no room
        after the last row, or its number is larger, all rows get new columns.
        """
        seq, more = new[0], len(new[0])
        order = np.argsort(seq, kind="stable")
        if self._n and seq[order[0]] <= self._rows.seq[self._n - 1]:  # among the others
            there = self._there[: self._n]
            new = [
                np.concatenate([column[: self._n][there], mine]) for column, mine in zip(self._rows, new, strict=True)
            ]
            order, more = np.argsort(new[0], kind="stable"), len(new[0])
            self._n = 0
            self._move(more)
        elif self._n + more > len(self._there):
            self._move(more)
        end = self._n + more
        for column, values in zip(self._rows, new, strict=True):
            column[self._n : end] = values[order]
        self._there[self._n : end] = True
        self._n = end

    def _move(self, more: int) -> None:
        """Move what is not over to new columns, with room for twice as much as there will be with `more` rows."""
        kept, there = self._rows, np.flatnonzero(self._there[: self._n])
        self._rows = self._room(max(_FIRST, 2 * (len(there) + more)))
        for column, old in zip(self._rows, kept, strict=True):
            column[: len(there)] = old[there]
        self._n = len(there)
        self._there = np.zeros(len(self._rows.seq), dtype=bool)
        self._there[: self._n] = True

    def _room(self, n: int) -> OpenDecisions:
        k = len(self._live.arms)
        numbers = [np.zeros(n, dtype=np.int64) for _ in range(5)]
        exact = [np.zeros((n, size), dtype=np.float32) for size in (self._d, k)]  # on grids that 24 bits hold
        return OpenDecisions._make([*numbers, np.zeros(n), *exact, np.zeros(n, dtype=bool)])


def _reported(rows: OpenDecisions) -> tuple[Ints, Array, Mask]:
    """Columns that what is reported of a decision changes."""
    return rows.answered, rows.reward, rows.open


def _columns(known: Sequence[KnownDecision], spec: Stage, live: Stage, held: Collection[str]) -> OpenDecisions | None:
    """Columns of those of the decisions, all made under `spec`, that may teach `live` something; None if none may."""
    rows, rewarded, came, learned = list[KnownDecision](), list[float](), list[int](), list[bool]()
    silent: dict[bool, SettledReward] = {}  # of decisions that nobody answered, by whether they are deferred
    if spec.schema != live.schema or live.reward.settle == "reward":
        return None
    for one in known:
        made = one.decision
        if made.holdout or not made.contribution or spec.belief_row(made.arm) not in live.arms:
            continue
        verdict = None if one.outcomes else silent.get(made.deferred)
        if verdict is None:
            verdict = rewards.settle(spec, one.outcomes, holdout=False, deferred=made.deferred, held=held)
            if not one.outcomes:
                silent[made.deferred] = verdict
        rows.append(one)
        rewarded.append(verdict.reward)
        came.append(0 if verdict.why == "silence" else answered(one.outcomes))
        learned.append(verdict.learned)
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
            spec.reward.all_scaled(rewarded),
            recoded(np.array([d.x for d in decisions]), spec, live),
            propensities(decisions, spec.arms, live.arms),
            np.array(learned),
        ]
    )


def amounts_to(live: Snapshot, rows: OpenDecisions, counts: Array, now: int) -> Belief | None:
    """Provisional belief: what the open decisions say at `now` (µs), beyond the settled belief of `live`; None if there
    are none, if the stage waits for its windows to end, or if it declares no delay and no answer has come.

    counts: answers of settled decisions by arm and delay, (k, B), as `delay.counted`. The learner calls it for each
    snapshot; a receipt calls it again with the same rows and gets the same bits.
    """
    spec = live.stage_spec
    if spec.reward.waits or not rows.open.any():
        return None
    came = rows.open & (rows.answered > 0)
    late = lateness(rows.at[came], rows.expires[came], rows.answered[came])
    answers = AnswerDelays(rows.arm[came], late, _age(rows, came, now))
    trust = delay.trust(counts, answers, spec.reward.typical)
    if trust == 0.0:
        return None
    f = delay.distribution(counts, answers, spec.reward.typical)
    places = np.flatnonzero(rows.open)
    size = _TOGETHER if versions.number() >= versions.NEARLY_INDEPENDENT else len(places)
    known, whole = live.belief, empty(*live.belief.shift.shape)
    for start in range(0, len(places), size):
        part = _weighed(live, known, rows, places[start : start + size], f, now)
        known, whole = add(known, part), add(whole, part)
    return whole if trust == 1.0 else Belief(*(trust * part for part in whole))


def _weighed(live: Snapshot, known: Belief, rows: OpenDecisions, some: Ints, f: Array, now: int) -> Belief:
    """What some rows (m,) say at `now` beyond what is `known`, answers being as late as f (k, B + 1) says."""
    spec, came = live.stage_spec, rows.answered[some] > 0
    weight = np.where(came, 1.0, delay.answered_by(f, rows.arm[some], _age(rows, some, now)))
    some, weight = some[weight > 0.0], weight[weight > 0.0]
    arm, reward = rows.arm[some], rows.reward[some]
    learner, exact = spec.learner, (column[some].astype(np.float64) for column in (rows.x, rows.propensity))
    x, propensity = exact
    x = learner.design(x, arm, propensity)
    tau, nu = learner.provisional(known, live.arms, x, arm, reward, weight)
    return learner.weighted_sums(len(spec.arms), x, arm, tau, nu, reward, weight)


def _age(rows: OpenDecisions, some: Ints | Mask, now: int) -> Array:
    """Ages of some rows at `now` (µs), as shares of their windows, (m,)."""
    at = rows.at[some]
    return lateness(at, rows.expires[some], np.full_like(at, now))
