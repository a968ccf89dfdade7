"""Expectation of σ over normal user effects: 21-point Gauss–Hermite quadrature, and a table of it for speed."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from scipy import special

from bandit.arrays import Array

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(21)
_EDGE, _CELLS = 24.0, 1 << 17  # of the table of E_u σ: linear between points is within 2e-9 of the quadrature


def quadrature(s: Array, sd: float) -> Array:
    """E σ(s + sd·u), u ~ N(0, 1), by 21-point Gauss–Hermite; the shape of `s`, which are logits."""
    weights = _WEIGHTS / _WEIGHTS.sum()
    return np.asarray(sum(w * special.expit(s + sd * node) for w, node in zip(weights, _NODES, strict=True)))


def averaging(sd: float) -> Callable[[Array], Array]:
    """E σ(s + sd·u) as a function of logits s of any shape: σ itself where `sd` is 0, else a table, linear between its
    points and within 2e-9 of the quadrature. Logits beyond ±24 count as ±24.
    """
    if sd == 0.0:
        return lambda s: np.asarray(special.expit(s))
    step, (table, rise) = 2.0 * _EDGE / _CELLS, _quadrature_table(sd)

    def average(s: Array) -> Array:
        place = np.clip((s + _EDGE) / step, 0.0, _CELLS - 1e-6)
        cell = place.astype(np.intp)
        return np.asarray(table[cell] + (place - cell) * rise[cell])

    return average


@lru_cache(maxsize=64)
def _quadrature_table(sd: float) -> tuple[Array, Array]:
    """The quadrature at every point of the table, and the rise from each point to the next."""
    table = quadrature(np.linspace(-_EDGE, _EDGE, _CELLS + 1), sd)
    return table, np.diff(table)
