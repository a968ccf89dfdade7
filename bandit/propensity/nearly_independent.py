"""Win probabilities of correlated Gaussian scores that are nearly independent once what they share is taken away.

Only differences decide which arm wins, and these do not change if u_a + u_b is taken from every covariance C_ab. With
u by least squares, what is left between arms is small wherever arms share a baseline, a common effect or an intercept:

    D_a = C_aa − 2u_a,  R_ab = C_ab − u_a − u_b (a ≠ b),  u_a = (r_a − Σr / (2(k − 1))) / (k − 2),  r_a = Σ_{b≠a} C_ab

For k = 3, R = 0. The probabilities of diag(D) + R are those of independent scores, and the first term of their series
in R: ∂P/∂C_ij = ∂²P/∂m_i∂m_j (Plackett 1954), under the same integral. With z = (t − m) / √D, h = φ(z)/Φ(z), ρ = R
divided by the sds, v = ρh and Q = ½ hᵀv:

    P(a wins) = ∫ Π_j Φ(z_j) · h_a (1 + Q − v_a (h_a + z_a)) dt / √D_a

What is left out is of second order: total variation ≤ 1.5e-3 on random laws up to the largest row sum of |ρ|, `MOST`,
and ≤ 3e-3 on those that a search for the worst has found; nothing is proved
(tests/bandit/propensity/test_nearly_independent.py). Where it is larger, as where arms of a type share an effect, one
factor is looked for: given T ~ N(0, 1), scores have means m + T·l and are nearly independent, ρ ≈ g gᵀ off its diagonal
(least squares, by coordinates), l = g times the sds. The integral over T is a trapezoidal rule.

Shapes: k ≥ 3 arms, r rows, q nodes of T.
"""

import math
from typing import NamedTuple

import numpy as np

from bandit.arrays import Array, Mask
from bandit.numerics import arithmetic
from bandit.numerics.arithmetic import total
from bandit.propensity import batching, gaussian

MOST = 0.25
"""Largest Σ_b |ρ_ab| of an arm with which scores count as nearly independent."""
SMALLEST = 1e-280  # variance that numbers can be divided by
SLIGHT = 1e-3  # up to it the correction is 5e-5 at most, and left out
JITTER = 1e-9  # of the mean variance, on every arm: scores that move together entirely are a tie
OFF = 1e-5  # largest |Σp − 1|
ROUNDS = 6  # over the coordinates of the factor
STRONGEST = 0.5  # share of a score's variance that the factor may be: the rule errs by 1e-4 there
NODES = np.arange(-3.0, 4.0)
WEIGHTS = arithmetic.exp(-0.5 * NODES * NODES)
WEIGHTS = WEIGHTS / arithmetic.total(WEIGHTS)
_NUMBERS = 2**18  # correlations of one array of a batch


class Split(NamedTuple):
    """Law of k scores with the differences of another: sds (k,) and what correlation is left, ρ (k, k), with zeros on
    its diagonal; `largest` is the largest Σ_b |ρ_ab|.
    """

    sd: list[float]
    rho: list[list[float]]
    largest: float


def split(c: list[list[float]]) -> Split | None:
    """Split of a covariance (k, k); None where variances would not be positive."""
    k, everything, trace = len(c), 0.0, 0.0
    rows = []
    for a, row in enumerate(c):
        one = 0.0  # added in order, as in `_size`
        for v in row[:a]:
            one += v
        for v in row[a + 1 :]:
            one += v
        rows.append(one)
        everything += one
        trace += row[a]
    half = everything / (2.0 * (k - 1.0))
    u = [(one - half) / (k - 2.0) for one in rows]
    jitter = JITTER * trace / k
    variance = [row[a] - 2.0 * u[a] + jitter for a, row in enumerate(c)]
    if min(variance) <= SMALLEST:
        return None
    sd = [math.sqrt(v) for v in variance]
    largest, rho = 0.0, []
    for a, row in enumerate(c):
        own, width = u[a], sd[a]
        left = [(v - own - w) / (width * s) for v, w, s in zip(row, u, sd)]  # noqa: B905
        left[a] = 0.0
        largest = max(largest, _size(left))
        rho.append(left)
    return Split(sd, rho, largest)


def _factor(found: Split) -> tuple[Split, list[float]] | None:
    """Split given the factor T, and what a unit of T adds to each score (k,); None where no factor leaves the scores
    nearly independent.
    """
    g = _loadings(found.rho)
    if g is None or max(v * v for v in g) > STRONGEST:
        return None
    narrower = [math.sqrt(1.0 - v * v) for v in g]
    largest, left = 0.0, []
    for a, row in enumerate(found.rho):
        own, width = g[a], narrower[a]
        some = [(v - own * w) / (width * s) for v, w, s in zip(row, g, narrower)]  # noqa: B905
        some[a] = 0.0
        largest = max(largest, _size(some))
        left.append(some)
    if largest > MOST:
        return None
    sd = [s * w for s, w in zip(found.sd, narrower, strict=True)]
    return Split(sd, left, largest), [v * s for v, s in zip(g, found.sd, strict=True)]


def _loadings(rho: list[list[float]]) -> list[float] | None:
    """Loadings g (k,) with g gᵀ ≈ ρ off its diagonal: each in turn by least squares, the others given."""
    sizes = [_size(row) for row in rho]
    first = sizes.index(max(sizes))
    start = math.sqrt(max(map(abs, rho[first])))
    g = [v / start for v in rho[first]]
    g[first] = start
    whole = _size([v * v for v in g])
    for _ in range(ROUNDS):
        for a, row in enumerate(rho):
            told = 0.0
            for v, w in zip(row, g):  # noqa: B905
                told += v * w
            rest = whole - g[a] * g[a]
            if rest <= 0.0:
                return None
            g[a] = new = told / rest
            whole = rest + new * new
    return g


