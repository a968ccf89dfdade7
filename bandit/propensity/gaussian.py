"""Thompson-sampling propensities for independent Gaussian scores: P(arm wins one posterior draw).

Shapes: k arms. Functions take and return float64 arrays of shape (k,), or (n, k) where a name ends in `_many`. All of
it is + − × ÷ √ in a fixed order: the same bits on every processor.

Sources: the trapezoidal rule of entire integrands (Trefethen & Weideman 2014) while widths are alike; composite
Gauss–Legendre on arm-centred panels where they are not, because one common grid fails when posteriors differ in width.
"""

import math

import numpy as np
from numpy.typing import NDArray

from bandit.arrays import Array, Mask
from bandit.errors import PropensityError
from bandit.numerics.arithmetic import product
from bandit.numerics.arithmetic import total as added
from bandit.numerics.legendre import points
from bandit.propensity import batching, normal_tables

TOLERANCE = 1e-6
"""Largest |Σp − 1| that integration may leave; beyond it a finer grid is tried, then the alarm is raised."""

_NARROWEST, _WIDEST = 1e-100, 1e100  # of sds, so that their squares are floats
_APART = 6.5**2  # squared sds of a difference, at which the arm behind wins with probability 4e-11
REACH = 6.0  # standard deviations; the normal tail beyond is 1e-9
RARE = 41.44653167389282  # 2 log 10⁹
LONGEST = 512  # nodes of a trapezoidal grid; a longer one costs more than panels
_BUCKET = 8  # rows of a batch share a grid of as many nodes, rounded up to this
_TOGETHER = 16  # so few rows all share the longest grid
_CACHED = 2**15  # numbers of one array of a batch, so that what is being computed stays in a cache of 1 MB
FEW = 12  # arms up to which sums over pairs of them are sooner added than multiplied as matrices
_AT = np.arange(float(LONGEST + 1))[:, None]
LOG_FOUR = 1.3862943611198906

_BREAKS = np.array([-8.0, -5.5, -3.5, -1.75, 0.0, 1.75, 3.5, 5.5, 8.0])
_FINE = np.arange(-8.0, 8.1, 1.0)
_TAIL = 8.3  # the normal tail beyond is 5e-17


def gaussian(mean: Array, sd: Array) -> Array:
    """Win probabilities P(S_a is the largest), (k,), for independent S_a ~ N(mean_a, sd_a²), mean and sd (k,), sd > 0.

    Error ≤ 1e-8 absolute over the stress suite of tests/bandit/propensity/test_propensity.py, up to k = 20. Policies
    call it once for each decision, over eligible arms only. Raises PropensityError when Σp stays away from 1 by more
    than TOLERANCE, or for values that no normal law has: it is never renormalised away.
    """
    m, s = mean.tolist(), sd.tolist()  # k is small: plain floats are faster than arrays
    if not (abs(sum(m)) <= _WIDEST and sum(s) <= _WIDEST and min(s) >= _NARROWEST):
        raise PropensityError(f"not normal laws: means {m} and sds {s}")
    top = max(m)
    width = s[m.index(top)] ** 2
    if (top - min(m)) ** 2 <= _APART * width:
        return shares(m, s)
    live = [a for a, v in enumerate(s) if (top - m[a]) ** 2 <= _APART * (v * v + width)]
    p = np.zeros(len(m))  # the others lose to the best of means, if to no one else
    p[live] = shares([m[a] for a in live], [s[a] for a in live])
    return p


def shares(m: list[float], s: list[float]) -> Array:
    """Win probabilities as of `gaussian`, (k,), of means m and sds s of arms that all may win: none is left out."""
    if len(m) == 1:
        return np.ones(1)
    if len(m) == 2:
        z = (m[0] - m[1]) / math.sqrt(s[0] * s[0] + s[1] * s[1])
        return np.array([normal_tables.one(z), normal_tables.one(-z)])
    total = math.nan
    for rule in (trapezoid, _panels, _fine_panels):
        p = rule(m, s)
        total = math.fsum(p.tolist())
        if abs(total - 1.0) <= TOLERANCE:
            return p
    raise PropensityError(f"Σp = {total!r} for means {m} and sds {s}")


