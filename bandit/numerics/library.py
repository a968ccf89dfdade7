"""Gaussian posteriors in the libraries' own arithmetic (LAPACK), at a tenth of the price of `arithmetic`.

For sites alone: they are recorded, and receipts and rebuilds read them. Last bits depend on the processor, which the
grid of sites hides (`assumed_density.matched`). Nothing that a receipt computes again may use it.

Shapes: P coefficients, n rows.
"""

from typing import NamedTuple

import numpy as np
from scipy.linalg import lapack

from bandit.arrays import Array


class FactoredPosterior(NamedTuple):
    """Posterior N(mean (P,), precision⁻¹) by the lower Cholesky factor (P, P) of its precision; what is above the
    factor's diagonal says nothing.
    """

    mean: Array
    factor: Array

    def marginals(self, phi: Array) -> tuple[Array, Array]:
        """Means (n,) and variances (n,) of the scores of rows phi (n, P)."""
        half = _below(self.factor, phi.T)
        return phi @ self.mean, np.einsum("ij,ij->j", half, half)

    def joint(self, phi: Array) -> tuple[Array, Array]:
        """Means (n,) and covariance (n, n) of the scores of rows phi (n, P)."""
        half = _below(self.factor, phi.T)
        return phi @ self.mean, half.T @ half


def factored(precision: Array, shift: Array) -> FactoredPosterior:
    """Posterior of a precision (P, P), of which the lower half is read, and a shift (P,). Raises LinAlgError if the
    precision is not positive definite.
    """
    factor = cholesky(precision)
    mean, _ = lapack.dpotrs(factor, shift, lower=1)
    return FactoredPosterior(np.asarray(mean, dtype=np.float64), factor)


def cholesky(precision: Array) -> Array:
    """Lower Cholesky factor (P, P) of a symmetric matrix (P, P), of which the lower half is read. Raises LinAlgError
    if it is not positive definite.
    """
    factor, wrong = lapack.dpotrf(precision, lower=1, clean=0)
    if wrong:
        raise np.linalg.LinAlgError(f"a precision of {len(precision)} coefficients is not positive definite")
    return np.asarray(factor, dtype=np.float64)


def evidence(precision: Array, shift: Array) -> tuple[float, float]:
    """Parts of a Gaussian's evidence: log|P| and tᵀP⁻¹t, from P (P, P), of which the lower half is read, and t (P,).
    Raises as `cholesky`.
    """
    factor = cholesky(precision)
    half = _below(factor, shift[:, None])[:, 0]
    return 2.0 * float(np.log(factor.diagonal()).sum()), float(half @ half)


def complement(precision: Array, shift: Array, pivots: int) -> tuple[Array, Array]:
    """Precision and shift of all but the first m = `pivots` coefficients, these integrated out: (P − m, P − m) and
    (P − m,). Raises as `cholesky`.
    """
    factor = cholesky(precision[:pivots, :pivots])
    half = _below(factor, np.column_stack([precision[pivots:, :pivots].T, shift[:pivots]]))
    cross, told = half[:, :-1], half[:, -1]
    return precision[pivots:, pivots:] - cross.T @ cross, shift[pivots:] - cross.T @ told


def _below(factor: Array, columns: Array) -> Array:
    """L⁻¹ times columns (P, m)."""
    found, _ = lapack.dtrtrs(factor, columns, lower=1)
    return np.asarray(found, dtype=np.float64)
