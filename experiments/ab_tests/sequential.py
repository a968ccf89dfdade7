"""Confidence sequences of an A/B test: intervals of a difference that hold at all n at once, so that the test may be
looked at and stopped at any time.

`betting` takes rows in the order of their assignment, with the declared shares as propensities: it is
`inference.sequences`, with each arm's mean so far as q̂. Outcomes have to lie in a known range; rates may drift. Rows in
another order, such as by arm, may give an empty interval, low > high; `order_p` tells many such orders.

`beta_binomial` takes totals of yes and no alone, whatever their order and the shares. For each arm the likelihood of a
rate, mixed over Jeffreys' prior, over that of the rate p is a martingale that starts at 1 if p is true (Robbins 1970);
so is the product E(p, q) of two arms. {q − p: E(p, q) < 1/α} holds the true difference at all times with probability
1 − α (Ville). It assumes that an arm's rate does not change, and is wider.

Shapes: n people in order, k arms.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from bandit.arrays import Array
from experiments.ab_tests.score_intervals import ArmRate
from experiments.inference.intervals import LEVEL, Interval
from experiments.inference.sequences import Sequence, SequenceDraws, levels

_PSEUDO = 20.0  # people that the mean of all arms is worth in an arm's q̂
_FEWEST_LEFT = 1e-12


def betting(
    arm: NDArray[np.integer], outcome: Array, shares: Array, pair: tuple[int, int], level: float = LEVEL
) -> Interval:
    """Interval of the difference of the arms of `pair`, first less second, at any time: `arm` (n,) as assigned, in
    order, by `shares` (k,); `outcome` (n,) scaled to [0, 1]. Raises InvalidRequest for outcomes outside.
    """
    n, k = len(arm), len(shares)
    draws = SequenceDraws(arm, outcome, np.broadcast_to(shares, (n, k)), _means_before(arm, outcome, k))
    own, other = (levels(1.0 / float(shares[a])) for a in pair)
    policies = [np.broadcast_to(np.eye(k)[a], (n, k)) for a in pair]
    return Sequence.of_lift(own, other).fed(draws, *policies).interval(level)


def order_p(arm: NDArray[np.integer], arms: int) -> tuple[float, int, bool]:
    """p of "the rows are in an order that has nothing to do with their arms", by the least likely of all arms, with
    that arm, and whether its rows stand together (else they alternate with others).

    Given the numbers m of an arm's rows and n of all, its runs are hypergeometric: of n − m + 1 places between other
    rows, those that are taken by m rows. Two-sided, times the number of arms (Bonferroni).
    """
    from scipy import stats  # half a second of each start of a command: only who asks for it waits

    least, where, grouped = 1.0, 0, False
    for a in range(arms):
        mine = arm == a
        m, runs = int(mine.sum()), int(mine[:1].sum() + (mine[1:] & ~mine[:-1]).sum())
        if 0 < m < len(arm):
            law = stats.hypergeom(len(arm), len(arm) - m + 1, m)
            few, many = float(law.cdf(runs)), float(law.sf(runs - 1))
            p = 2.0 * arms * min(few, many)
            least, where, grouped = (p, a, few < many) if p < least else (least, where, grouped)
    return least, where, grouped


def _means_before(arm: NDArray[np.integer], outcome: Array, k: int) -> Array:
    """Mean outcome of each arm before each row, (n, k), drawn towards the mean of all arms while there are few rows."""
    shown = np.eye(k)[arm]
    count, total = (np.cumsum(part, axis=0) - part for part in (shown, shown * outcome[:, None]))
    overall = (total.sum(axis=1) + 0.5) / (count.sum(axis=1) + 1.0)
    return np.asarray((total + _PSEUDO * overall[:, None]) / (count + _PSEUDO), dtype=np.float64)


def beta_binomial(arm: ArmRate, control: ArmRate, level: float = LEVEL) -> Interval:
    """Interval of arm − control at any time, in [−1, 1], from totals."""
    most = -float(np.log1p(-level))
    high = _farthest(arm, control, most)
    low = -_farthest(control, arm, most)
    return Interval(arm.value - control.value, low, high, int(min(arm.n, control.n)))


def evidence(arm: ArmRate, control: ArmRate) -> float:
    """log E against equal rates: the least of log E(p, p). Its exponential is an e-value at any time."""
    rate = (arm.yes + control.yes) / (arm.n + control.n)
    return _log_e(arm, rate) + _log_e(control, rate)


def _farthest(arm: ArmRate, control: ArmRate, most: float) -> float:
    """The largest q − p with log E(p, q) ≤ `most`. The set is convex: at its end the gradient points along q − p, so
    that both rates follow from one multiplier, whose log E rises.
    """

    def excess(log_multiplier: float) -> float:
        q, p = _rates(arm, control, float(np.exp(log_multiplier)))
        return _log_e(arm, q) + _log_e(control, p) - most

    low, high = -30.0, float(np.log(arm.n + control.n)) + 30.0
    if excess(low) >= 0.0:
        q, p = _rates(arm, control, float(np.exp(low)))
    elif excess(high) <= 0.0:
        return 1.0
    else:
        q, p = _rates(arm, control, float(np.exp(optimize.brentq(excess, low, high, xtol=1e-10))))
    return min(q - p, 1.0)


def _rates(arm: ArmRate, control: ArmRate, multiplier: float) -> tuple[float, float]:
    return _rate_at(arm, multiplier), 1.0 - _rate_at(ArmRate(control.n - control.yes, control.n), multiplier)


def _rate_at(rate: ArmRate, multiplier: float) -> float:
    """Rate in (0, 1) at which log E has the slope `multiplier` ≥ 0: the root of μp² + (n − μ)p − yes = 0."""
    b = rate.n - multiplier
    root = float(np.sqrt(b * b + 4.0 * multiplier * rate.yes))
    found = 2.0 * rate.yes / (b + root) if b > 0.0 else (root - b) / (2.0 * multiplier)
    return min(max(found, 0.0), 1.0 - _FEWEST_LEFT)


def _log_e(rate: ArmRate, p: float) -> float:
    no = rate.n - rate.yes
    mixed = special.betaln(0.5 + rate.yes, 0.5 + no) - special.betaln(0.5, 0.5)
    return float(mixed - special.xlogy(rate.yes, p) - special.xlog1py(no, -p))