def trapezoid(m: list[float], s: list[float], rho: Array | None = None) -> Array:
    """One grid of step h = 1/√W, W = Σ 1/s²: off by at most 2e^(−2π²)·p_a = 5.4e-9·p_a, and by 1e-9 at each end.

    At x + iy, |φ| = φ(x)·e^(y²/2) and |Φ| ≤ Φ(x)·e^(y²/2), so the integrand is at most its value at x times e^(Wy²/2).
    Moving its Fourier integral to y = −ω/W bounds that by p_a·e^(−ω²/2W), and the rule's error is its sum over
    ω = ±2π/h, ±4π/h, … All zeros where the grid would be long: some arm is far narrower than the reach of another.
    With correlations ρ (k, k), the first term of the series in them is added (`nearly_independent`).
    """
    low, step, count = _grid(m, s)
    rate = np.array([[step / v] for v in s])
    z = _AT[:count, 0] * rate  # (k, nodes)
    z += np.array([[(low - u) / v] for u, v in zip(m, s)])  # noqa: B905
    below, term = np.empty_like(z), np.empty_like(z)
    normal_tables.both(z, below, term, normal_tables.scratch(z.shape))  # Φ ≥ 1e-9: `low` is that close to every arm
    everyone = np.multiply.reduce(below, 0)
    np.divide(term, below, term)  # f_a Π_{j≠a} F_j = (f_a / F_a) Π_j F_j
    if rho is not None:
        many = len(s) > FEW
        v = product(rho.T, term) if many else np.add.reduce(term[:, None] * rho[:, :, None], 0)
        _correct(term, z, v, below)
    np.multiply(term, everyone, term)
    p: Array = np.add.accumulate(term, 1)[:, -1:] * rate if count else np.zeros_like(rate)
    return p[:, 0]


def _grid(m: list[float], s: list[float]) -> tuple[float, float, int]:
    """Where the trapezoidal grid starts, its step, and how many nodes it has: none where that would be too many."""
    total = moment = 0.0
    low = high = -math.inf
    for u, v in zip(m, s):  # noqa: B905
        weight, reach = 1.0 / (v * v), REACH * v
        total += weight
        moment += weight * u
        low = u - reach if u - reach > low else low  # half the price of max()
        high = u + reach if u + reach > high else high
    step = 1.0 / math.sqrt(total)
    # below every mean, Π F_j(t) ≤ 2^−k·exp(−½ Σ (m_j − t)²/s_j²): where that is 1e-9, little is left to the left
    start = moment / total - step * math.sqrt(max(RARE - len(m) * LOG_FOUR, 0.0))
    if low < start <= min(m):
        low = start
    count = (high - low) / step + 2.0
    return low, step, int(count) if count <= LONGEST else 0


def _panels(m: list[float], s: list[float], breaks: Array = _BREAKS) -> Array:
    """Gauss–Legendre, every arm bringing edges at its own scale."""
    mean, sd = np.array(m), np.array(s)
    low, high = float(np.max(mean - _TAIL * sd)), float(np.max(mean + _TAIL * sd))
    t, weight = points(_thinned(mean[:, None] + breaks * sd[:, None], low, high, min(s)))
    z = np.clip((t[:, None] - mean) / sd, -8.4, 8.4)  # (nodes, k)
    below, term = np.empty_like(z), np.empty_like(z)
    normal_tables.both(z, below, term, normal_tables.scratch(z.shape))
    everyone = np.multiply.reduce(below, 1)
    p: Array = added(term / below * (weight * everyone)[:, None]) / sd
    return p


def _fine_panels(m: list[float], s: list[float]) -> Array:
    return _panels(m, s, _FINE)


def _thinned(breaks: Array, low: float, high: float, apart: float) -> Array:
    """Panel edges from low to high: the breaks between, left out where closer than `apart` to the one before.

    `apart` is the smallest sd: near-equal arms share their panels.
    """
    edges = [low]
    for edge in np.sort(breaks, axis=None).tolist():
        if edge - edges[-1] >= apart and edge < high:
            edges.append(edge)
    return np.array([*edges, high])


def gaussian_many(mean: Array, sd: Array, eligible: Mask) -> Array:
    """Win probabilities of n decisions, each over its own eligible arms; everything is (n, k), the result 0 where
    ineligible.

    The bits of `gaussian` in every row, whatever the other rows. Raises PropensityError as `gaussian`, for all rows if
    one of them fails.
    """
    m, s = np.where(eligible, mean, 0.0), np.where(eligible, sd, 1.0)
    if not ((np.abs(m.sum(axis=1)) <= _WIDEST) & (s.sum(axis=1) <= _WIDEST) & (s.min(axis=1) >= _NARROWEST)).all():
        raise PropensityError("not normal laws: means are not finite, or sds not positive")
    masked = np.where(eligible, mean, -np.inf)
    best = masked.argmax(axis=1)[:, None]
    behind = np.take_along_axis(masked, best, axis=1) - m
    live = eligible & (behind * behind <= _APART * (s * s + np.take_along_axis(s, best, axis=1) ** 2))
    p = np.zeros_like(m)
    for _, rows, arms in batching.by_number(live):
        at = rows[:, None]
        p[at, arms] = shares_many(m[at, arms], s[at, arms])
    return p


