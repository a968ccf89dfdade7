"""Rounded probabilities: files write them with few digits, so that a row of them sums to 1 only nearly.

A row is accepted as rounded if every number in it has been written with at most d digits, d at least 3, and the sum is
off by no more than rounding explains: half a unit of the last digit for each number that uses all d of them. Then it is
scaled to sum to 1. Anything else is a real error, which `rounds.checked_rounds` refuses.

Shapes: n rows, k probabilities.
"""

import numpy as np
from numpy.typing import NDArray

from bandit.arrays import Array

_LEAST, _MOST = 3, 12  # digits
_EXACT = 1e-9  # of a unit of the last digit: what a float adds


def rounding_tolerance(table: Array) -> Array:
    """Rounding tolerance (n,) of the rows of `table` (n, k): how far from 1 rounding alone may have moved the sum of
    each row; 0 where rounding explains nothing.
    """
    digits = digits_of(table)
    last = digits.max(axis=1, initial=0)
    used = (digits == last[:, None]).sum(axis=1)
    explained = 0.5 * used * 10.0 ** -last.astype(np.float64)
    return np.where((last >= _LEAST) & (last <= _MOST), explained * (1.0 + 1e-6), 0.0)


def digits_of(values: Array) -> NDArray[np.int64]:
    """Number of decimal digits of each value, an int64 array of the shape of `values`; more than 12 digits count as
    13.
    """
    found = np.full(values.shape, _MOST + 1, dtype=np.int64)
    for d in range(_MOST, -1, -1):
        scaled = values * 10.0**d
        found[np.abs(scaled - np.round(scaled)) <= np.maximum(_EXACT, 4e-16 * np.abs(scaled))] = d
    return found


def scaled_to_one(table: Array) -> tuple[Array, NDArray[np.bool_]]:
    """The table (n, k) with its rounded rows scaled to sum to 1, and the mask (n,) of the rows that were scaled.

    Rows that are off by more than rounding explains are left as they are. The input is never changed; without such rows
    it is returned itself.
    """
    total = table.sum(axis=1)
    off = np.abs(total - 1.0) > 1e-9
    if not off.any():
        return table, off
    rounded = off.copy()
    rounded[off] = np.abs(total[off] - 1.0) <= rounding_tolerance(table[off])
    if not rounded.any():
        return table, rounded
    scaled = table.copy()
    scaled[rounded] /= total[rounded, None]
    return scaled, rounded
