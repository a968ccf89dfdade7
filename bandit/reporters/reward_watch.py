"""Reward watch: whether a key reports rewards more often, or higher ones, than the stage had seen before.

For each arm of a stage the first `BASELINE` learned decisions, whoever reported on them, say what is usual: with
confidence 1 − δ the mean reward is at most the U with n·kl(mean, U) = log(1/δ) (Hoeffding 1963, Theorem 1, for any
rewards in [0, 1]). An honest change is allowed: the odds of U are multiplied by `ALLOWED`, which gives μ.

From then on each decision gives, for each key, Z: its reward if the key reported it, else 0. While the key is honest,
the mean of Z given all before is at most μ. Then for any tilt θ > 0 the products of exp(θZ) / (1 − μ + μe^θ) are
supermartingales, because exp is convex (Hoeffding's lemma; Waudby-Smith and Ramdas 2024, "Estimating means of bounded
random variables by betting", JRSS B 86). A forger may begin at any time: their mean over beginnings t with weights
1/(t(t+1)) and over three tilts is an e-process as well, and is known from one number for each tilt. It exceeds 1/α at
any time whatever with a probability of at most α (Ville's inequality).

So the chance that a key is ever accused falsely at a stage is at most `LEVEL`: half of it may be spent by the
baselines, half by the e-processes; the j-th arm that has a baseline gets the share 1/(j(j+1)) of the level, and what
follows an alarm, with new baselines, half of the level before. The watch is a function of the sequence of settlements:
how they were split into batches does not matter.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from bandit.numerics.arithmetic import exp_of, log_of

LEVEL = 0.01
"""Chance of a false alarm about a key at a stage, at all times together, at most."""

BASELINE = 80
"""Learned decisions of an arm that say what is usual."""

ALLOWED = 1.5
"""Factor of the odds that a change may have and still be honest."""

_TILTS = (0.7, 1.5, 3.0)  # logits above what is allowed
_FACTORS = tuple(exp_of(tilt) for tilt in _TILTS)  # of its odds
_STEPS = 60  # of a bisection: below the spacing of float64


class WatchedReward(NamedTuple):
    """Learned settlement number `seq` at `at` (µs): its arm, its reward on [0, 1], and the keys that reported it."""

    seq: int
    at: int
    arm: str
    reward: float
    reporters: frozenset[str] = frozenset()


class ArmBaseline(msgspec.Struct, frozen=True):
    """Baseline of an arm: sums of the first decisions. `place`: it was the place-th to be complete, 0 before;
    `allowed`: the mean reward that an honest key may bring.
    """

    decisions: int = 0
    reward: float = 0.0
    place: int = 0
    allowed: float = 0.0


class KeyEvidence(msgspec.Struct, frozen=True):
    """Evidence against a key at an arm, of so many decisions with so much reward that it reported. `wealth`: for each
    tilt the sum over beginnings.
    """

    decisions: int = 0
    reward: float = 0.0
    wealth: tuple[float, ...] = (0.0,) * len(_TILTS)

    @property
    def e_value(self) -> float:
        """Value of the e-process: what is bet already, and what is kept for later beginnings."""
        return math.fsum(self.wealth) / len(self.wealth) + 1.0 / (self.decisions + 1)


class RewardAlarm(msgspec.Struct, frozen=True, kw_only=True):
    """Alarm that a key brought more rewards for an arm than were usual: raised by settlement number `through` at `at`
    (µs), after so many decisions of the arm with so much reward reported by the key, where a mean of `allowed` was.
    """

    reporter: str
    arm: str
    through: int
    at: int
    decisions: int
    reward: float
    allowed: float


class RewardWatch(msgspec.Struct, frozen=True):
    """State of the watch at a stage: baselines by arm, evidence by arm and key since the last alarm, and all alarms.
    Immutable, derived from the settlements in their order.
    """

    arms: dict[str, ArmBaseline] = {}
    keys: dict[str, dict[str, KeyEvidence]] = {}
    alarms: tuple[RewardAlarm, ...] = ()


def scan(watch: RewardWatch, rows: Iterable[WatchedReward]) -> RewardWatch:
    """State after these rows, which follow those that were scanned before."""
    arms, keys, alarms = dict(watch.arms), {arm: dict(known) for arm, known in watch.keys.items()}, list(watch.alarms)
    for row in rows:
        level = LEVEL / 2.0 ** (len(alarms) + 1)
        base = arms.get(row.arm, ArmBaseline())
        if not base.place:
            arms[row.arm] = _seen(base, row.reward, level, 1 + sum(other.place > 0 for other in arms.values()))
            continue
        known = keys.setdefault(row.arm, {})
        for reporter in [*known, *sorted(row.reporters - known.keys())]:
            if reporter not in known:
                known[reporter] = KeyEvidence()  # its first report made it known, and is no evidence
                continue
            found = _weighed(known[reporter], base.allowed, row.reward if reporter in row.reporters else 0.0)
            known[reporter] = found
            if found.e_value >= 2.0 / (level * _share(base.place)):
                alarms.append(_alarm(row, reporter, found, base))
                arms, keys = {}, {}
                break
    return RewardWatch(arms, keys, tuple(alarms))


def _share(place: int) -> float:
    return 1.0 / (place * (place + 1))


def _seen(base: ArmBaseline, reward: float, level: float, place: int) -> ArmBaseline:
    """The baseline with one decision more; complete if that was the last, as the `place`-th of the stage."""
    decisions, total = base.decisions + 1, base.reward + reward
    if decisions < BASELINE:
        return ArmBaseline(decisions, total)
    usual = _upper(total / decisions, decisions, level * _share(place) / 2.0)
    return ArmBaseline(decisions, total, place, ALLOWED * usual / (1.0 - usual + ALLOWED * usual))


def _weighed(found: KeyEvidence, allowed: float, z: float) -> KeyEvidence:
    decisions = found.decisions + 1
    begins = 1.0 / (decisions * (decisions + 1))
    wealth = tuple(
        [
            (before + begins) * (exp_of(tilt * z) if z else 1.0) / (1.0 - allowed + allowed * factor)
            for before, tilt, factor in zip(found.wealth, _TILTS, _FACTORS, strict=True)
        ]
    )
    return KeyEvidence(decisions, found.reward + z, wealth)


def _alarm(row: WatchedReward, reporter: str, found: KeyEvidence, base: ArmBaseline) -> RewardAlarm:
    return RewardAlarm(
        reporter=reporter,
        arm=row.arm,
        through=row.seq,
        at=row.at,
        decisions=found.decisions,
        reward=found.reward,
        allowed=base.allowed,
    )


def _upper(mean: float, n: int, delta: float) -> float:
    """Upper confidence bound of a mean in [0, 1] from n rewards, below 1."""
    low, high, most = min(max(mean, 0.0), 1.0), 1.0, log_of(1.0 / delta) / n
    for _ in range(_STEPS):
        middle = (low + high) / 2.0
        low, high = (middle, high) if _kl(mean, middle) <= most else (low, middle)
    return min(low, 1.0 - 1e-9)


def _kl(p: float, q: float) -> float:
    """Relative entropy of two Bernoulli variables."""
    if q >= 1.0:
        return 0.0 if p >= 1.0 else math.inf
    first = p * log_of(p / q) if p > 0.0 else 0.0
    return first + ((1.0 - p) * log_of((1.0 - p) / (1.0 - q)) if p < 1.0 else 0.0)
