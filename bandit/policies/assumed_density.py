"""Assumed density filtering for a logistic likelihood: one row at a time, each becomes one Gaussian site.

A row sees the score z ~ N(μ, s²) of the posterior so far; its tilted density N(z; μ, s²)·σ(±z) is matched by a Gaussian
of mean ẑ and variance v̂, and the site is what was added: τ = 1/v̂ − 1/s², ν = ẑ/v̂ − μ/s² (Opper 1998; Minka 2001).
Moments by Gauss–Hermite quadrature. 0 < τ ≤ ¼, because the likelihood is log-concave with curvature at most ¼.

Rows are filtered in the space of their scores: n rows are one Gaussian of n dimensions, so that a row costs O(n), not
O(D²) in the number of coefficients; the result is the same.
"""

import numpy as np
from scipy import special

from bandit.arrays import Array

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(20)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()
_LEAST = 1e-12  # variance of a score
_NARROW = 1e-6  # a score this sure of itself has the likelihood's own curvature
_IMPOSSIBLE = 1e-300  # a reward this unlikely at every node says too little about its density


def site(mu: float, s2: float, reward: float) -> tuple[float, float]:
    """Site (τ, ν) of one row whose score is N(mu, s2) in logits before it, s2 > 0; a reward between 0 and 1 weighs both
    answers. τ is in [0, ¼] and ν in [−1, 1].
    """
    whole = 0.0
    if s2 >= _NARROW:
        z = mu + np.sqrt(s2) * _NODES
        weight = _WEIGHTS * np.exp(reward * z - np.logaddexp(0.0, z))  # σ(z)^r σ(−z)^(1−r)
        whole = float(weight.sum())
    if whole < _IMPOSSIBLE:
        p = float(special.expit(mu))
        tau, nu = p * (1.0 - p), p * (1.0 - p) * mu + reward - p
    else:
        weight /= whole
        mean = float(weight @ z)
        variance = max(float(weight @ (z - mean) ** 2), _IMPOSSIBLE)
        tau, nu = 1.0 / variance - 1.0 / s2, mean / variance - mu / s2
    return min(max(tau, 0.0), 0.25), min(max(nu, -1.0), 1.0)


def sequence(mean: Array, covariance: Array, reward: Array) -> tuple[Array, Array]:
    """Sites τ (n,) and ν (n,) of n rows learned in this order, whose scores are N(mean (n,), covariance (n, n)) before
    the first; reward (n,) in [0, 1].

    The arguments are not changed.
    """
    mean, covariance = mean.copy(), covariance.copy()
    n = len(mean)
    tau, nu = np.zeros(n), np.zeros(n)
    for i, r in enumerate(reward.tolist()):
        s2 = max(float(covariance[i, i]), _LEAST)
        mu = float(mean[i])
        tau[i], nu[i] = t, v = site(mu, s2, r)
        later = covariance[i + 1 :, i].copy()
        shrink = 1.0 / (1.0 + t * s2)
        mean[i + 1 :] += later * ((v - t * mu) * shrink)
        covariance[i + 1 :, i + 1 :] -= np.multiply.outer(later * (t * shrink), later)
    return tau, nu
