"""Probabilities over arms: P(arm wins one posterior draw), the floor, and the draw.

Shapes: k arms. Every function takes and returns float64 arrays of shape (k,) unless it says otherwise.

The arm is drawn *from* the returned vector, so what is logged is the probability of the draw whatever
error the integration has; the error only says how faithful the policy is to Thompson sampling.

Sources: composite Gauss–Legendre on arm-centred panels, because one common grid fails when posteriors
differ in width; the floor is the KL projection onto {p ≥ ε}.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Callable
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray
from scipy import special

from bandit.errors import PropensityError

Array = NDArray[np.float64]

TOLERANCE = 1e-6
"""Largest |Σp − 1| that integration may leave; beyond it a finer grid is tried, then the alarm is raised."""

_REACH = 8.3  # standard deviations; the normal tail beyond is 5e-17
_BREAKS = np.array([-8.0, -5.5, -3.5, -1.75, 0.0, 1.75, 3.5, 5.5, 8.0])
_FINE = np.arange(-8.0, 8.1, 1.0)
_APART = 1.0  # panels are not narrower than this many of the smallest sd: near-equal arms share theirs
_LOWER = np.array([1e-11, 1e-8, 1e-6, 1e-4, 1e-3, 0.01, 0.06, 0.25])
_QUANTILES = np.concatenate([_LOWER, [0.5], 1.0 - _LOWER])
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(10)
_TINY = 1e-300
_ROOT_TAU = float(np.sqrt(2.0 * np.pi))


def gaussian(mean: Array, sd: Array) -> Array:
    """P(S_a is the largest) for independent S_a ~ N(mean_a, sd_a²), sd > 0.

    Error ≤ 1e-8 absolute over the stress suite of tests/bandit/test_propensity.py, up to k = 20.
    Raises PropensityError when Σp stays away from 1, or for values that no normal law has.
    """
    if not (np.isfinite(mean).all() and np.isfinite(sd).all() and np.all(sd > 0.0)):
        raise PropensityError(f"not normal laws: means {mean.tolist()} and sds {sd.tolist()}")
    low = float(np.max(mean - _REACH * sd))
    alive = mean + _REACH * sd >= low  # the others lose with probability 1 − 1e-16
    p = np.zeros_like(mean)
    if np.count_nonzero(alive) == 1:
        p[alive] = 1.0
        return p
    m, s = mean[alive], sd[alive]
    high = float(np.max(m + _REACH * s))
    for breaks in (_BREAKS, _FINE):
        t, weight = _points(_thinned(m[:, None] + breaks * s[:, None], low, high, _APART * float(s.min())))
        z = (t - m[:, None]) / s[:, None]  # (k, nodes)
        below = special.ndtr(z)
        all_below = np.multiply.reduce(below, axis=0)
        # f_a Π_{j≠a} F_j = (f_a / F_a) Π_j F_j: where F_a underflows, z < −37 and f_a is nothing
        ratio = np.exp(-0.5 * z * z) / np.maximum(below, _TINY)
        p[alive] = (ratio @ (weight * all_below)) / (_ROOT_TAU * s)
        if abs(p.sum() - 1.0) <= TOLERANCE:
            return p
    raise PropensityError(f"Σp = {p.sum()!r} for means {mean.tolist()} and sds {sd.tolist()}")


def _thinned(breaks: Array, low: float, high: float, apart: float) -> Array:
    """Panel edges from low to high: the breaks between, left out where closer than `apart` to the one before."""
    edges = [low]
    for edge in np.sort(breaks, axis=None).tolist():
        if edge - edges[-1] >= apart and edge < high:
            edges.append(edge)
    return np.array([*edges, high])


def _points(edges: Array) -> tuple[Array, Array]:
    """Gauss–Legendre nodes and weights on the panels between sorted edges, flat."""
    half = 0.5 * (edges[1:] - edges[:-1])
    t = (edges[:-1] + half)[:, None] + half[:, None] * _NODES
    return t.ravel(), (half[:, None] * _WEIGHTS).ravel()


def beta(a: Array, b: Array, gain: Array, cost: Array) -> Array:
    """P(gain_a·B_a − cost_a is the largest) for independent B_a ~ Beta(a_a, b_a), gain > 0, a and b ≥ 1.

    Error ≤ 1e-7 absolute over the stress suite. Below a or b = 1 a density has no bound, and no such promise is made.
    Raises PropensityError when Σp stays away from 1.
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
    """∫ f_a Π_{j≠a} F_j over the panels between `edges` (in any order), 10 Gauss–Legendre nodes each."""
    edges = np.unique(edges)
    t, weight = _points(edges)
    density, below = laws(t)
    ones = np.ones((len(below), 1))  # prefix and suffix products leave one arm out without dividing
    prefix = np.cumprod(np.concatenate([ones, below[:, :-1]], axis=1), axis=1)
    suffix = np.cumprod(np.concatenate([ones, below[:, :0:-1]], axis=1), axis=1)[:, ::-1]
    return np.asarray(weight @ (density * prefix * suffix), dtype=np.float64)


def floored(p: Array, floor: float, eligible: NDArray[np.bool_]) -> Array:
    """KL projection of p onto {p_a ≥ floor for eligible a}: lift what is below, scale the rest down.

    p sums to 1 within TOLERANCE (else PropensityError) and is 0 where ineligible; so is the result, exactly,
    and it sums to 1 to rounding. Beats mixing with uniform: arms above the floor keep their odds.
    """
    total = float(p.sum())
    if not abs(total - 1.0) <= TOLERANCE:
        raise PropensityError(f"Σp = {total!r}: the vector {p.tolist()} is not a distribution")
    values = (p / total).tolist()  # k is small: plain floats are faster than arrays
    result = [0.0] * len(values)
    free = np.flatnonzero(eligible).tolist()
    room = 1.0
    while True:
        scale = room / max(sum(values[a] for a in free), _TINY)
        low = [a for a in free if values[a] * scale < floor]
        if not low:
            break
        for a in low:
            result[a] = floor
        room -= floor * len(low)
        free = [a for a in free if a not in low]
    for a in free:
        result[a] = values[a] * scale
    return np.array(result)


def draw(p: Array, u: float) -> int:
    """The arm at u ∈ [0, 1) of the inverse CDF of p. An arm with p = 0 is never drawn."""
    values = p.tolist()
    cumulative = list(accumulate(values))
    arm = bisect_right(cumulative, u * cumulative[-1])
    while arm == len(values) or values[arm] == 0.0:  # u · Σp rounded up to Σp
        arm -= 1
    return arm


def unit(key: bytes, *parts: bytes) -> float:
    """A number in [0, 1) that anyone with the key can recompute: keyed BLAKE2b of the parts, 53 bits."""
    text = b"".join(len(part).to_bytes(8, "big") + part for part in parts)  # lengths keep ("ab", "c") from ("a", "bc")
    digest = hashlib.blake2b(text, digest_size=8, key=key).digest()
    return (int.from_bytes(digest, "big") >> 11) * 2.0**-53
