"""Assumed density filtering for a logistic likelihood: one row at a time, each becomes one Gaussian site.

A row sees the score z ~ N(μ, s²) of the posterior so far; its tilted density N(z; μ, s²)·σ(±z) is matched by a Gaussian
of mean ẑ and variance v̂, and the site is what was added: τ = 1/v̂ − 1/s², ν = ẑ/v̂ − μ/s² (Opper 1998; Minka 2001).
Moments by Gauss–Hermite quadrature. 0 < τ ≤ ¼, because the likelihood is log-concave with curvature at most ¼.

Rows are filtered in the space of their scores: n rows are one Gaussian of n dimensions, so that a row costs O(n), not
O(D²) in the number of coefficients; the result is the same. Once many rows are known, those of a batch are matched all
at once, each to the posterior before the batch (`batches`): what a batch adds to the posterior is then so little that
it makes no difference to its own sites (tests/bandit/policies/test_batched_sites.py), and a row costs a tenth.

Posteriors are computed in a library's arithmetic, whose last bits depend on the processor. What differs there is 10⁻¹²
at most; `matched` rounds sites to the grid of the sums, 6 · 10⁻⁸ apart, so that nearly all come out the same.
"""

from collections.abc import Iterator

import numpy as np
from scipy import special

from bandit.arrays import Array
from bandit.belief import grid
from bandit.numerics.library import FactoredPosterior

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(20)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()
_LEAST = 1e-12  # variance of a score
_NARROW = 1e-6  # a score this sure of itself has the likelihood's own curvature
_ONE_BY_ONE, _AT_ONCE = 128, 512  # rows of a batch at most, before the joint posterior is computed anew
_SMALL = 16  # a batch is matched at once if it has at most this part of what is known
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


def batches(known: float, n: int) -> Iterator[tuple[slice, bool]]:
    """Batches of n rows that are learned after `known` others, in order, and whether the rows of a batch are matched at
    once: those of up to 512, no more than a sixteenth of what is known then. Others are filtered one by one, 128 in a
    batch.
    """
    start = 0
    while start < n:
        most = min(int(known + start) // _SMALL, _AT_ONCE)
        at_once = most >= _ONE_BY_ONE
        stop = min(start + (most if at_once else _ONE_BY_ONE), n)
        yield slice(start, stop), at_once
        start = stop


def matched(found: FactoredPosterior, phi: Array, reward: Array, *, together: bool) -> tuple[Array, Array]:
    """Sites τ (n,) and ν (n,), multiples of 2⁻²⁴, of n rows phi (n, P) with reward (n,) in [0, 1], which are learned
    after what `found` knows: all at once if `together`, else in this order.
    """
    tau, nu = at_once(*found.marginals(phi), reward) if together else sequence(*found.joint(phi), reward)
    return grid(tau), grid(nu)


def at_once(mean: Array, variance: Array, reward: Array) -> tuple[Array, Array]:
    """Sites τ (n,) and ν (n,) of n rows, each as `site` of its own score N(mean, variance) and its reward, (n,)."""
    s2, mu, r = np.maximum(variance, _LEAST)[:, None], mean[:, None], reward[:, None]
    z = mu + np.sqrt(s2) * _NODES
    weight = _WEIGHTS * np.exp(r * z - np.logaddexp(0.0, z))
    whole = weight.sum(axis=1, keepdims=True)
    weight /= np.maximum(whole, _IMPOSSIBLE)
    centre = (weight * z).sum(axis=1, keepdims=True)
    spread = np.maximum((weight * (z - centre) ** 2).sum(axis=1, keepdims=True), _IMPOSSIBLE)
    p = special.expit(mu)
    own = (s2 < _NARROW) | (whole < _IMPOSSIBLE)
    tau = np.where(own, p * (1.0 - p), 1.0 / spread - 1.0 / s2)
    nu = np.where(own, p * (1.0 - p) * mu + r - p, centre / spread - mu / s2)
    return np.clip(tau[:, 0], 0.0, 0.25), np.clip(nu[:, 0], -1.0, 1.0)


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
