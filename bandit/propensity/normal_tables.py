"""Normal distribution by tables: Φ, φ and Φ⁻¹ of many numbers with two terms of Taylor's series: + − × only, so that
every processor ends in the same bits, and at less than half the cost of scipy's.

Absolute error of Φ ≤ 1e-10, of φ ≤ 4e-10, and of Φ⁻¹ ≤ 2e-8 for probabilities from 2⁻⁶⁴ to 1 − 2⁻⁵³; below, Φ⁻¹ ends at
−9.2 (tests/bandit/propensity/test_normal_tables.py). One number decides by its own bits which entries it reads, so that
what else is in the array does not matter. The tables are computed by `arithmetic` at import: by the five operations
too. `benchmarks/load/batch.py` prints the cost.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bandit.arrays import Array
from bandit.numerics import arithmetic

Index = NDArray[np.int64]

CELLS = 512  # per unit of x
END = 8.4  # beyond, Φ is 0 or 1 to 3e-17
SHIFT = 1.5 * 2.0**52 / CELLS  # x + SHIFT is x on the grid; its last bits are the number of the cell
LAST = int(END * CELLS) + 1
_ORIGIN = np.float64(SHIFT).view(np.int64) - LAST
_BITS = 52 - 7  # of a float, that do not say which of the 128 parts of its octave it is in
_LEAST = 2.0**-64
_FIRST = np.float64(_LEAST).view(np.int64) >> _BITS
_HIGH, _LOW, _MOVE = np.array(END), np.array(-END), np.array(SHIFT)  # arrays: a float costs twice as much
_START, _OCTAVE = np.array(_ORIGIN), np.array(_FIRST)
_ONE, _HALF, _WIDTH = np.array(1.0), np.array(0.5), np.array(_BITS)
_INVERSE_ROOT = 0.3989422804014327  # 1 / √(2π)
_MIDDLE_TERMS, _TAIL_TERMS, _TAIL = 60, 80, 2.5


def _density(x: Array) -> Array:
    return np.asarray(arithmetic.exp(-0.5 * x * x) * _INVERSE_ROOT, dtype=np.float64)


def law(x: Array) -> Array:
    """Distribution function Φ(x), elementwise, any shape, to 1e-13 of itself, slowly: what the tables are made of.
    Middle: ½ + φ(x)(x + x³/3 + x⁵/15 + …); tail: φ(x) over the continued fraction of Mills' ratio (Laplace).
    """
    tail = np.maximum(np.abs(x), _TAIL)
    fraction = tail
    for n in range(_TAIL_TERMS, 0, -1):
        fraction = tail + n / fraction
    inner = np.clip(x, -_TAIL, _TAIL)
    term = series = inner
    for n in range(1, _MIDDLE_TERMS):
        term = term * (inner * inner) / (2 * n + 1)
        series = series + term
    middle = 0.5 + _density(inner) * series
    beyond = _density(tail) / fraction
    return np.where(np.abs(x) < _TAIL, middle, np.where(x < 0.0, beyond, 1.0 - beyond))


def _inverse_table() -> tuple[Array, Array, Array, Array]:
    """Middles of the cells up to ½, and there Φ⁻¹ and its Taylor coefficients: 1/φ and y/2φ². Φ⁻¹ by Newton's steps
    from the nearest entry of the table of Φ.
    """
    cells = np.arange(_FIRST, (np.float64(0.5).view(np.int64) >> _BITS) + 1) << _BITS
    middle = np.minimum((cells + (1 << (_BITS - 1))).view(np.float64), 0.5)
    coarse = np.arange(-10 * 64, 1) / 64.0
    y = coarse[np.minimum(np.searchsorted(law(coarse), middle), len(coarse) - 1)]
    for _ in range(5):
        below = law(y)
        y = y - below * arithmetic.log(below / middle) / _density(y)
    density = _density(y)
    return middle, y, 1.0 / density, 0.5 * y / (density * density)


_X = np.arange(-LAST, LAST + 1) / CELLS
_BELOW, _SLOPE, _BEND = law(_X), _density(_X), -0.5 * _X * _density(_X)
_FALL, _TWIST = 2.0 * _BEND, 0.5 * (_X * _X - 1.0) * _density(_X)
_MIDDLE, _QUANTILE, _RISE, _TURN = _inverse_table()
_ROWS = list(zip(_BELOW.tolist(), _SLOPE.tolist(), _BEND.tolist(), strict=True))


def together() -> Array:
    """Table (cells, 5) of Φ and φ: what `one` and `both` read, entry by entry."""
    return np.ascontiguousarray(np.stack([_BELOW, _SLOPE, _BEND, _FALL, _TWIST], axis=1))


class Scratch(NamedTuple):
    """Scratch arrays of one shape for what comes between; every function here overwrites all of it. Not to be shared
    between threads.
    """

    cell: Index
    step: Array
    term: Array


def scratch(shape: tuple[int, ...]) -> Scratch:
    """Fresh scratch arrays for inputs of that shape."""
    return Scratch(np.empty(shape, dtype=np.int64), np.empty(shape), np.empty(shape))


def one(x: float) -> float:
    """Distribution function Φ(x) of one number, the bits of `below`."""
    x = min(max(x, -END), END)
    at = (x + SHIFT) - SHIFT
    step = x - at
    value, slope, bend = _ROWS[int(at * CELLS) + LAST]
    return float((bend * step + slope) * step + value)


def below(x: Array, out: Array, room: Scratch) -> None:
    """Distribution function Φ(x), elementwise, into `out`, which is not x, all of the shape of `room`. x is clipped to
    ±8.4 in place.
    """
    np.minimum(x, _HIGH, out=x)
    np.maximum(x, _LOW, out=x)
    _cells(x, room)
    _series(room.cell, room.step, (_BELOW, _SLOPE, _BEND), out, room.term)


def both(x: Array, out: Array, density: Array, room: Scratch) -> None:
    """Φ(x) into `out` and the density φ(x) into `density`, which are not x, all of the shape of `room`, for |x| ≤ 10⁹;
    beyond ±8.4 they are those of ±8.4.
    """
    _cells(x, room)
    _series(room.cell, room.step, (_BELOW, _SLOPE, _BEND), out, room.term)
    _series(room.cell, room.step, (_SLOPE, _FALL, _TWIST), density, room.term)


def quantile(p: Array, out: Array, room: Scratch) -> None:
    """Quantile function Φ⁻¹(p), elementwise, into `out`, which is not p, both of the shape of `room`,
    for p in [0, 1).
    """
    cell, step, term = room
    np.subtract(_ONE, p, out=step)
    np.minimum(p, step, out=step)  # Φ⁻¹(1 − p) = −Φ⁻¹(p)
    np.right_shift(step.view(np.int64), _WIDTH, out=cell)
    np.subtract(cell, _OCTAVE, out=cell)
    _MIDDLE.take(cell, out=term, mode="clip")
    np.subtract(step, term, out=step)
    _series(cell, step, (_QUANTILE, _RISE, _TURN), out, term)
    np.subtract(p, _HALF, out=step)
    np.copysign(out, step, out=out)


def _cells(x: Array, room: Scratch) -> None:
    """The cell of each x, and how far from its middle x is."""
    cell, step, _ = room
    np.add(x, _MOVE, out=step)
    np.subtract(step.view(np.int64), _START, out=cell)
    np.subtract(step, _MOVE, out=step)
    np.subtract(x, step, out=step)


def _series(cell: Index, step: Array, table: tuple[Array, Array, Array], out: Array, term: Array) -> None:
    """t₀ + step (t₁ + step t₂), the coefficients by `cell`."""
    value, first, second = table
    second.take(cell, out=out, mode="clip")
    np.multiply(out, step, out=out)
    first.take(cell, out=term, mode="clip")
    np.add(out, term, out=out)
    np.multiply(out, step, out=out)
    value.take(cell, out=term, mode="clip")
    np.add(out, term, out=out)
