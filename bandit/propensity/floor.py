"""Probability floor, and the grid of what is drawn from: multiples of 2⁻²⁴ that sum to 1 exactly.

Shapes: k arms, (k,) in and out; (n, k) where a name ends in `_many`, each row for itself and to the bits of the
function for one. `eligible` is a mask of the same shape. The arm is drawn *from* the returned vector, so what is logged
is the probability of the draw whatever error the integration before it has; the error only says how faithful the policy
is to Thompson sampling. The order of summation shows in no bit.

Sources: the floor is the KL projection onto {p ≥ ε}; the grid by the method of the largest remainder (Hamilton's).
"""

import math
from itertools import compress

import numpy as np

from bandit.arrays import Array, Mask
from bandit.errors import PropensityError
from bandit.propensity.gaussian import TOLERANCE

UNITS = 2**24
"""What is drawn from are whole numbers of 1/UNITS."""

_SHARP = 384.0  # p + 384 is p on a grid of 2⁻⁴⁴: sums of such are exact, in any order
_TINY = 1e-300


def apportioned(p: Array, floor: float, eligible: Mask) -> Array:
    """Drawable propensities (k,): p floored, in whole numbers of 1/UNITS that sum to 1 exactly.

    The engine calls it last, after transforms, for every decision. The floor is rounded up to the grid, so no arm
    is below it, but where the floors of all arms sum to 1: then an arm may be below it by at most 1/UNITS. Then
    largest remainders are rounded up, the first of equals: no p is moved by k/UNITS or more. 0 where ineligible;
    an arm that may be shown has 0 only without a floor. Raises PropensityError as `floored`.
    """
    may = eligible.tolist()
    scaled = [v * UNITS for v in _lifted(p.tolist(), _least(floor, sum(may)), may)]
    units = [int(v) for v in scaled]
    missing = UNITS - sum(units)
    if missing:
        lost = [v - u for u, v in zip(units, scaled)]  # noqa: B905
        for _ in range(missing):
            most = lost.index(max(lost))
            units[most] += 1
            lost[most] = -1.0
    return np.array([u / UNITS for u in units])


def _least(floor: float, many: int) -> float:
    """The floor of `many` arms on the grid."""
    return min(math.ceil(floor * UNITS), UNITS // many) / UNITS


def apportioned_many(p: Array, floor: float, eligible: Mask) -> Array:
    """Drawable propensities of n rows, (n, k): `apportioned` of each, the same bits, whatever the other rows. Raises
    PropensityError as `floored`, for all rows if one of them is no distribution.
    """
    most = UNITS // eligible.sum(axis=1, keepdims=True)
    scaled = floored_many(p, np.minimum(math.ceil(floor * UNITS), most) / UNITS, eligible) * UNITS
    units = np.floor(scaled)
    missing = UNITS - units.sum(axis=1, keepdims=True)
    order = np.argsort(units - scaled, axis=1, kind="stable")
    np.put_along_axis(
        units, order, np.take_along_axis(units, order, axis=1) + (np.arange(p.shape[1]) < missing), axis=1
    )
    return np.asarray(units / UNITS, dtype=np.float64)


def floored(p: Array, floor: float, eligible: Mask) -> Array:
    """KL projection of p (k,) onto {p_a ≥ floor for eligible a}: lift what is below, scale the rest down.

    p sums to 1 within TOLERANCE and is 0 where ineligible; so is the result, exactly, and it sums to 1 to rounding.
    Beats mixing with uniform: arms above the floor keep their odds. Raises PropensityError if p is no distribution.
    """
    return np.array(_lifted(p.tolist(), floor, eligible.tolist()))


def _lifted(given: list[float], floor: float, may: list[bool]) -> list[float]:
    """`floored` of plain floats."""
    values = [(v + _SHARP) - _SHARP for v in given]
    total = sum(values)
    if not abs(total - 1.0) <= TOLERANCE:
        raise PropensityError(f"Σp = {total!r}: the vector {values} is not a distribution")
    above = values if all(may) else list(compress(values, may))
    many, scale = len(above), 1.0 / total
    while above and min(above) * scale < floor:
        above = [v for v in above if v * scale >= floor]
        scale = (1.0 - floor * (many - len(above))) / max(sum(above), _TINY)
    lifted = [v * scale if v * scale > floor else floor for v in values]
    return lifted if many == len(lifted) else [v if e else 0.0 for v, e in zip(lifted, may, strict=True)]


def floored_many(p: Array, floor: float | Array, eligible: Mask) -> Array:
    """KL projections of n rows (n, k), each with a floor (n, 1) or all with one: the bits of `floored`, whatever the
    other rows. Raises PropensityError, naming the row, if one is no distribution.
    """
    given, p = p, (p + _SHARP) - _SHARP
    total = p.sum(axis=1, keepdims=True)
    if not (np.abs(total - 1.0) <= TOLERANCE).all():
        row = int(np.argmin(np.abs(total[:, 0] - 1.0) <= TOLERANCE))
        raise PropensityError(f"Σp = {total[row, 0]!r}: row {row}, {given[row].tolist()}, is not a distribution")
    many, above, scale = eligible.sum(axis=1, keepdims=True), eligible, 1.0 / total
    while (falls := above & (p * scale < floor)).any():
        above = above & ~falls
        lifted = many - above.sum(axis=1, keepdims=True)
        rest = np.maximum(np.where(above, p, 0.0).sum(axis=1, keepdims=True), _TINY)
        scale = np.where(falls.any(axis=1, keepdims=True), (1.0 - floor * lifted) / rest, scale)
    return np.where(eligible, np.maximum(p * scale, floor), 0.0)
