"""P(arm wins) for correlated Gaussian scores: arms that share what was learned have scores that move together.

Shapes: k arms. For k = 2 a closed form. For k ≥ 3, arm a wins iff all differences S_a − S_j are positive: an orthant
probability, by Genz's separation of variables (Genz 1992) with the variables in Gibson's order, over fixed quasi-random
points (Richtmyer's, with the tent transform), for all arms at once. No generator: the same scores give the same bits.

Treating correlated scores as independent is not an option: tests/bandit/test_orthant.py shows by how much it is off.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import special

from bandit.errors import PropensityError

Array = NDArray[np.float64]

ALARM = 0.05
"""Largest |Σp − 1| that quasi-random integration may leave. It is an alarm, not a bound: the error is far smaller."""

_REACH = 8.3  # standard deviations of a difference; an arm further behind cannot win
_JITTER = 1e-9  # of the mean variance, on every arm: scores that move together entirely are a tie
_TINY = 1e-300
_MOST = 64  # arms


def _primes(n: int) -> Array:
    sieve = np.ones(400, dtype=bool)
    sieve[:2] = False
    for i in range(2, 20):
        sieve[i * i :: i] = False
    return np.flatnonzero(sieve)[:n].astype(float)


def _lattice(points: int) -> Array:
    """(dimensions, points) in [0, 1]: fractional parts of i·√prime, folded like a tent."""
    raw = np.outer(np.sqrt(_primes(_MOST)), np.arange(1, points + 1)) % 1.0
    return np.abs(2.0 * raw - 1.0)


_FEW, _MANY = _lattice(128), _lattice(384)


def correlated(mean: Array, covariance: Array) -> Array:
    """P(S_a is the largest) for S ~ N(mean (k,), covariance (k, k)); sums to 1.

    Total variation from the truth ≤ 3e-3 up to k = 8 over the stress suite of tests/bandit/test_orthant.py; to
    rounding for k = 2. PropensityError for values that no normal law has, and when Σp before division by it is off
    by more than ALARM.
    """
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise PropensityError("not a normal law: means or covariances are not finite")
    if len(mean) > _MOST:
        raise PropensityError(f"{len(mean)} correlated arms: at most {_MOST} can be integrated")
    p = np.zeros(len(mean))
    variance = covariance.diagonal()
    best = int(np.argmax(mean))
    apart = np.sqrt(np.maximum(variance + variance[best] - 2.0 * covariance[best], 0.0))
    alive = np.flatnonzero(mean[best] - mean <= _REACH * apart)
    if len(alive) == 1:
        p[best] = 1.0
        return p
    m, c = mean[alive], covariance[np.ix_(alive, alive)]
    p[alive] = _two(m, c) if len(alive) == 2 else _genz(m, c, _FEW if len(alive) <= 6 else _MANY)
    total = float(p.sum())
    if not abs(total - 1.0) <= ALARM:
        raise PropensityError(f"Σp = {total!r} for correlated means {mean.tolist()}")
    return p / total


def _two(m: Array, c: Array) -> Array:
    sd = float(np.sqrt(max(c[0, 0] + c[1, 1] - 2.0 * c[0, 1], _TINY)))
    z = float(m[0] - m[1]) / sd
    return special.ndtr(np.array([z, -z]))


def _genz(m: Array, c: Array, points: Array) -> Array:
    """P(all k − 1 differences positive) for each of k arms, before division by the sum."""
    k = len(m)
    c = c + np.eye(k) * (_JITTER * float(c.diagonal().mean()) + _TINY)
    others = np.array([[j for j in range(k) if j != a] for a in range(k)])  # (k, k−1)
    ahead = m[:, None] - m[others]
    mine = c[np.arange(k)[:, None], others]
    spread = (
        c.diagonal()[:, None, None] - mine[:, :, None] - mine[:, None, :] + c[others[:, :, None], others[:, None, :]]
    )
    # the hardest condition first (Gibson, Glasbey & Elston 1994): what follows varies less
    order = np.argsort(ahead / np.sqrt(np.diagonal(spread, axis1=1, axis2=2)), axis=1, kind="stable")
    ahead = np.take_along_axis(ahead, order, 1)
    spread = np.take_along_axis(np.take_along_axis(spread, order[:, :, None], 1), order[:, None, :], 2)
    factor = np.linalg.cholesky(spread)
    chance = np.ones((k, points.shape[1]))
    drawn = np.empty((k - 1, k, points.shape[1]))
    for i in range(k - 1):
        level = np.einsum("al,lan->an", factor[:, i, :i], drawn[:i]) + ahead[:, i, None]
        step = special.ndtr(level / factor[:, i, i, None])
        chance *= step
        if i < k - 2:
            drawn[i] = -special.ndtri(np.maximum(points[i] * step, _TINY))
    return np.asarray(chance.mean(axis=1), dtype=np.float64)
