"""Drift detection: a CUSUM for each arm finds that people have changed, and what was learned before the alarm then
weighs less.

For each learned row of an arm, whose reward y was expected to be q at decision time, with sd s in logits as the policy
samples it,

    C± ← max(0, C± + y·log(q±/q₀) + (1 − y)·log((1 − q±)/(1 − q₀)))
    logit q₀ = logit q ± m·s,  logit q± = logit q₀ ± shift

is the log likelihood ratio of "rewards have moved by `shift` logits" to "they have not" (Page 1954), m = 2. Rows
decided by one snapshot share its error, so "not moved" is as far in that direction as was known: ignorance is not
change, however late a snapshot learns of it. For rewards between 0 and 1 that are not binary the same expression is an
e-process under the null: each factor has mean ≤ 1. C > `threshold` is an alarm. It ends an epoch of the stage; sums are
kept for each epoch, untouched, and an epoch weighs `keep` to the power of the alarms since: exact sums in the ledger,
forgetting only when they are read.

Only rows count whose decision was made after the last alarm, and whose expectation was sure enough to be one at all.
"""

import math
from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from bandit.arrays import Ints
from bandit.belief import Belief, add
from bandit.catalogue.drift_rule import DriftRule

SURE = 0.25
"""Logits: the largest sd, as the policy samples it, of an expectation that may speak."""

ALLOWED = 2.0
"""Sds, as the policy samples it, that an expectation may be wrong by."""

_EDGE = 0.005  # q is kept this far from 0 and 1


class DriftAlarm(msgspec.Struct, frozen=True, kw_only=True):
    """Drift alarm of one arm: direction, time `at` (µs), and `through`: the number of the last settlement of the old
    epoch.
    """

    arm: str
    direction: Literal["up", "down"]
    through: int
    at: int


class DriftState(msgspec.Struct, frozen=True):
    """Drift state of a stage: where each arm's two sums (up, down, log likelihood ratios) stand, and every alarm so
    far. Immutable, derived from the ledger, so that a rebuild gives the same.
    """

    up: dict[str, float] = {}
    down: dict[str, float] = {}
    alarms: tuple[DriftAlarm, ...] = ()

    @property
    def epoch(self) -> int:
        """Number of the present epoch: how many alarms there were."""
        return len(self.alarms)


class Residual(NamedTuple):
    """Residual of one learned row: settlement number `seq` and time `at` (µs), arm, y (`reward`) in [0, 1], q (`mean`)
    and its `sd` at decision time, and the version of the snapshot that expected it.
    """

    seq: int
    at: int
    arm: str
    reward: float
    mean: float
    sd: float
    version: int


def scan(rules: DriftRule, watch: DriftState, rows: Iterable[Residual], allowed: float = ALLOWED) -> DriftState:
    """Drift state after these rows, which come in the order of settlement; `allowed`: m. The learner calls it once for
    each batch; the split into batches does not matter.
    """
    if not rules.watch:
        return watch
    up, down, alarms = dict(watch.up), dict(watch.down), list(watch.alarms)
    for row in rows:
        q = min(max(row.mean, _EDGE), 1.0 - _EDGE)
        sd = row.sd / (q * (1.0 - q))
        if sd > SURE or (alarms and row.version < alarms[-1].through):
            continue
        for direction, sums, sign in (("up", up, 1.0), ("down", down, -1.0)):
            least = 1.0 / (1.0 + (1.0 - q) / q * math.exp(-sign * allowed * sd))
            sums[row.arm] = max(0.0, sums.get(row.arm, 0.0) + _ratio(least, sign * rules.shift, row.reward))
            if sums[row.arm] > rules.threshold:
                alarms.append(DriftAlarm(arm=row.arm, direction=direction, through=row.seq, at=row.at))  # type: ignore[arg-type]
                up, down = {}, {}
                break
    return DriftState(up, down, tuple(alarms))


def _ratio(q: float, by: float, reward: float) -> float:
    moved = 1.0 / (1.0 + (1.0 - q) / q * math.exp(-by))
    return reward * math.log(moved / q) + (1.0 - reward) * math.log((1.0 - moved) / (1.0 - q))


def epoch_of(watch: DriftState, seq: int) -> int:
    """Epoch that settlement number `seq` belongs to, from 0."""
    return sum(alarm.through < seq for alarm in watch.alarms)


def epochs_of(watch: DriftState, seq: Ints) -> NDArray[np.intp]:
    """Epochs (n,) of settlements numbered `seq` (n,)."""
    ends = np.array([alarm.through for alarm in watch.alarms], dtype=np.int64)
    return np.searchsorted(ends, seq, side="left")


def summed(epochs: Sequence[Belief]) -> Belief:
    """Belief over all epochs at full weight: what is known of the past as a whole."""
    return reduce(add, epochs)


def weighed(rules: DriftRule, epochs: Sequence[Belief]) -> Belief:
    """Belief that decides: the sums of each epoch, oldest first, weighted by keep^(alarms since), all over the same
    arms and features.
    """
    last, weight = len(epochs) - 1, 1.0
    total = epochs[-1]
    for e in range(last - 1, -1, -1):
        weight *= rules.keep
        total = Belief(*(t + weight * part for t, part in zip(total, epochs[e], strict=True)))
    return total