def shares_many(m: Array, s: Array) -> Array:
    """`shares` of r rows of as many arms, (r, k)."""
    r, k = m.shape
    if k == 1:
        return np.ones((r, 1))
    if k == 2:
        z = (m[:, 0] - m[:, 1]) / np.sqrt(s[:, 0] * s[:, 0] + s[:, 1] * s[:, 1])
        p = np.empty((r, 2))
        normal_tables.below(np.stack([z, -z], axis=1), p, normal_tables.scratch(p.shape))
        return p
    p = trapezoids(m, s)
    for row in np.flatnonzero(~(np.abs(p.sum(axis=1) - 1.0) <= TOLERANCE)).tolist():
        p[row] = shares(m[row].tolist(), s[row].tolist())  # widths too far apart for one grid, as there
    return p


def trapezoids(m: Array, s: Array, rho: Array | None = None) -> Array:
    """`trapezoid` of r rows, (r, k); rho (r, k, k)."""
    k, p, (low, step, count) = m.shape[1], np.zeros_like(m), _grids(m, s)
    bucket = -(-count // _BUCKET) * _BUCKET
    if len(m) <= _TOGETHER:
        bucket[count > 0] = bucket.max()
    for nodes in np.unique(bucket[count > 0]).tolist():
        for rows in batching.pieces(np.flatnonzero(bucket == nodes), max(_CACHED // (k * nodes), 2)):
            some = None if rho is None else np.moveaxis(rho[rows], 0, 2)
            p[rows] = _alike(m[rows], s[rows], some, low[rows], step[rows], count[rows], nodes)
    return p


def _alike(
    m: Array, s: Array, rho: Array | None, low: Array, step: Array, count: NDArray[np.intp], nodes: int
) -> Array:
    """`trapezoid` of r rows (r, k) on grids of at most `nodes` nodes, all rows side by side; rho (k, k, r)."""
    rate = (step[:, None] / s).T[:, None]  # (k, 1, r)
    at = _AT[:nodes]
    z = np.empty((len(rate), nodes, len(m)))  # rows lie side by side: sums over arms and nodes are added in order
    np.multiply(at, rate, z)
    np.add(z, ((low[:, None] - m) / s).T[:, None], z)
    below, term = np.empty_like(z), np.empty_like(z)
    normal_tables.both(z, below, term, normal_tables.scratch(z.shape))
    everyone = np.multiply.reduce(below, axis=0)
    everyone *= at < count
    np.divide(term, below, out=term)
    if rho is not None:
        if len(term) > FEW:
            v = np.moveaxis(product(rho.transpose(2, 1, 0), np.ascontiguousarray(np.moveaxis(term, 2, 0))), 0, 2)
        else:
            v = np.zeros_like(z)
            for hazard, with_others in zip(term, rho, strict=True):  # in order, as one row alone
                np.multiply(hazard, with_others[:, None], below)
                np.add(v, below, v)
        _correct(term, z, v, below)
    np.multiply(term, everyone, out=term)
    return np.asarray((np.add.reduce(term, axis=1) * rate[:, 0]).T, dtype=np.float64)


def _correct(h: Array, z: Array, v: Array, room: Array) -> None:
    """h_a becomes h_a (1 + Q − v_a (h_a + z_a)), v = ρh, Q = ½ hᵀv: the first term in the correlations. All (k, …)."""
    np.multiply(h, v, room)
    q = np.add.reduce(room, 0)
    np.multiply(q, 0.5, q)
    np.add(q, 1.0, q)
    np.add(h, z, room)
    np.multiply(v, room, room)
    np.subtract(q, room, room)
    np.multiply(h, room, h)


def _grids(m: Array, s: Array) -> tuple[Array, Array, NDArray[np.intp]]:
    """`_grid` of r rows (r, k)."""
    weight, reach = 1.0 / (s * s), REACH * s
    total, moment = added(weight.T), added((weight * m).T)
    low, high = (m - reach).max(axis=1), (m + reach).max(axis=1)
    step = 1.0 / np.sqrt(total)
    start = moment / total - step * math.sqrt(max(RARE - m.shape[1] * LOG_FOUR, 0.0))
    low = np.where((low < start) & (start <= m.min(axis=1)), start, low)
    count = (high - low) / step + 2.0
    return low, step, np.where(count <= LONGEST, count, 0.0).astype(np.intp)
