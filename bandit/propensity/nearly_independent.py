"""Win probabilities of correlated Gaussian scores that are nearly independent once what they share is taken away.

Only differences decide which arm wins, and these do not change if u_a + u_b is taken from every covariance C_ab. With
u by least squares, what is left between arms is small wherever arms share a baseline, a common effect or an intercept:

    D_a = C_aa − 2u_a,  R_ab = C_ab − u_a − u_b (a ≠ b),  u_a = (r_a − Σr / (2(k − 1))) / (k − 2),  r_a = Σ_{b≠a} C_ab

For k = 3, R = 0. The probabilities of diag(D) + R are those of independent scores, and the first term of their series
in R: ∂P/∂C_ij = ∂²P/∂m_i∂m_j (Plackett 1954), under the same integral. With z = (t − m) / √D, h = φ(z)/Φ(z), ρ = R
divided by the sds, v = ρh and Q = ½ hᵀv:

    P(a wins) = ∫ Π_j Φ(z_j) · h_a (1 + Q − v_a (h_a + z_a)) dt / √D_a

What is left out is of second order: total variation ≤ 1.5e-3 up to the largest row sum of |ρ| that is taken, `MOST`
(tests/bandit/propensity/test_nearly_independent.py). Shapes: k ≥ 3 arms, r rows.
"""

import math
from typing import NamedTuple

import numpy as np

from bandit.arrays import Array, Mask
from bandit.numerics.arithmetic import total
from bandit.propensity import gaussian

MOST = 0.3
"""Largest Σ_b |ρ_ab| of an arm with which scores count as nearly independent."""
_LEAST = 1e-3  # up to it the correction is 5e-5 at most, and left out
_JITTER = 1e-9  # of the mean variance, on every arm: scores that move together entirely are a tie
_OFF = 1e-5  # largest |Σp − 1|


class Split(NamedTuple):
    """Law of k scores with the differences of another: sds (k,) and what correlation is left, ρ (k, k), with zeros on
    its diagonal; `most` is the largest Σ_b |ρ_ab|.
    """

    sd: list[float]
    rho: list[list[float]]
    most: float


def split(c: list[list[float]]) -> Split | None:
    """Split of a covariance (k, k); None where its scores are not nearly independent."""
    k, everything, trace = len(c), 0.0, 0.0
    rows = []
    for a, row in enumerate(c):
        one = 0.0  # added in order: Python's own sum of floats corrects itself from 3.12 on
        for v in row[:a]:
            one += v
        for v in row[a + 1 :]:
            one += v
        rows.append(one)
        everything += one
        trace += row[a]
    half = everything / (2.0 * (k - 1.0))
    u = [(one - half) / (k - 2.0) for one in rows]
    jitter = _JITTER * trace / k
    variance = [row[a] - 2.0 * u[a] + jitter for a, row in enumerate(c)]
    if min(variance) <= 0.0:
        return None
    sd = [math.sqrt(v) for v in variance]
    most, rho = 0.0, []
    for a, row in enumerate(c):
        own, width = u[a], sd[a]
        left = [(v - own - w) / (width * s) for v, w, s in zip(row, u, sd)]  # noqa: B905
        left[a] = size = 0.0
        for v in left:
            size += abs(v)
        if size > MOST:
            return None
        most = max(most, size)
        rho.append(left)
    return Split(sd, rho, most)


def shares(m: list[float], c: list[list[float]]) -> list[float] | None:
    """Win probabilities (k,) of means m (k,) and covariance c (k, k), before division by their sum; None where the
    scores are not nearly independent, or their widths too far apart for one grid.
    """
    found = split(c)
    if found is None:
        return None
    if found.most <= _LEAST:
        alone: list[float] = gaussian.shares(m, found.sd).tolist()
        return alone
    p = [v if v > 0.0 else 0.0 for v in gaussian.trapezoid(m, found.sd, np.array(found.rho)).tolist()]
    return p if abs(math.fsum(p) - 1.0) <= _OFF else None


def shares_many(m: Array, c: Array) -> tuple[Array, Mask]:
    """`shares` of r rows with the same bits: p (r, k), and of which rows there are any, (r,); m (r, k), c (r, k, k)."""
    sd, rho, most = _split_many(c)
    fits = most <= MOST
    p = np.zeros_like(m)
    plain, rows = np.flatnonzero(most <= _LEAST), np.flatnonzero(fits & (most > _LEAST))
    if len(plain):
        p[plain] = gaussian.shares_many(m[plain], sd[plain])
    if len(rows):
        p[rows] = np.maximum(gaussian.trapezoids(m[rows], sd[rows], rho[rows]), 0.0)
        fits[rows] = np.abs(p[rows].sum(axis=1) - 1.0) <= _OFF
    return p, fits


def _split_many(c: Array) -> tuple[Array, Array, Array]:
    """`split` of r rows (r, k, k): sds (r, k), ρ (r, k, k) and `most` (r,), infinite where there is no law of that
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
    left = variance - 2.0 * u + (_JITTER * total(variance.T) / k)[:, None]
    bad = left.min(axis=1) <= 0.0
    sd = np.sqrt(np.where(bad[:, None], 1.0, left))
    rho = (others - u[:, :, None] - u[:, None, :]) / (sd[:, :, None] * sd[:, None, :])
    rho[:, own, own] = 0.0
    most = total(np.moveaxis(np.abs(rho), 2, 0)).max(axis=1)
    return sd, rho, np.where(bad, np.inf, most)
