"""Exact scores: means and quadratic forms of x by products that are exact, the same bits for one decision and for many,
on any processor.

x is on the 2⁻¹² grid with |x| ≤ 1. Coefficients are rounded once, when a posterior is made ready, to a grid that leaves
every product with x and every partial sum a float64: 41 − ⌈log₂ d⌉ bits below the largest of their arm (or pair of
arms), which is 2⁻³⁷ of it for d = 16. A quadratic form x'Gx is two such products: Gx is exact, is rounded to as many
bits, and its product with x is exact again. So no order of summation, fused step or number of threads can show.

Shapes: n rows, k arms, d features, q quadratic forms.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bandit.arrays import Array
from bandit.belief import X_GRID
from bandit.numerics.arithmetic import DIGITS, exponents

_ROWS = 128  # of a batch at a time, so that they stay in a cache


class ScoreForms(NamedTuple):
    """Forms for scores: means m_a and quadratic forms G_j on their grids, stacked for one product, and what rounds G_j
    x.
    """

    stacked: Array  # (q·d + k, d): G_1 … G_q, m_1 … m_k
    k: int
    d: int
    sharp: Array  # (q·d,): adding and subtracting it rounds

    def one(self, x: Array) -> tuple[Array, Array]:
        """Values at one x (d,): x·m_a (k,) and x'G_j x (q,), exact."""
        stacked, k, d, sharp = self
        product = stacked.dot(x)
        inner = product[:-k]
        np.add(inner, sharp, inner)
        np.subtract(inner, sharp, inner)
        return product[-k:], inner.reshape(-1, d).dot(x)

    def many(self, x: Array) -> tuple[Array, Array]:
        """Values at n rows x (n, d): x·m_a (n, k) and x'G_j x (n, q), the bits of `one`."""
        stacked, k, d, sharp = self
        means, spread = np.empty((len(x), k)), np.empty((len(x), len(sharp) // d))
        for start in range(0, len(x), _ROWS):
            rows = x[start : start + _ROWS]
            product = rows @ stacked.T
            means[start : start + _ROWS] = product[:, -k:]
            inner = (product[:, :-k] + sharp) - sharp
            spread[start : start + _ROWS] = np.matmul(inner.reshape(len(rows), -1, d), rows[:, :, None])[:, :, 0]
        return means, spread


def forms(means: Array, quadratic: Array) -> ScoreForms:
    """Forms of means (k, d) and symmetric quadratic forms (q, d, d), rounded to their grids; made once for each
    posterior.
    """
    k, d = means.shape
    bits = digits(d)
    coefficients = on_grid(quadratic, bits, (1, 2)).reshape(-1, d)
    reach = np.abs(coefficients).sum(axis=1).reshape(-1, d)  # |G_j x| is no more
    sharp = np.repeat(rounder(reach, bits), d)
    return ScoreForms(np.ascontiguousarray(np.concatenate([coefficients, on_grid(means, bits, (1,))])), k, d, sharp)


def digits(d: int) -> int:
    """Number of bits that coefficients of d features may have so that every sum of products with x is exact."""
    return DIGITS - int(X_GRID).bit_length() + 1 - (d - 1).bit_length()


def on_grid(values: Array, bits: int, axis: tuple[int, ...]) -> Array:
    """Values rounded to multiples of 2⁻ᵇⁱᵗˢ of a power of two above the largest along the axes; the same shape."""
    unit = np.ldexp(1.0, exponents(values, axis) - bits)
    return np.asarray(np.rint(values / unit) * unit, dtype=np.float64)


def rounder(reach: Array, bits: int) -> Array:
    """Numbers (q,) to add and subtract so that values of size up to the largest of `reach` (q, m) are rounded to `bits`
    bits.
    """
    return np.asarray(np.ldexp(1.5, exponents(reach, 1)[:, 0] + (DIGITS - 1 - bits)), dtype=np.float64)


def upper(k: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Index arrays (k(k + 1)/2,) of the arms a ≤ b of every pair."""
    rows, columns = np.triu_indices(k)
    return rows, columns


def places(k: int) -> NDArray[np.intp]:
    """Matrix (k, k) of pair indices: which pair of `upper` two arms are."""
    found = np.zeros((k, k), dtype=np.intp)
    a, b = upper(k)
    found[a, b] = found[b, a] = np.arange(len(a))
    return found


def joint(means: Array, pairs: Array) -> ScoreForms:
    """Forms of all pairs of arms a ≤ b from pairs (k, k, d, d) with G_ba = G_ab': their symmetric parts, which is all
    that x'Gx sees.
    """
    a, b = upper(len(means))
    some = pairs[a, b]
    return forms(means, 0.5 * (some + some.transpose(0, 2, 1)))
