"""Batching: rows of a batch that can be computed together are those of as many arms.

Shapes: n rows, k arms, m arms of one row that count. Used by `gaussian_many` and `correlated_many`.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.intp]


def by_number(live: NDArray[np.bool_]) -> Iterator[tuple[int, Rows, Rows]]:
    """Groups of rows by how many arms of `live` (n, k) they have: for every number m ≥ 1 that occurs, (m, rows (r,),
    arms (r, m) in ascending order).
    """
    number = live.sum(axis=1)
    order = np.argsort(~live, axis=1, kind="stable")
    for m in np.unique(number[number > 0]).tolist():
        rows = np.flatnonzero(number == m)
        yield m, rows, order[rows, :m]


def pieces(rows: Rows, size: int) -> Iterator[Rows]:
    """`rows` in pieces of at most `size`, to bound memory; one row alone comes twice.

    Sums over the other axes of an array that is one wide would be taken in another order, and end in other bits.
    """
    for start in range(0, len(rows), size):
        piece = rows[start : start + size]
        yield piece if len(piece) > 1 else np.repeat(piece, 2)
