"""Belief: what a stage has learned, an exact sum of sites, one for each settled decision.

Shapes: k arms, d features (the first is the constant 1), n rows.

A site of precision τ and shift ν at feature vector x adds τ·xxᵀ to Λ_a and ν·x to b_a. Every contribution is rounded to
multiples of 2⁻²⁴ before it is added, so sums of up to 2²⁹ rows of size ≤ 1 are exact in float64: associative,
commutative and invertible. Any order, batching or number of learners ends in the same bits.
"""

import hashlib
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bandit.arrays import Array
from bandit.numerics import arithmetic

GRID = 2.0**24
X_GRID = 2.0**12  # a product of two such multiples is on GRID already
CAPACITY = 2**29
"""Rows of an arm up to which sums of contributions of size ≤ 1 on `GRID` are exact in float64: `add` refuses more."""
_CHUNK = 512


class Belief(NamedTuple):
    """Sufficient statistics of every arm: counts, reward sums, and precision and shift of the regression.

    Guarantees: a value, never changed in place, so that readers never see half an update; sums of sites are exact (see
    the module), so equal logs in any order end in equal bits and one `digest`.

        both = add(sites(k, x1, arm1, tau1, nu1, r1), sites(k, x2, arm2, tau2, nu2, r2))
    """

    n: Array  # (k,) settled decisions
    reward: Array  # (k,) Σ r, r scaled to [0, 1]
    square: Array  # (k,) Σ r²
    precision: Array  # (k, d, d) Λ = Σ τ xxᵀ
    shift: Array  # (k, d) b = Σ ν x

    def digest(self) -> str:
        """SHA-256 (hex) of shapes and bits, little-endian: equal digests mean equal beliefs. Snapshots, releases and
        receipts carry it.
        """
        sha = hashlib.sha256()
        for part in self:
            sha.update(str(part.shape).encode())
            sha.update(np.ascontiguousarray(part, dtype="<f8").tobytes())
        return sha.hexdigest()


def empty(k: int, d: int) -> Belief:
    """Belief of k arms and d features that has learned nothing: all zeros."""
    return Belief(np.zeros(k), np.zeros(k), np.zeros(k), np.zeros((k, d, d)), np.zeros((k, d)))


def add(left: Belief, right: Belief) -> Belief:
    """The belief of both logs together. Exact; ValueError where an arm has more than `CAPACITY` rows, beyond which a
    sum would depend on its order.
    """
    total = Belief(*(a + b for a, b in zip(left, right, strict=True)))
    if (total.n > CAPACITY).any():
        raise ValueError(
            f"an arm has {total.n.max():.0f} rows: sums are exact up to {CAPACITY}; raise the stage's schema"
        )
    return total


def subtract(total: Belief, part: Belief) -> Belief:
    """The belief of the rest of a log, where `part` is that of some of its rows: the inverse of `add`, to the bit."""
    return Belief(*(a - b for a, b in zip(total, part, strict=True)))


def stack(upper: Belief, lower: Belief) -> Belief:
    """Belief with the arms of both, those of `upper` first: (k₁ + k₂) rows over the same d features. Hurdle policies
    keep two halves so.
    """
    return Belief(*(np.concatenate([a, b]) for a, b in zip(upper, lower, strict=True)))


def sites(k: int, x: Array, arm: NDArray[np.intp], tau: Array, nu: Array, reward: Array) -> Belief:
    """Belief of n settled rows: the sum of their sites. x (n, d) on the 2⁻¹² grid, arm (n,) indices, tau (n,), nu (n,),
    reward (n,) in [0, 1].

    The learner calls it for each batch of settlements, and a rebuild for the whole ledger. Raises ValueError for
    anything that would break exactness: not finite, larger than 1 in size, x off its grid.
    """
    for name, values in (("x", x), ("tau", tau), ("nu", nu), ("reward", reward)):
        if not np.all(np.abs(values) <= 1.0):  # also false for NaN
            raise ValueError(f"{name} has values outside [-1, 1]: the sums would not be exact")
    if not np.array_equal(np.rint(x * X_GRID), x * X_GRID):
        raise ValueError("x has values off the 2⁻¹² grid: the sums would not be exact")
    total = empty(k, x.shape[1])
    for a in range(k):
        rows = np.flatnonzero(arm == a)
        r = grid(reward[rows])
        total.n[a] = len(rows)
        total.reward[a] = r.sum()
        total.square[a] = grid(r * r).sum()
        total.shift[a] = grid(nu[rows, None] * x[rows]).sum(axis=0)
        total.precision[a] = _outer(x[rows], tau[rows])
    return total


def weighted(k: int, x: Array, arm: NDArray[np.intp], tau: Array, nu: Array, reward: Array, weight: Array) -> Belief:
    """Belief of n rows that count in part: reward moments weigh `weight` (n,), tau (n,) and nu (n,) hold their weight
    already; x (n, d), arm (n,), reward (n,) in [0, 1].

    Not exact, never stored: what is provisional is computed anew for each snapshot, to the same bits.
    """
    total = empty(k, x.shape[1])
    for a in np.unique(arm).tolist():
        rows = np.flatnonzero(arm == a)
        w, r = weight[rows], reward[rows]
        for part, terms in ((total.n, w), (total.reward, w * r), (total.square, w * r * r)):
            part[a] = math.fsum(terms.tolist())
        total.shift[a] = arithmetic.product(nu[None, rows], x[rows])[0]
        total.precision[a] = arithmetic.product(x[rows].T * tau[rows], x[rows])
    return total


def _outer(x: Array, tau: Array) -> Array:
    """Σ grid(τ xxᵀ). With τ = 1 every product of two 2⁻¹² multiples is on the grid already: one matmul."""
    if np.all(tau == 1.0):
        return x.T @ x + 0.0
    total = np.zeros((x.shape[1], x.shape[1]))
    for start in range(0, len(x), _CHUNK):
        part = x[start : start + _CHUNK]
        weighted = tau[start : start + _CHUNK, None, None] * (part[:, :, None] * part[:, None, :])
        total += grid(weighted).sum(axis=0)
    return total


def reward_moments(
    k: int, arm: NDArray[np.intp], reward: Array, weight: Array, *, exact: bool
) -> tuple[Array, Array, Array]:
    """Counts, Σ r and Σ r² of each arm, (k,) each, of n rows with weight (n,); `exact`: rounded to the grid, weights
    are 1.
    """
    n, first, second = np.zeros(k), np.zeros(k), np.zeros(k)
    for a in np.unique(arm).tolist():
        rows = np.flatnonzero(arm == a)
        w, r = weight[rows], grid(reward[rows]) if exact else reward[rows]
        for part, terms in ((n, w), (first, w * r), (second, w * r * r)):
            part[a] = grid(terms).sum() if exact else math.fsum(terms.tolist())
    return n, first, second


def grid(values: Array) -> Array:
    """Values rounded to the dyadic grid of multiples of 2⁻²⁴; + 0.0 turns −0.0 into 0.0, which has other bits."""
    return np.rint(values * GRID) / GRID + 0.0


def grid_sums(values: Array, rows: Array) -> Array:
    """Σ grid(values_i rows_i) of n rows, values (n, m) and rows (n, d): every product rounded to the grid, the sums
    exact; the result is (m, d).
    """
    total = np.empty((values.shape[1], rows.shape[1]))
    steps, scratch = values * GRID, np.empty_like(rows)
    for place in range(len(total)):
        np.multiply(steps[:, place, None], rows, out=scratch)
        np.rint(scratch, out=scratch).sum(axis=0, out=total[place])
    return np.asarray(total / GRID + 0.0, dtype=np.float64)
