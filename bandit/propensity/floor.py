"""Probability floor, and the grid of what is drawn from: multiples of 2⁻²⁴ that sum to 1 exactly.

Shapes: k arms, (k,) in and out; (n, k) where a name ends in `_many`, each row for itself and to the bits of the
function for one. `eligible` is a mask of the same shape. A floor is one number for all eligible arms, or an array with
one for each arm: finite, at least 0, where 0 is no floor; the floors of ineligible arms are not read. The arm is drawn
*from* the returned vector, so what is logged is the probability of the draw whatever error the integration before it
has; the error only says how faithful the policy is to Thompson sampling. The order of summation shows in no bit.

Sources: the floor is the KL projection onto {p_a ≥ ε_a}; the grid by the method of the largest remainder (Hamilton's).
"""

import math
from functools import reduce
from itertools import compress
from operator import add

import numpy as np

from bandit.arrays import Array, Mask
from bandit.errors import PropensityError
from bandit.numerics import compiled
from bandit.propensity.gaussian import TOLERANCE
from bandit.propensity.transforms import ramp

UNITS = 2**24
"""What is drawn from are whole numbers of 1/UNITS."""

_UNIT = 1.0 / UNITS
_MOST, _LEAST_SUPPORT, _AFFORDED = 0.01, 1e-4, 0.0005
_SHARP = 384.0  # p + 384 is p on a grid of 2⁻⁴⁴: sums of such are exact, in any order
_TINY = 1e-300


def affordable(utility: Array, eligible: Mask, share: float, rate: float) -> Array:
    """Floors that cost no more than 0.05 % of a reward rate each, (k,) or (n, k) like `utility`:

        ε_a = min(0.01 s, max(10⁻⁴, 0.0005 q s / (max_b u_b − u_a)))

    utility: expected net value of each arm in units of the reward range; `share` s of the traffic that the policy
    decides; `rate` q: the expected reward rate.
    """
    best = np.where(eligible, utility, -np.inf).max(axis=-1, keepdims=True)
    gap = np.maximum(best - utility, _TINY)
    afforded = np.maximum(_LEAST_SUPPORT, _AFFORDED * rate * share / gap)
    return np.asarray(np.minimum(_MOST * share, afforded), dtype=np.float64)


def affordable_one(utility: list[float], eligible: list[bool], share: float, rate: float) -> Array:
    """Floors (k,) of one row of plain floats: the bits of `affordable`, sooner where arms are few."""
    best = max(u for u, may in zip(utility, eligible, strict=True) if may)
    afforded, most = _AFFORDED * rate * share, _MOST * share
    return np.array([min(most, max(_LEAST_SUPPORT, afforded / max(best - u, _TINY))) for u in utility])


def afforded(p: Array, mean: Array, gain: Array, cost: Array, share: float, rate: float, eligible: Mask) -> Array:
    """Drawable propensities (k,) of p (k,) after the ramp to `share`, with floors as `affordable` makes them of the
    utilities gain · mean − cost, each (k,). The last step of a decision under the default policy, in one. Raises
    PropensityError as `floored`.
    """
    kernels = compiled.kernels()
    if kernels is not None:
        drawable = np.empty(len(p))
        own = p.astype(np.float64), mean.astype(np.float64), gain, cost
        if kernels.afforded(*own, share, rate, eligible.copy(), drawable):
            return drawable
    rows = zip(gain.tolist(), mean.tolist(), cost.tolist(), strict=True)
    floors = affordable_one([g * m - c for g, m, c in rows], eligible.tolist(), share, rate)
    return apportioned(ramp(p, share) if share < 1.0 else p, floors, eligible)


