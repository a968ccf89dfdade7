"""Probabilities over arms: P(arm wins one posterior draw), the floor, and the draw.

Shapes: k arms. Every function takes and returns float64 arrays of shape (k,) unless it says otherwise.

The arm is drawn *from* the returned vector, so what is logged is the probability of the draw whatever
error the integration has; the error only says how faithful the policy is to Thompson sampling.

Sources: composite Gauss–Legendre on arm-centred panels, because one common grid fails when posteriors
differ in width (0.90 for a true 0.50 at 300×); the floor is the KL projection onto {p ≥ ε}.
"""

import hashlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import special

from bandit.errors import PropensityError

Array = NDArray[np.float64]

TOLERANCE = 1e-6
"""Largest |Σp − 1| that integration may leave; beyond it a finer grid is tried, then the alarm is raised."""

_REACH = 8.3  # standard deviations; the normal tail beyond is 5e-17
_COARSE = np.array([-8.0, -5.0, -2.5, 0.0, 2.5, 5.0, 8.0])
_FINE = np.arange(-8.0, 8.1, 4.0 / 3.0)
_QUANTILES = np.array([1e-12, 1e-8, 1e-5, 1e-3, 0.02, 0.15, 0.5, 0.85, 0.98, 0.999, 1 - 1e-5, 1 - 1e-8])
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(8)
_ROOT_TAU = np.sqrt(2.0 * np.pi)


def gaussian(mean: Array, sd: Array) -> Array:
    """P(S_a is the largest) for independent S_a ~ N(mean_a, sd_a²), sd > 0.

    Error ≤ 1e-8 absolute over the stress suite of tests/bandit/test_propensity.py.
    Raises PropensityError when Σp stays away from 1.
    """
    low = np.max(mean - _REACH * sd)
    alive = mean + _REACH * sd > low  # the others lose with probability 1 − 1e-16
    p = np.zeros_like(mean)
    if np.count_nonzero(alive) == 1:
        p[alive] = 1.0
        return p
    m, s = mean[alive], sd[alive]
    high = np.max(m + _REACH * s)

    def laws(t: Array) -> tuple[Array, Array]:
        z = (t[:, None] - m) / s
        return np.exp(-0.5 * z * z) / (_ROOT_TAU * s), special.ndtr(z)

    for breaks in (_COARSE, _FINE):
        edges = np.append((m[:, None] + breaks * s[:, None]).ravel(), (low, high))
        p[alive] = _wins(np.clip(edges, low, high), laws)
        if abs(p.sum() - 1.0) <= TOLERANCE:
            return p
    raise PropensityError(f"Σp = {p.sum()!r} for means {mean.tolist()} and sds {sd.tolist()}")


def beta(a: Array, b: Array, gain: Array, cost: Array) -> Array:
    """P(gain_a·B_a − cost_a is the largest) for independent B_a ~ Beta(a_a, b_a), gain > 0.

    Error ≤ 1e-6 absolute (≤ 1e-9 when all a, b ≥ 1). Raises PropensityError when Σp stays away from 1.
    """
    if len(a) == 1:
        return np.ones(1)
    quantiles = special.betaincinv(a[:, None], b[:, None], _QUANTILES)
    for breaks in (
        quantiles,
        np.concatenate([quantiles, (quantiles[:, 1:] + quantiles[:, :-1]) / 2], axis=1),
    ):
        ends = np.concatenate([np.zeros((len(a), 1)), breaks, np.ones((len(a), 1))], axis=1)
        edges = ends * gain[:, None] - cost[:, None]
        low = edges[:, 0].max()  # below it, the arm with the largest least value has F = 0
        p = _wins(np.clip(edges.ravel(), low, None), lambda t: _beta_laws(t, a, b, gain, cost))
        if abs(p.sum() - 1.0) <= TOLERANCE:
            return p
    raise PropensityError(f"Σp = {p.sum()!r} for a = {a.tolist()} and b = {b.tolist()}")


def _beta_laws(t: Array, a: Array, b: Array, gain: Array, cost: Array) -> tuple[Array, Array]:
    share = np.clip((t[:, None] + cost) / gain, 0.0, 1.0)
    inside = (share > 0.0) & (share < 1.0)
    safe = np.where(inside, share, 0.5)
    log_density = special.xlogy(a - 1.0, safe) + special.xlog1py(b - 1.0, -safe) - special.betaln(a, b)
    density: Array = np.where(inside, np.exp(log_density) / gain, 0.0)
    return density, np.asarray(special.betainc(a, b, share), dtype=np.float64)


def _wins(edges: Array, laws: Callable[[Array], tuple[Array, Array]]) -> Array:
    """∫ f_a Π_{j≠a} F_j over the panels between `edges` (in any order), 8 Gauss–Legendre nodes each."""
    edges = np.sort(edges)
    width = np.diff(edges)
    used = width > 0.0
    half = 0.5 * width[used]
    t = (edges[:-1][used] + half)[:, None] + half[:, None] * _NODES
    density, below = laws(t.ravel())
    ones = np.ones((len(below), 1))  # prefix and suffix products leave one arm out without dividing
    prefix = np.cumprod(np.concatenate([ones, below[:, :-1]], axis=1), axis=1)
    suffix = np.cumprod(np.concatenate([ones, below[:, :0:-1]], axis=1), axis=1)[:, ::-1]
    weight = (half[:, None] * _WEIGHTS).ravel()
    return np.asarray(weight @ (density * prefix * suffix), dtype=np.float64)


def floored(p: Array, floor: float, eligible: NDArray[np.bool_]) -> Array:
    """KL projection of p onto {p_a ≥ floor for eligible a}: lift what is below, scale the rest down.

    p sums to 1 within TOLERANCE (else PropensityError) and is 0 where ineligible; so is the result, exactly,
    and it sums to 1 to rounding. Beats mixing with uniform: arms above the floor keep their odds.
    """
    total = p.sum()
    if not abs(total - 1.0) <= TOLERANCE:
        raise PropensityError(f"Σp = {total!r}: the vector {p.tolist()} is not a distribution")
    result: Array = np.where(eligible, p / total, 0.0)
    low = eligible & (result < floor)
    while True:
        free = eligible & ~low
        room = 1.0 - floor * np.count_nonzero(low)
        scaled = np.where(low, floor, np.where(free, result * (room / max(result[free].sum(), 1e-300)), 0.0))
        below = free & (scaled < floor)
        if not below.any():
            return np.asarray(scaled, dtype=np.float64)
        low |= below


def draw(p: Array, u: float) -> int:
    """The arm at u ∈ [0, 1) of the inverse CDF of p. An arm with p = 0 is never drawn."""
    cumulative = np.cumsum(p)
    arm = int(np.searchsorted(cumulative, u * cumulative[-1], side="right"))
    return min(arm, int(np.flatnonzero(p)[-1]))


def unit(key: bytes, *parts: bytes) -> float:
    """A number in [0, 1) that anyone with the key can recompute: keyed BLAKE2b of the parts, 53 bits."""
    digest = hashlib.blake2b(b"\x1f".join(parts), digest_size=8, key=key).digest()
    return (int.from_bytes(digest, "big") >> 11) * 2.0**-53
