"""Regression adjustment: means of the arms as if all arms had the same people, by covariates that were known before the
assignment (Lin 2013, with interactions; with one earlier measurement of the outcome it is CUPED, Deng et al. 2013).

In each arm the outcome is regressed on the covariates less their mean over all arms; the intercept is the arm's
adjusted mean. Its variance is robust (HC2), so that neither a wrong model nor unequal spread makes it too small, plus
what the shared mean of the covariates adds, B Σ B' / n (Negi & Wooldridge 2021): then it is about people like these,
not about these people alone.

Shapes: n people, k arms, d covariates.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from bandit.arrays import Array
from experiments.ab_tests.mean_contrasts import PairedEstimates

_SINGULAR = 1e-9  # of the largest singular value


class AdjustedMeans(NamedTuple):
    """Adjusted means of the arms, with their joint covariance; `n` people and `freedom` residual degrees an arm."""

    mean: Array  # (k,)
    covariance: Array  # (k, k)
    freedom: Array  # (k,)
    n: Array  # (k,)

    def pair(self, arm: int, control: int) -> PairedEstimates:
        """Estimates of two of the arms, with Welch's degrees of freedom of their own variances."""
        v, w = float(self.covariance[arm, arm]), float(self.covariance[control, control])
        below = v * v / self.freedom[arm] + w * w / self.freedom[control]
        freedom = float((v + w) ** 2 / below) if below > 0.0 else float(self.freedom[[arm, control]].min())
        means = float(self.mean[arm]), float(self.mean[control])
        shared = float(self.covariance[arm, control])
        return PairedEstimates(*means, v, w, shared, freedom, int(self.n[[arm, control]].min()))


def adjusted(arm: NDArray[np.integer], outcome: Array, x: Array, arms: int) -> AdjustedMeans:
    """Adjusted means of `arms` arms: `arm` and `outcome` (n,), covariates `x` (n, d), all finite. Each arm needs more
    than d + 2 people. A covariate that does not vary within an arm, or repeats others there, is of no use in it.
    """
    centred = x - x.mean(axis=0)
    scale = centred.std(axis=0)
    centred = centred / np.where(scale > 0.0, scale, 1.0)
    spread = np.cov(centred, rowvar=False, ddof=0).reshape(x.shape[1], x.shape[1])
    fits = [_arm_fit(outcome[arm == a], centred[arm == a]) for a in range(arms)]
    slopes = np.array([fit.slope for fit in fits])
    covariance = np.diag([fit.variance for fit in fits]) + slopes @ spread @ slopes.T / len(outcome)
    n = np.bincount(arm, minlength=arms).astype(np.float64)
    freedom = np.array([fit.freedom for fit in fits])
    return AdjustedMeans(np.array([fit.mean for fit in fits]), covariance, freedom, n)


class _ArmFit(NamedTuple):
    mean: float
    variance: float
    slope: Array  # (d,)
    freedom: float


def _arm_fit(y: Array, x: Array) -> _ArmFit:
    """Least squares in one arm, its intercept with HC2: residuals² over 1 − leverage."""
    design = np.column_stack([np.ones(len(y)), x])
    u, s, vt = np.linalg.svd(design, full_matrices=False)
    kept = s > _SINGULAR * s[0]
    inverse = (vt[kept].T / s[kept]) @ u[:, kept].T  # (d + 1, n)
    coefficients = inverse @ y
    residual = y - design @ coefficients
    leverage = np.minimum((u[:, kept] ** 2).sum(axis=1), 1.0 - 1e-9)
    variance = float((inverse[0] ** 2 * residual**2 / (1.0 - leverage)).sum())
    return _ArmFit(float(coefficients[0]), variance, coefficients[1:], float(max(len(y) - kept.sum(), 1)))


def balance_p(arm: NDArray[np.integer], x: Array, arms: int) -> float:
    """p of "the covariates have the same means in all arms" (χ², all covariates and arms together). It is small where
    assignment went wrong, or where a covariate was measured after the assignment and changed by it.
    """
    centred = x - x.mean(axis=0)
    values, vectors = np.linalg.eigh(centred.T @ centred / len(x))
    kept = values > _SINGULAR * max(float(values.max(initial=0.0)), 1e-300)
    white = centred @ vectors[:, kept] / np.sqrt(values[kept])
    statistic = sum(float((arm == a).sum() * (white[arm == a].mean(axis=0) ** 2).sum()) for a in range(arms))
    freedom = int(kept.sum()) * (arms - 1)
    return float(special.chdtrc(freedom, statistic)) if freedom else 1.0