def apportioned(p: Array, floor: float | Array, eligible: Mask) -> Array:
    """Drawable propensities (k,): p floored, in whole numbers of 1/UNITS that sum to 1 exactly.

    The engine calls it last, after transforms, for every decision. `floor`: one number, or (k,), one for each arm.
    Floors are rounded up to the grid, so no arm is below its own. If those of eligible arms sum to more than 1 then,
    they are scaled to sum to 1 and rounded down: an arm may be below its floor, as scaled, by at most 1/UNITS; only the
    largest by more, by 1/UNITS for each floor that is smaller than that, so that these arms keep theirs. Then largest
    remainders are rounded up, the first of equals: no p, as floored, is moved by k/UNITS or more. 0 where ineligible;
    an arm that may be shown has 0 only without a floor. Raises PropensityError as `floored`.
    """
    kernels = compiled.kernels()
    if kernels is not None:
        floors = floor.astype(np.float64) if isinstance(floor, np.ndarray) else np.full(len(p), float(floor))
        drawable = np.empty(len(p))
        if kernels.drawable(p.astype(np.float64), floors, eligible.copy(), drawable):
            return drawable
    may = eligible.tolist()
    if isinstance(floor, np.ndarray):
        lifted = _lifted(p.tolist(), _least(floor.tolist(), may), may)
    else:
        lifted = _lifted(p.tolist(), min(math.ceil(floor * UNITS), UNITS // may.count(True)) / UNITS, may)
    scaled = [v * UNITS for v in lifted]
    units = [v // 1.0 for v in scaled]  # sooner than int(v)
    missing = UNITS - sum(units)
    if missing:
        lost = [v - u for u, v in zip(units, scaled)]  # noqa: B905
        while missing > 0.0:
            most = lost.index(max(lost))
            units[most] += 1.0
            lost[most] = -1.0
            missing -= 1.0
    return np.array([u * _UNIT for u in units])


def apportioned_many(p: Array, floor: float | Array, eligible: Mask) -> Array:
    """Drawable propensities of n rows, (n, k): `apportioned` of each, the same bits, whatever the other rows.

    `floor`: one number, (k,), one for each arm in every row, or (n, k). Raises PropensityError as `floored`, for all
    rows if one of them is no distribution.
    """
    scaled = floored_many(p, _least_many(floor, eligible), eligible) * UNITS
    units = np.floor(scaled)
    missing = UNITS - units.sum(axis=1, keepdims=True)
    order = np.argsort(units - scaled, axis=1, kind="stable")
    np.put_along_axis(
        units, order, np.take_along_axis(units, order, axis=1) + (np.arange(p.shape[1]) < missing), axis=1
    )
    return np.asarray(units / UNITS, dtype=np.float64)


def _least(floors: list[float], may: list[bool]) -> list[float]:
    """Floors of each arm on the grid, 0 where ineligible."""
    if not all(may):
        floors = [f if e else 0.0 for f, e in zip(floors, may, strict=True)]
    units = [math.ceil(f * UNITS) for f in floors]
    return [u / UNITS for u in (units if sum(units) <= UNITS else _squeezed(floors))]


def _least_many(floor: float | Array, eligible: Mask) -> Array:
    """Floors on the grid: (n, 1) of one number, otherwise `_least` of each row, (n, k)."""
    if not isinstance(floor, np.ndarray):
        most = UNITS // eligible.sum(axis=1, keepdims=True)
        return np.asarray(np.minimum(math.ceil(floor * UNITS), most) / UNITS, dtype=np.float64)
    floors = np.where(eligible, floor, 0.0)
    units = np.ceil(floors * UNITS)
    for row in np.flatnonzero(units.sum(axis=1) > UNITS).tolist():
        units[row] = _squeezed(floors[row].tolist())
    return np.asarray(units / UNITS, dtype=np.float64)


def _squeezed(floors: list[float]) -> list[int]:
    """Whole units, UNITS at most, of floors that do not fit when rounded up: scaled to sum to 1, then rounded down.
    Arms that would lose their only unit keep it; if that is too much, the largest floor, the first of equals, pays.
    """
    total = math.fsum(floors)  # rounded once, so in any order
    units = [max(int(f * UNITS / total), 1) if f > 0.0 else 0 for f in floors]
    units[units.index(max(units))] -= max(sum(units) - UNITS, 0)
    return units


def floored(p: Array, floor: float | Array, eligible: Mask) -> Array:
    """KL projection of p (k,) onto {p_a ≥ floor_a for eligible a}: lift what is below, scale the rest down.

    p sums to 1 within TOLERANCE and is 0 where ineligible; so is the result, exactly, and it sums to 1 to rounding.
    Floors of eligible arms sum to at most 1; those of an array (k,) are whole numbers of 1/UNITS, so that their sums
    are exact. Beats mixing with uniform: arms above the floor keep their odds. Raises PropensityError if p is no
    distribution.
    """
    return np.array(_lifted(p.tolist(), floor.tolist() if isinstance(floor, np.ndarray) else floor, eligible.tolist()))


def _lifted(given: list[float], floor: float | list[float], may: list[bool]) -> list[float]:
    """`floored` of plain floats."""
    values = [(v + _SHARP) - _SHARP for v in given]
    total = sum(values)
    if not abs(total - 1.0) <= TOLERANCE:
        raise PropensityError(f"Σp = {total!r}: the vector {values} is not a distribution")
    if isinstance(floor, list):
        return _each_lifted(values, 1.0 / total, floor, may)
    above = values if all(may) else list(compress(values, may))
    many, scale = len(above), 1.0 / total
    while above and min(above) * scale < floor:
        above = [v for v in above if v * scale >= floor]
        scale = (1.0 - floor * (many - len(above))) / max(sum(above), _TINY)
    lifted = [w if (w := v * scale) > floor else floor for v in values]
    return lifted if many == len(lifted) else [v if e else 0.0 for v, e in zip(lifted, may, strict=True)]


def _each_lifted(values: list[float], scale: float, floors: list[float], may: list[bool]) -> list[float]:
    """`_lifted` where each arm has a floor of its own; to the same bits where these are equal."""
    # Who is lifted takes more than its share, so `scale` only falls: who is lifted stays so, and k rounds are enough.
    # At the end q_a = max(floor_a, scale·p_a) and Σq = 1: the KKT conditions of min KL(q‖p), convex, so q is the least.
    arms = list(zip(values, floors, strict=True))
    above = arms if all(may) else list(compress(arms, may))
    left = 1.0
    while low := [f for v, f in above if v * scale < f]:
        above = [(v, f) for v, f in above if v * scale >= f]
        left -= reduce(add, low)  # `sum` rounds in another way from Python 3.12 on, and numpy's in this one
        scale = left / max(sum([v for v, _ in above]), _TINY)
    lifted = [w if (w := v * scale) > f else f for v, f in arms]
    return lifted if all(may) else [v if e else 0.0 for v, e in zip(lifted, may, strict=True)]


def floored_many(p: Array, floor: float | Array, eligible: Mask) -> Array:
    """KL projections of n rows (n, k): the bits of `floored`, whatever the other rows.

    `floor`: one number, (n, 1), one for each row, or (n, k), one for each arm, as `floored` wants them. Raises
    PropensityError, naming the row, if one is no distribution.
    """
    given, p = p, (p + _SHARP) - _SHARP
    total = p.sum(axis=1, keepdims=True)
    if not (np.abs(total - 1.0) <= TOLERANCE).all():
        row = int(np.argmin(np.abs(total[:, 0] - 1.0) <= TOLERANCE))
        raise PropensityError(f"Σp = {total[row, 0]!r}: row {row}, {given[row].tolist()}, is not a distribution")
    above, scale = eligible, 1.0 / total
    while (falls := above & (p * scale < floor)).any():
        above = above & ~falls
        rest = np.maximum(np.where(above, p, 0.0).sum(axis=1, keepdims=True), _TINY)
        scale = np.where(falls.any(axis=1, keepdims=True), (1.0 - _held(floor, eligible & ~above)) / rest, scale)
    return np.where(eligible, np.maximum(p * scale, floor), 0.0)


def _held(floor: float | Array, lifted: Mask) -> Array:
    """Sums (n, 1) of the floors of lifted arms; a floor that is common to a row is multiplied, rounded once."""
    if isinstance(floor, np.ndarray) and floor.shape[-1] > 1:
        return np.asarray(np.where(lifted, floor, 0.0).sum(axis=1, keepdims=True), dtype=np.float64)
    return np.asarray(floor * lifted.sum(axis=1, keepdims=True), dtype=np.float64)