def _size(row: list[float]) -> float:
    """Sum of absolute values, added in order: Python's own sum of floats corrects itself from 3.12 on."""
    size = 0.0
    for v in row:
        size += abs(v)
    return size


def shares(m: list[float], c: list[list[float]]) -> list[float] | None:
    """Win probabilities (k,) of means m (k,) and covariance c (k, k), before division by their sum; None where the
    scores are not nearly independent, not given a factor either, or their widths too far apart for one grid.
    """
    found = split(c)
    if found is None:
        return None
    if found.largest > MOST:
        given = _factor(found)
        if given is None:
            return None
        one, load = given
        each, fits = _over_factor(*(np.array([part]) for part in (m, one.sd, one.rho, load)))
        over: list[float] = each[0].tolist()
        return over if fits[0] else None
    if found.largest <= SLIGHT:
        alone: list[float] = gaussian.shares(m, found.sd).tolist()
        return alone
    p = [v if v > 0.0 else 0.0 for v in gaussian.trapezoid(m, found.sd, np.array(found.rho)).tolist()]
    return p if abs(math.fsum(p) - 1.0) <= OFF else None


def shares_many(m: Array, c: Array) -> tuple[Array, Mask]:
    """`shares` of r rows with the same bits: p (r, k), and of which rows there are any, (r,); m (r, k), c (r, k, k)."""
    sd, rho, largest = _split_many(c)
    fits = largest <= MOST
    p = np.zeros_like(m)
    plain, rows, others = (
        np.flatnonzero(some) for some in (largest <= SLIGHT, fits & (largest > SLIGHT), ~fits & np.isfinite(largest))
    )
    if len(plain):
        p[plain] = gaussian.shares_many(m[plain], sd[plain])
    if len(rows):
        p[rows] = np.maximum(gaussian.trapezoids(m[rows], sd[rows], rho[rows]), 0.0)
        fits[rows] = np.abs(p[rows].sum(axis=1) - 1.0) <= OFF
    if len(others):
        narrower, left, load, good = _factor_many(sd[others], rho[others])
        size = max(_NUMBERS // (len(NODES) * m.shape[1] ** 2), 2)
        for some in batching.pieces(np.flatnonzero(good), size):
            at = others[some]
            p[at], fits[at] = _over_factor(m[at], narrower[some], left[some], load[some])
    return p, fits


def _over_factor(m: Array, sd: Array, rho: Array, load: Array) -> tuple[Array, Mask]:
    """Win probabilities (r, k) as means over the factor, and of which rows there are any, (r,); m, sd and load (r, k),
    rho (r, k, k).
    """
    (r, k), q = m.shape, len(NODES)
    each = (m[:, None] + NODES[:, None] * load[:, None]).reshape(r * q, k)
    p = gaussian.trapezoids(each, np.repeat(sd, q, axis=0), np.repeat(rho, q, axis=0))
    fits = (np.abs(p.sum(axis=1) - 1.0) <= OFF).reshape(r, q).all(axis=1)
    mean = total(np.moveaxis(p.reshape(r, q, k) * WEIGHTS[:, None], 1, 0))
    return np.maximum(mean, 0.0), fits


def _factor_many(sd: Array, rho: Array) -> tuple[Array, Array, Array, Mask]:
    """`_factor` of r rows: sds (r, k), ρ (r, k, k) and loads (r, k) given the factor, and which rows have one (r,)."""
    r, k = sd.shape
    every = np.arange(r)
    first = total(np.moveaxis(np.abs(rho), 2, 0)).argmax(axis=1)
    g = rho[every, first]
    start = np.sqrt(np.abs(g).max(axis=1))
    g = g / start[:, None]
    g[every, first] = start
    whole, good = total((g * g).T), np.ones(r, dtype=bool)
    for _ in range(ROUNDS):
        for a in range(k):
            told = total((rho[:, a] * g).T)
            rest = whole - g[:, a] * g[:, a]
            good &= rest > 0.0
            g[:, a] = told / np.where(rest > 0.0, rest, 1.0)
            whole = rest + g[:, a] * g[:, a]
    good &= (g * g).max(axis=1) <= STRONGEST
    narrower = np.sqrt(np.where(good[:, None], 1.0 - g * g, 1.0))
    left = (rho - g[:, :, None] * g[:, None]) / (narrower[:, :, None] * narrower[:, None])
    left[:, np.arange(k), np.arange(k)] = 0.0
    good &= total(np.moveaxis(np.abs(left), 2, 0)).max(axis=1) <= MOST
    return sd * narrower, left, g * sd, good


def _split_many(c: Array) -> tuple[Array, Array, Array]:
    """`split` of r rows (r, k, k): sds (r, k), ρ (r, k, k) and `largest` (r,), infinite where there is no law of that
    kind.
    """
    k = c.shape[1]
    own = np.arange(k)
    variance = c[:, own, own]
    others = c.copy()
    others[:, own, own] = 0.0
    rows = total(np.moveaxis(others, 2, 0))
    half = total(rows.T) / (2.0 * (k - 1.0))
    u = (rows - half[:, None]) / (k - 2.0)
    left = variance - 2.0 * u + (JITTER * total(variance.T) / k)[:, None]
    bad = left.min(axis=1) <= SMALLEST
    sd = np.sqrt(np.where(bad[:, None], 1.0, left))
    rho = (others - u[:, :, None] - u[:, None, :]) / (sd[:, :, None] * sd[:, None, :])
    rho[:, own, own] = 0.0
    largest = total(np.moveaxis(np.abs(rho), 2, 0)).max(axis=1)
    return sd, rho, np.where(bad, np.inf, largest)
