"""P(arm wins) for correlated Gaussian scores: arms that share what was learned have scores that move together.

Shapes: k arms. For k = 2 a closed form. For k ≥ 3, arm a wins iff all differences S_a − S_j are positive: an orthant
probability, by Genz's separation of variables (Genz 1992) with the variables in Gibson's order, over fixed quasi-random
points (Richtmyer's, with the tent transform), for all arms at once. No generator: the same scores give the same bits.

Treating correlated scores as independent is not an option: tests/bandit/test_orthant.py shows by how much it is off.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy import special

from bandit import groups, normal
from bandit.errors import PropensityError

Array = NDArray[np.float64]

ALARM = 0.05
"""Largest |Σp − 1| that quasi-random integration may leave. It is an alarm, not a bound: the error is far smaller."""

_REACH = 5.0  # standard deviations of a difference; an arm further behind wins with probability 3e-7 or less
_JITTER = 1e-9  # of the mean variance, on every arm: scores that move together entirely are a tie
_TINY = 1e-300
_LEAST = np.array(_TINY)
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
    return np.ascontiguousarray(raw[:, np.argsort(raw[0])])


_FEW, _MANY = _lattice(128), _lattice(384)
_BLOCK, _TOGETHER = 64, 768  # points and arms of a batch at a time, so that it stays in a cache of 1 MB


def correlated(mean: Array, covariance: Array) -> Array:
    """P(S_a is the largest) for S ~ N(mean (k,), covariance (k, k)); sums to 1.

    Total variation from the truth ≤ 3e-3 up to k = 8 over the stress suite of tests/bandit/test_orthant.py, 4e-3 the
    worst of hundreds of other random laws; to rounding for k = 2. PropensityError for values that no normal law has,
    and when Σp before division by it is off by more than ALARM.
    """
    k = len(mean)
    if not math.isfinite(float(mean.sum()) + float(covariance.sum())):
        raise PropensityError("not a normal law: means or covariances are not finite")
    if k > _MOST:
        raise PropensityError(f"{k} correlated arms: at most {_MOST} can be integrated")
    variance = covariance.diagonal()
    best = int(mean.argmax())
    behind = mean[best] - mean
    apart = variance + variance[best] - 2.0 * covariance[best]
    live = np.flatnonzero(behind * behind <= _REACH**2 * np.maximum(apart, 0.0))
    if len(live) == k:
        return _shares(mean, covariance)
    p = np.zeros(k)
    p[live] = _shares(mean[live], covariance[live[:, None], live])
    return p


def _shares(m: Array, c: Array) -> Array:
    """P(arm wins) for arms that all may; sums to 1."""
    k = len(m)
    if k == 1:
        return np.ones(1)
    p = _two(m, c) if k == 2 else _genz(m, c, _FEW if k <= 6 else _MANY)
    total = float(p.sum())
    if not abs(total - 1.0) <= ALARM:
        raise PropensityError(f"Σp = {total!r} for correlated means {m.tolist()}")
    return p / total


def _two(m: Array, c: Array) -> Array:
    sd = float(np.sqrt(max(c[0, 0] + c[1, 1] - 2.0 * c[0, 1], _TINY)))
    z = float(m[0] - m[1]) / sd
    return special.ndtr(np.array([z, -z]))


def _genz(m: Array, c: Array, points: Array) -> Array:
    """P(all k − 1 differences positive) for each of k arms, before division by the sum."""
    k, n = len(m), points.shape[1]
    level, factor = _conditions(m, c)
    scale = factor.diagonal(axis1=1, axis2=2)[:, :, None]
    # row i of an arm says how far condition i is ahead, given what was drawn for those before it: (1, y_1 … y_i−1)
    given = np.concatenate([level[:, :, None], -factor[:, :, :-1]], axis=2) / scale  # (k, k−1, k−1)
    drawn = np.ones((k, k - 1, n))
    step = chance = special.ndtr(given[:, 0, :1])  # (k, 1), then (k, n): the chance of one condition
    for i in range(1, k - 1):
        share = step * points[i - 1]
        np.maximum(share, _LEAST, out=share)
        special.ndtri(share, drawn[:, i])
        step = np.matmul(given[:, i, None, : i + 1], drawn[:, : i + 1])[:, 0]
        special.ndtr(step, step)
        chance = np.multiply(chance, step, share)  # (k, n)
    return np.asarray(chance.sum(axis=1) / n, dtype=np.float64)


def _conditions(m: Array, c: Array) -> tuple[Array, Array]:
    """How far each arm is ahead of the others (k, k−1), and the Cholesky factors of these differences (k, k−1, k−1).

    The hardest condition comes first (Gibson, Glasbey & Elston 1994): what follows varies less.
    """
    k = len(m)
    variance = c.diagonal()
    half = 0.5 * (variance[:, None] + variance) - c  # ½ var(S_i − S_j)
    half += _JITTER * float(variance.sum()) / k + _TINY
    ahead = m[:, None] - m
    hardness = ahead / np.sqrt(half)
    hardness.ravel()[:: k + 1] = np.inf  # an arm's difference from itself comes last, and is left out
    half.ravel()[:: k + 1] = 0.0
    order = np.argsort(hardness, axis=1, kind="stable")[:, :-1]
    rows = np.arange(k)[:, None]
    mine = half[rows, order]
    spread = mine[:, :, None] + mine[:, None, :]
    spread -= half[order[:, :, None], order[:, None, :]]
    return ahead[rows, order], np.asarray(np.linalg.cholesky(spread), dtype=np.float64)


def correlated_many(mean: Array, covariance: Array, eligible: NDArray[np.bool_]) -> Array:
    """`correlated` of n decisions, each over its own eligible arms: mean and result (n, k), covariance (n, k, k).

    The same rules and the same points: at most 1e-8 from `correlated` in total variation, because of `normal`'s
    tables. A row's bits do not depend on the other rows. PropensityError as `correlated`.
    """
    n, k = mean.shape
    if not np.isfinite(np.where(eligible, mean, 0.0)).all() or not np.isfinite(covariance).all():
        raise PropensityError("not normal laws: means or covariances are not finite")
    rows = np.arange(n)
    variance = np.einsum("naa->na", covariance)
    best = np.where(eligible, mean, -np.inf).argmax(axis=1)
    behind = mean[rows, best, None] - mean
    apart = variance + variance[rows, best, None] - 2.0 * covariance[rows, best]
    live = eligible & (behind * behind <= _REACH**2 * np.maximum(apart, 0.0))
    p = np.zeros((n, k))
    for m, some, arms in groups.by_number(live):
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
        p = special.ndtr(np.stack([z, -z], axis=1))
    else:
        p = np.empty((r, k))
        for piece in groups.pieces(np.arange(r), max(_TOGETHER // k, 2)):
            p[piece] = _genz_many(m[piece], c[piece], _FEW if k <= 6 else _MANY)
    total = p.sum(axis=1, keepdims=True)
    if not (np.abs(total - 1.0) <= ALARM).all():
        worst = int(np.argmax(np.abs(total - 1.0)))
        raise PropensityError(f"Σp = {total[worst, 0]!r} for correlated means {m[worst].tolist()}")
    return np.asarray(p / total, dtype=np.float64)


def _genz_many(m: Array, c: Array, points: Array) -> Array:
    """`_genz` of r decisions, (r, k): the arms of all decisions side by side, a block of points at a time."""
    r, k = m.shape
    given = _given_many(m, c)
    first = special.ndtr(given[0, 0])
    total = np.zeros(r * k)
    drawn, room = np.empty((k - 1, _BLOCK, r * k)), normal.scratch((_BLOCK, r * k))
    share, step, ahead = (np.empty((_BLOCK, r * k)) for _ in range(3))
    for start in range(0, points.shape[1], _BLOCK):
        chance = np.broadcast_to(first, share.shape).copy()
        step[:] = first
        for i in range(1, k - 1):
            np.multiply(step, points[i - 1, start : start + _BLOCK, None], out=share)
            normal.quantile(share, drawn[i], room)
            np.multiply(given[i, 1], drawn[1], out=ahead)
            for j in range(2, i + 1):
                np.multiply(given[i, j], drawn[j], out=share)
                np.add(ahead, share, out=ahead)
            np.add(ahead, given[i, 0], out=ahead)
            normal.below(ahead, step, room)
            np.multiply(chance, step, out=chance)
        total += chance.sum(axis=0)
    return np.asarray(total.reshape(r, k) / points.shape[1], dtype=np.float64)


def _given_many(m: Array, c: Array) -> Array:
    """What `_genz` calls `given`, of r decisions: (k−1, k−1, r·k), arms of all decisions last."""
    r, k = m.shape
    variance = np.einsum("raa->ra", c)
    half = 0.5 * (variance[:, :, None] + variance[:, None, :]) - c
    half += (_JITTER * variance.sum(axis=1) / k + _TINY)[:, None, None]
    ahead = m[:, :, None] - m[:, None, :]
    hardness = ahead / np.sqrt(half)
    hardness.reshape(r, -1)[:, :: k + 1] = np.inf
    half.reshape(r, -1)[:, :: k + 1] = 0.0
    order = np.argsort(hardness, axis=2, kind="stable")[:, :, :-1]
    mine = np.take_along_axis(half, order, axis=2)
    pairs = order[..., :, None] * k + order[..., None, :] + (np.arange(r) * k * k)[:, None, None, None]
    factor = np.linalg.cholesky(mine[..., :, None] + mine[..., None, :] - half.reshape(-1).take(pairs))
    level = np.take_along_axis(ahead, order, axis=2)
    given = np.concatenate([level[..., None], -factor[..., :-1]], axis=3)
    given /= np.einsum("...ii->...i", factor)[..., None]
    return np.ascontiguousarray(given.reshape(r * k, k - 1, k - 1).transpose(1, 2, 0))
