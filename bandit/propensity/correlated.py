"""Thompson-sampling propensities for correlated Gaussian scores: arms that share what was learned have scores that move
together.

Shapes: k arms. For k = 2 a closed form. For k ≥ 3, scores that are nearly independent once what they share is taken
away, as those of policies whose arms share what they learned, are one integral (`nearly_independent`). Others: arm a
wins iff all differences S_a − S_j are positive, an orthant probability, by Genz's separation of variables (Genz 1992)
with the variables in Gibson's order, over fixed quasi-random points (Richtmyer's, with the tent transform), for all
arms at once. No generator: the same scores give the same bits.

Treating correlated scores as independent is not an option: tests/bandit/propensity/test_correlated.py shows by how much
it is off.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bandit.arrays import Array
from bandit.errors import PropensityError
from bandit.numerics import compiled, versions
from bandit.numerics.arithmetic import cholesky, total
from bandit.propensity import batching, nearly_independent, normal_tables

ALARM = 0.05
"""Largest |Σp − 1| that quasi-random integration may leave. It is an alarm, not a bound: the error is far smaller."""

_REACH = 5.0  # standard deviations of a difference; an arm further behind wins with probability 3e-7 or less
_JITTER = 1e-9  # of the mean variance, on every arm: scores that move together entirely are a tie
_REACH_SQUARE = _REACH**2
_TINY = 1e-300
_LEAST, _HALF = np.array(_TINY), np.array(0.5)
_MOST = 64  # arms


def _primes(n: int) -> Array:
    sieve = np.ones(400, dtype=bool)
    sieve[:2] = False
    for i in range(2, 20):
        sieve[i * i :: i] = False
    return np.flatnonzero(sieve)[:n].astype(float)


def _lattice(points: int) -> Array:
    """(dimensions, points) in [0, 1]: fractional parts of i·√prime, folded like a tent. Sorted by the first, because
    branches that go one way for long cost a processor less.
    """
    raw = np.abs(2.0 * (np.outer(np.sqrt(_primes(_MOST)), np.arange(1, points + 1)) % 1.0) - 1.0)
    return np.ascontiguousarray(raw[:, np.argsort(raw[0], kind="stable")])


class IntegrationRule(NamedTuple):
    """Rule of integration: points (dimensions, points) by the number of arms that they are for at most, whether nearly
    independent scores are recognised, and `sharp`: a number below 1 plus `sharp` is on a grid on which as many numbers
    as there are points add up exactly, in any order. `finer`: points and their `sharp` for laws of which Σp is off by
    more than ALARM, None: there is no second try.
    """

    steps: tuple[tuple[int, Array], ...]
    recognises: bool
    sharp: Array
    finer: tuple[Array, Array] | None = None

    def points(self, k: int) -> Array:
        """Points for k arms, (dimensions, points)."""
        return next(points for most, points in self.steps if k <= most)


_PRESENT = IntegrationRule(
    ((5, _lattice(512)), (8, _lattice(1024)), (_MOST, _lattice(512))),
    recognises=True,
    sharp=np.array(512.0),
    finer=(_lattice(4096), np.array(4096.0)),
)
_EARLIER = IntegrationRule(((6, _lattice(128)), (_MOST, _lattice(384))), recognises=False, sharp=np.array(384.0))


def _rule() -> IntegrationRule:
    """Rule of the arithmetic that is computed in."""
    return _PRESENT if versions.number() >= versions.NEARLY_INDEPENDENT else _EARLIER


_BLOCK, _TOGETHER = 64, 768  # points and arms of a batch at a time, so that it stays in a cache of 1 MB


def correlated(mean: Array, covariance: Array) -> Array:
    """Win probabilities P(S_a is the largest), (k,), for S ~ N(mean (k,), covariance (k, k)); they sum to 1.

    Total variation from the truth: to rounding for k = 2; where scores are nearly independent ≤ 1.5e-3 on
    random laws, ≤ 3e-3 on the worst that a search found; else, up to k =
    8, ≤ 3e-3 on random laws of full rank, ≤ 8e-3 where two factors are nearly all there is
    (tests/bandit/propensity/test_correlated.py, on laws that nothing was fitted to).
    Raises PropensityError for values that no normal law has, for more than 64 arms that can win, and when Σp before
    division by it is off by more than ALARM.
    """
    kernels = compiled.kernels()
    if kernels is not None and versions.number() >= versions.NEARLY_INDEPENDENT:
        p = np.empty(len(mean))
        if kernels.wins(mean.astype(np.float64), covariance.astype(np.float64), kernels.normal, p):
            return p
    return np.array(wins(mean.tolist(), covariance.tolist()))


def wins(mean: list[float], covariance: list[list[float]]) -> list[float]:
    """Win probabilities as `correlated` gives them, the same bits, of plain floats: mean (k,), covariance (k, k). What
    decides is sooner in plain floats than in arrays of few numbers; an array is made only to integrate.
    """
    k = len(mean)
    if not math.isfinite(sum(mean) + sum(map(sum, covariance))):
        raise PropensityError("not a normal law: means or covariances are not finite")
    top = max(mean)
    best = mean.index(top)
    row, most = covariance[best], covariance[best][best]
    live = [
        i
        for i in range(k)
        if (behind := top - mean[i]) * behind <= _REACH_SQUARE * max(covariance[i][i] + most - 2.0 * row[i], 0.0)
    ]
    if len(live) > _MOST:
        raise PropensityError(f"{len(live)} correlated arms: at most {_MOST} can be integrated")
    if len(live) == k:
        return _shares(mean, covariance)
    p = [0.0] * k
    some = _shares([mean[i] for i in live], [[covariance[i][j] for j in live] for i in live])
    for i, share in zip(live, some, strict=True):
        p[i] = share
    return p


def finely(mean: Array, covariance: Array, points: int = 2**13) -> Array:
    """Win probabilities as `correlated`, over so many points (a power of two), whatever the law: what tests and
    benchmarks hold the others against; its own error is some 2e-4.
    """
    p = _genz(mean[None], covariance[None], _lattice(points), np.array(float(points)))[0]
    return np.asarray(p / total(p))


def _shares(m: list[float], c: list[list[float]]) -> list[float]:
    """P(arm wins) for arms that all may; sums to 1."""
    if len(m) == 1:
        return [1.0]
    if len(m) > 2:
        rule = _rule()
        p = nearly_independent.shares(m, c) if rule.recognises else None
        if p is not None:
            return _whole(p)
        found: list[float] = _divided(_by_points(np.array([m]), np.array([c]), rule), np.array([m]))[0].tolist()
        return found
    z = (m[0] - m[1]) / math.sqrt(max(c[0][0] + c[1][1] - 2.0 * c[0][1], _TINY))
    return _whole([normal_tables.one(z), normal_tables.one(-z)])  # never far from 1: both are read from one table


def _whole(p: list[float]) -> list[float]:
    """Shares that were found to sum to 1 nearly, divided by their sum."""
    total = 0.0  # added in order, as the rows of a batch
    for v in p:
        total += v
    return [v / total for v in p]


def _divided(p: Array, m: Array) -> Array:
    """Rows (r, k) divided by their sums. PropensityError if one is off by more than ALARM."""
    sums = total(p.T)
    if not (np.abs(sums - 1.0) <= ALARM).all():
        worst = int(np.argmax(np.abs(sums - 1.0)))
        raise PropensityError(f"Σp = {float(sums[worst])!r} for correlated means {m[worst].tolist()}")
    return np.asarray(p / sums.reshape(-1, 1), dtype=np.float64)


def correlated_many(mean: Array, covariance: Array, eligible: NDArray[np.bool_]) -> Array:
    """Win probabilities of n decisions, each over its own eligible arms: mean, eligible and result (n, k), covariance
    (n, k, k); 0 where ineligible.

    The bits of `correlated` in every row, whatever the other rows. Raises PropensityError as `correlated`.
    """
    n, k = mean.shape
    if not np.isfinite(np.where(eligible, mean, 0.0)).all() or not np.isfinite(covariance).all():
        raise PropensityError("not normal laws: means or covariances are not finite")
    rows = np.arange(n)
    variance = np.diagonal(covariance, axis1=1, axis2=2)
    best = np.where(eligible, mean, -np.inf).argmax(axis=1)
    behind = mean[rows, best, None] - mean
    apart = variance + variance[rows, best, None] - 2.0 * covariance[rows, best]
    live = eligible & (behind * behind <= _REACH_SQUARE * np.maximum(apart, 0.0))
    p = np.zeros((n, k))
    for m, some, arms in batching.by_number(live):
        if m > _MOST:
            raise PropensityError(f"{m} correlated arms: at most {_MOST} can be integrated")
        at = some[:, None]
        p[at, arms] = _shares_many(mean[at, arms], covariance[at[:, :, None], arms[:, :, None], arms[:, None, :]])
    return p


def _shares_many(m: Array, c: Array) -> Array:
    """P(arm wins), (r, k), of r decisions between k arms that all may; rows sum to 1."""
    r, k = m.shape
    if k == 1:
        return np.ones((r, 1))
    if k == 2:
        z = (m[:, 0] - m[:, 1]) / np.sqrt(np.maximum(c[:, 0, 0] + c[:, 1, 1] - 2.0 * c[:, 0, 1], _TINY))
        p = np.empty((r, 2))
        normal_tables.below(np.stack([z, -z], axis=1), p, normal_tables.scratch(p.shape))
    else:
        rule, p, done = _rule(), np.zeros((r, k)), np.zeros(r, dtype=bool)
        if rule.recognises:
            p, done = nearly_independent.shares_many(m, c)
        for piece in batching.pieces(np.flatnonzero(~done), max(_TOGETHER // k, 2)):
            p[piece] = _by_points(m[piece], c[piece], rule)
    return _divided(p, m)


def _by_points(m: Array, c: Array, rule: IntegrationRule) -> Array:
    """P(arm wins) of r decisions (r, k) before division by the sum, over the rule's points; over finer ones where the
    sum is far from 1.
    """
    p = _genz(m, c, rule.points(m.shape[1]), rule.sharp)
    if rule.finer is not None:
        for row in np.flatnonzero(np.abs(total(p.T) - 1.0) > ALARM).tolist():
            p[row] = _genz(m[row : row + 1], c[row : row + 1], *rule.finer)[0]
    return p


def _genz(m: Array, c: Array, points: Array, sharp: Array) -> Array:
    """P(all k − 1 differences positive) for each arm of r decisions (r, k), before division by the sum: the arms of all
    decisions side by side, a block of points (dimensions, points) at a time; `sharp` as of `IntegrationRule`.
    """
    r, k = m.shape
    given, n = _given(m, c), points.shape[1]
    first = np.empty(r * k)
    normal_tables.below(given[0, 0].copy(), first, normal_tables.scratch(first.shape))
    sums, size = np.zeros(r * k), min(n, max(_BLOCK, _BLOCK * _TOGETHER // (8 * r * k)))
    for start in range(0, n, size):
        some = points[:, start : start + size, None]
        shape = (some.shape[1], r * k)
        drawn, room = np.empty((k - 1, *shape)), normal_tables.scratch(shape)
        share, step, ahead = (np.empty(shape) for _ in range(3))
        chance = first
        step[:] = first
        for i in range(1, k - 1):
            np.multiply(step, some[i - 1], out=share)
            normal_tables.quantile(share, drawn[i], room)
            np.multiply(given[i, 1], drawn[1], out=ahead)
            for j in range(2, i + 1):
                np.multiply(given[i, j], drawn[j], out=share)
                np.add(ahead, share, out=ahead)
            np.add(ahead, given[i, 0], out=ahead)
            normal_tables.below(ahead, step, room)
            chance = np.multiply(chance, step)
        np.add(chance, sharp, out=chance)  # on a grid on which sums are exact, whatever the blocks
        np.subtract(chance, sharp, out=chance)
        sums += np.add.reduce(chance, axis=0)
    return np.asarray(sums.reshape(r, k) / n, dtype=np.float64)


def _given(m: Array, c: Array) -> Array:
    """How far condition i of an arm is ahead, given what was drawn for those before it, (k−1, k−1, r·k) for (1, y_1 …
    y_i−1): from differences between arms and their Cholesky factors.

    The hardest condition comes first (Gibson, Glasbey & Elston 1994): what follows varies less.
    """
    r, k = m.shape
    variance = np.diagonal(c, axis1=1, axis2=2)
    half = _HALF * (variance[:, :, None] + variance[:, None, :]) - c  # ½ var(S_i − S_j)
    jitter = _JITTER * total(variance.T).reshape(-1, 1, 1) / k + _TINY
    half += jitter
    ahead = m[:, :, None] - m[:, None, :]
    hardness = (ahead / np.sqrt(np.maximum(half, _LEAST))).reshape(r, -1)
    hardness[:, :: k + 1] = np.inf  # an arm's difference from itself comes last, and is left out
    half.reshape(r, -1)[:, :: k + 1] = 0.0
    order = hardness.reshape(r * k, k).argsort(axis=1, kind="stable")[:, :-1].T  # (k−1, r·k)
    start = np.arange(r * k)
    row, first = start * k, start // k * (k * k)
    mine = half.take(order + row)
    spread = mine[:, None] + mine[None] - half.take(order[:, None] * k + (order + first))
    factor, root = cholesky(spread, np.repeat(_HALF * jitter.ravel(), k))
    given = np.empty((k - 1, k - 1, r * k))
    given[:, 0] = ahead.take(order + row)
    np.negative(factor[:, :-1], given[:, 1:])
    given /= root[:, None]
    return given
