"""Arithmetic with the same bits on every processor, in any order, with any number of threads.

IEEE 754 rounds + − × ÷ and √ correctly, so that one expression of them, element by element, has one result. What it
does not fix: exp, log and their kin (a library's own), and the order in which a product of matrices is summed, and
whether its steps are fused (a BLAS kernel's own). Here the former are fixed expressions of the five operations; the
latter is made exact: factors are cut to so few bits that every product and every partial sum is a float64
(Ozaki, Ogita, Oishi & Rump 2012), so that order and fusion make no difference.

Shapes: "…" are batches of matrices, each for itself.
"""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from bandit.arrays import Array
from bandit.numerics import compiled, versions

DIGITS = 53  # of a float64
_BLOCK = 32  # pivots that are swept together
_ROWS = 512  # rows that are summed together, so that they stay in a cache of 1 MB
_LOG2_E = 1.4426950408889634
_LN2_HIGH, _LN2_LOW = 0.6931471803691238, 1.9082149292705877e-10  # ln 2; the first times any exponent is exact
_LN2 = 0.6931471805599453
_INVERSE_FACTORIALS = tuple(1.0 / math.factorial(n) for n in range(13, -1, -1))
_INVERSE_ODDS = tuple(1.0 / n for n in range(23, 0, -2))
_ROOT_HALF = 0.7071067811865476


def exp(x: Array) -> Array:
    """Exponential eˣ, elementwise, any shape; relative error ≤ 4e-16; 0 below −745, and the value at 709 beyond it."""
    x = np.clip(x, -746.0, 709.0)
    n = np.rint(x * _LOG2_E)
    r = (x - n * _LN2_HIGH) - n * _LN2_LOW
    value = np.full_like(r, _INVERSE_FACTORIALS[0])
    for coefficient in _INVERSE_FACTORIALS[1:]:
        value = value * r + coefficient
    return np.asarray(np.ldexp(value, n.astype(np.int32)), dtype=np.float64)


def exp_of(x: float) -> float:
    """Exponential eˣ of one number: the bits of `exp`, at a tenth of its price."""
    x = min(max(x, -746.0), 709.0)
    n = round(x * _LOG2_E)
    r = (x - n * _LN2_HIGH) - n * _LN2_LOW
    value = _INVERSE_FACTORIALS[0]
    for coefficient in _INVERSE_FACTORIALS[1:]:
        value = value * r + coefficient
    return math.ldexp(value, n)


def log(x: Array) -> Array:
    """Natural logarithm of positive numbers, elementwise, any shape; error ≤ 4e-16 relative or absolute."""
    part, exponent = np.frexp(x)
    low = part < _ROOT_HALF
    part = np.where(low, 2.0 * part, part)
    n = (exponent - low).astype(np.float64)
    s = (part - 1.0) / (part + 1.0)
    square = s * s
    value = np.full_like(s, _INVERSE_ODDS[0])
    for coefficient in _INVERSE_ODDS[1:]:
        value = value * square + coefficient
    return np.asarray(n * _LN2_HIGH + (2.0 * s * value + n * _LN2_LOW), dtype=np.float64)


def log_of(x: float) -> float:
    """Natural logarithm of one positive number: the bits of `log`, at a tenth of its price."""
    part, n = math.frexp(x)
    if part < _ROOT_HALF:
        part, n = 2.0 * part, n - 1
    s = (part - 1.0) / (part + 1.0)
    square = s * s
    value = _INVERSE_ODDS[0]
    for coefficient in _INVERSE_ODDS[1:]:
        value = value * square + coefficient
    return n * _LN2_HIGH + (2.0 * s * value + n * _LN2_LOW)


def expit(z: Array) -> Array:
    """Logistic function 1 / (1 + e⁻ᶻ), elementwise, any shape; relative error ≤ 1e-15."""
    return np.asarray(1.0 / (1.0 + exp(-z)), dtype=np.float64)


def logit(p: float) -> float:
    """Log odds log(p / (1 − p)) of one probability p in (0, 1)."""
    return float(log(np.array(p / (1.0 - p))))


def total(values: Array) -> Array:
    """Sum over the first axis, (n, …) → (…), added from the first to the last: an order that numpy's own sum does not
    promise.
    """
    values = np.ascontiguousarray(values)
    if values.ndim == 1 or values[0].size == 1:  # numpy sums what lies in one line in another order
        return np.asarray(np.add.accumulate(values, axis=0)[-1], dtype=np.float64)
    return np.asarray(np.add.reduce(values, axis=0), dtype=np.float64)


def product(a: Array, b: Array) -> Array:
    """Matrix product of a (…, m, n) and b (…, n, p), each element to 2⁻⁴⁴ or better of n · largest of its row · largest
    of its column.

    A factor of few digits, such as features on their grid, loses none.
    """
    digits = (DIGITS - _doublings(a.shape[-1])) // 2
    (high, low), (upper, lower) = _slices(a, -1, digits), _slices(b, -2, digits)
    value = np.matmul(high, upper)
    if low is not None and lower is not None:
        value = value + (np.matmul(high, lower) + np.matmul(low, upper))
    elif lower is not None:
        value = value + np.matmul(high, lower)
    elif low is not None:
        value = value + np.matmul(low, upper)
    return np.asarray(value + 0.0, dtype=np.float64)


def blocks(n: int) -> Iterator[slice]:
    """Slices of 512 of n rows, for sums over rows that are taken a block at a time; one slice of all in arithmetics
    before NEARLY_INDEPENDENT.
    """
    size = _ROWS if versions.number() >= versions.NEARLY_INDEPENDENT else max(n, 1)
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def _doublings(n: int) -> int:
    """Least e with 2ᵉ ≥ n."""
    return max(n - 1, 0).bit_length()


