"""Regression adjustment: means of the arms as if all arms had the same people, by covariates that were known before the
assignment (Lin 2013, with interactions; with one earlier measurement of the outcome it is CUPED, Deng et al. 2013).

In each arm the outcome less its mean there is regressed on the covariates less theirs, which gives the slopes; the
adjusted mean is the arm's mean moved along them to the mean of the covariates over all arms, as the intercept of a
regression would be. Its variance is robust (HC2), so that neither a wrong model nor unequal spread makes it too small,
plus what the shared mean of the covariates adds, B Σ B' / n (Negi & Wooldridge 2021): then it is about people like
these, not about these people alone.

Shapes: n people, k arms, d covariates.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from bandit.arrays import Array
from experiments.ab_tests.mean_contrasts import PairedEstimates

_SINGULAR = 1e-9  # of the largest singular value, and of that of a covariate with a standard deviation of 1
_LEVERAGE = 1.0 - 1e-9  # from which on a person's residual says nothing


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
    than d + 2 people. A covariate that does not vary within an arm has the slope 0 there; of covariates that repeat
    each other, each has a part of the slope.
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
    """Least squares in one arm: its mean at x = 0, with HC2, residuals² over 1 − leverage. Whom the regression fits
    whatever the outcome (leverage 1, e.g. the only person of a country) has no residual: the arm's residual variance
    stands for it.
    """
    n, centre = len(y), x.mean(axis=0)
    u, s, vt = np.linalg.svd(x - centre, full_matrices=False)
    kept = s > _SINGULAR * max(float(s.max(initial=0.0)), float(np.sqrt(n)))
    inverse = (vt[kept].T / s[kept]) @ u[:, kept].T  # (d, n)
    own = y - y.mean()
    slope = inverse @ own
    square = (own - (x - centre) @ slope) ** 2
    leverage = (u[:, kept] ** 2).sum(axis=1) + 1.0 / n
    freedom = float(max(n - 1 - kept.sum(), 1))
    said = np.where(leverage < _LEVERAGE, square / (1.0 - np.minimum(leverage, _LEVERAGE)), square.sum() / freedom)
    variance = float(((1.0 / n - centre @ inverse) ** 2 * said).sum())
    return _ArmFit(float(y.mean() - centre @ slope), variance, slope, freedom)


def balance_p(arm: NDArray[np.integer], x: Array, arms: int) -> float:
    """p of "the covariates have the same means in all arms" (χ², all covariates and arms together). It is small where
    assignment went wrong, or where a covariate was measured after the assignment and changed by it.
    """
    centred = x - x.mean(axis=0)
    scale = centred.std(axis=0)
    varies = scale > _SINGULAR * np.abs(x).max(axis=0, initial=0.0)  # else it is rounding
    centred = np.where(varies, centred / np.where(varies, scale, 1.0), 0.0)
    values, vectors = np.linalg.eigh(centred.T @ centred / len(x))
    kept = values > _SINGULAR * max(float(values.max(initial=0.0)), 1e-300)
    white = centred @ vectors[:, kept] / np.sqrt(values[kept])
    statistic = sum(float((arm == a).sum() * (white[arm == a].mean(axis=0) ** 2).sum()) for a in range(arms))
    freedom = int(kept.sum()) * (arms - 1)
    return float(special.chdtrc(freedom, statistic)) if freedom else 1.0
