"""Assumed density filtering for a logistic likelihood: one row at a time, each becomes one Gaussian site.

A row sees the score z ~ N(μ, s²) of the posterior so far; its tilted density N(z; μ, s²)·σ(±z) is matched by a
Gaussian of mean ẑ and variance v̂, and the site is what was added: τ = 1/v̂ − 1/s², ν = ẑ/v̂ − μ/s² (Opper 1998;
Minka 2001).
Moments by Gauss–Hermite quadrature. 0 < τ ≤ ¼, because the likelihood is log-concave with curvature at most ¼.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import special

from bandit.policies.blocks import Gaussian, Layout

Array = NDArray[np.float64]

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(20)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()
_NARROW = 1e-6  # a score this sure of itself has the likelihood's own curvature


def site(mu: float, s2: float, reward: float) -> tuple[float, float]:
    """(τ, ν) of one row whose score is N(mu, s2) before it, s2 > 0; a reward between 0 and 1 weighs both answers."""
    if s2 < _NARROW:
        p = float(special.expit(mu))
        tau, nu = p * (1.0 - p), p * (1.0 - p) * mu + reward - p
    else:
        z = mu + np.sqrt(s2) * _NODES
        weight = _WEIGHTS * np.exp(reward * special.log_expit(z) + (1.0 - reward) * special.log_expit(-z))
        weight /= weight.sum()
        mean = float(weight @ z)
        variance = float(weight @ (z - mean) ** 2)
        tau, nu = 1.0 / variance - 1.0 / s2, mean / variance - mu / s2
    return min(max(tau, 0.0), 0.25), min(max(nu, -1.0), 1.0)


def sequence(start: Gaussian, layout: Layout, x: Array, arm: NDArray[np.intp], reward: Array) -> tuple[Array, Array]:
    """(τ, ν) of n rows learned in this order: x (n, d), arm (n,), reward (n,). `start` is not changed."""
    mean, covariance = start.mean.copy(), start.covariance.copy()
    tau, nu = np.zeros(len(x)), np.zeros(len(x))
    d = layout.d
    for i, (row, a) in enumerate(zip(x, arm.tolist(), strict=True)):
        blocks = [slice(b * d, (b + 1) * d) for b in layout.reads[a]]
        k = sum(covariance[:, b] @ row for b in blocks)
        s2 = max(sum(float(k[b] @ row) for b in blocks), 1e-12)
        mu = sum(float(mean[b] @ row) for b in blocks)
        tau[i], nu[i] = t, v = site(mu, s2, float(reward[i]))
        shrink = t / (1.0 + t * s2)
        mean += k * ((v - t * mu) / (1.0 + t * s2))
        covariance -= np.multiply.outer(k * shrink, k)
    return tau, nu