def _slices(values: Array, axis: int, digits: int) -> tuple[Array, Array | None]:
    """Two parts of so many digits each, below the largest size along `axis`, that add up to the values but for what is
    smaller still; None for a second part that is nothing.
    """
    unit = np.ldexp(1.0, exponents(values, axis) - digits)
    high = np.rint(values / unit) * unit
    low = values - high
    if not low.any():
        return high, None
    unit = unit * 2.0**-digits
    return high, np.rint(low / unit) * unit


def exponents(values: Array, axis: int | tuple[int, ...]) -> NDArray[np.int32]:
    """Least exponents e with |values| < 2ᵉ along the axes, which are kept with length 1; 0 where all is 0."""
    if values.size == 0:
        return np.zeros((), dtype=np.int32)
    largest = np.maximum(np.abs(values).max(axis=axis, keepdims=True), 0.0)
    return np.asarray(np.frexp(largest)[1], dtype=np.int32)


def sweep(a: Array, pivots: int | None = None) -> Array:
    """Sweep operator (Goodnight 1979) over the first `pivots` rows (all, if not given) of a (…, n, n), whose part A₁₁
    there is symmetric and positive definite:

        [A₁₁ A₁₂]      [ A₁₁⁻¹          A₁₁⁻¹ A₁₂           ]
        [A₂₁ A₂₂]  →   [ −A₂₁ A₁₁⁻¹     A₂₂ − A₂₁ A₁₁⁻¹ A₁₂ ]

    Inverse, solution and Schur complement in one.
    """
    a = a.copy()
    end = a.shape[-1] if pivots is None else pivots
    found = np.empty((*a.shape[:-2], end))
    if a.shape[-1] <= _BLOCK:
        return swept(a, found)
    for start in range(0, end, _BLOCK):
        block = slice(start, min(start + _BLOCK, end))
        inverse = swept(a[..., block, block].copy(), found[..., block])
        columns = a[..., :, block].copy()
        rows = product(inverse, a[..., block, :])
        a -= product(columns, rows)
        a[..., block, :] = rows
        a[..., :, block] = -product(columns, inverse)
        a[..., block, block] = inverse
    return a


def complement(a: Array, pivots: int) -> tuple[Array, Array]:
    """Schur complement A₂₂ − A₂₁ A₁₁⁻¹ A₁₂ (…, n − m, n − m) of the first m = `pivots` rows of a (…, n, n), with the
    bits of `sweep` at a fraction of its price; and the pivots (…, m) of the elimination: their product is the
    determinant of A₁₁, each is positive.
    """
    found = np.empty((*a.shape[:-2], pivots))
    if a.shape[-1] <= _BLOCK:
        return swept(a.copy(), found)[..., pivots:, pivots:], found
    for start in range(0, pivots, _BLOCK):
        m = min(_BLOCK, pivots - start)  # of what is left, the first m rows go
        inverse = swept(a[..., :m, :m].copy(), found[..., start : start + m])
        a = a[..., m:, m:] - product(a[..., m:, :m], product(inverse, a[..., :m, m:]))
    return a, found


def swept(a: Array, found: Array) -> Array:
    """`sweep` of a (…, n, n) in place, a pivot at a time, over as many as `found` (…, m) has room for, which gets the
    pivots. It returns `a`.
    """
    kernels = compiled.kernels()
    if kernels is not None and a.ndim <= 3 and a.dtype == np.float64:
        for one, pivots in ((a, found),) if a.ndim == 2 else zip(a, found, strict=True):
            kernels.swept(one, pivots)
        return a
    for j in range(found.shape[-1]):
        found[..., j] = a[..., j, j]
        pivot = 1.0 / a[..., j, j]
        column = a[..., :, j].copy()
        row = a[..., j, :] * pivot[..., None]
        a -= column[..., :, None] * row[..., None, :]
        a[..., j, :] = row
        a[..., :, j] = column * -pivot[..., None]
        a[..., j, j] = pivot
    return a


def inverse(a: Array) -> Array:
    """Inverse of symmetric positive definite a (…, n, n), symmetric to the bit."""
    found = sweep(a)
    return np.asarray(0.5 * (found + np.swapaxes(found, -1, -2)), dtype=np.float64)


def solution(a: Array, b: Array) -> Array:
    """Solution A⁻¹ b for symmetric positive definite a (n, n) and b (n, m); the result is (n, m)."""
    n, m = b.shape
    joined = np.zeros((n + m, n + m))
    joined[:n, :n], joined[:n, n:] = a, b
    return sweep(joined, n)[:n, n:]


def applied(a: Array, v: Array) -> Array:
    """Product of symmetric a (…, n, n) with v (…, n), rows added one after the other; the result is (…, n)."""
    return total(np.moveaxis(a, -1, 0) * np.moveaxis(v, -1, 0)[..., None])


def cholesky(a: Array, least: Array) -> tuple[Array, Array]:
    """Cholesky factors: lower factors (n, n, r) of r symmetric matrices a (n, n, r), and their diagonals (n, r). A
    pivot is taken as `least` (r,) at least, so that a factor always exists.
    """
    a, n = a.copy(), len(a)
    factor, root = np.zeros_like(a), np.empty((n, a.shape[2]))
    for j in range(n):
        np.sqrt(np.maximum(a[j, j], least), root[j])
        factor[j, j] = root[j]
        if j + 1 < n:
            below = np.divide(a[j + 1 :, j], root[j], factor[j + 1 :, j])
            a[j + 1 :, j + 1 :] -= below[:, None] * below
    return factor, root
