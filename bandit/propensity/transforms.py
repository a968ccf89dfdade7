"""Transforms of a probability vector between the policy and the floor: top-two sampling and the ramp. Pure; sums are
kept.

Shapes: (k,) in, (k,) out; (n, k) of n rows where a name ends in `_many`, each row for itself.
"""

import numpy as np

from bandit.arrays import Array


def top_two(p: Array, beta: float) -> Array:
    """Top-two Thompson sampling in closed form, (k,): the winner of a draw with probability `beta`, else the winner of
    a draw that another arm wins (Russo 2020). It measures the two best arms more equally than Thompson sampling does.

        p_k (β + (1 − β) Σ_{j≠k} p_j / (1 − p_j))

    An arm that wins every draw has no runner-up, and keeps its probability of 1. So does an arm of p = 0 its 0.
    """
    return np.asarray(top_two_many(p[None], beta)[0], dtype=np.float64)


def top_two_many(p: Array, beta: float) -> Array:
    """Top-two propensities of n rows p (n, k): `top_two` of each, the same bits. A row in which one arm is sure comes
    back unchanged.
    """
    rest = _others(p)
    sure = rest.min(axis=1, keepdims=True) <= 0.0
    odds = _others(p / np.where(sure, 1.0, rest))
    return np.where(sure, p, p * (beta + (1.0 - beta) * odds))


def _others(values: Array) -> Array:
    """Σ_{j≠k} of rows (n, k): sums over others, not differences, so that nothing cancels where one arm is almost sure;
    one after the other.
    """
    k = values.shape[1]
    found = np.zeros_like(values)
    for j in range(k):
        found[:, np.arange(k) != j] += values[:, j, None]
    return found


def ramp(p: Array, share: float) -> Array:
    """Ramped propensities: the policy decides for `share` of the traffic, the rest gets no nudge (the first arm). p
    (k,) or rows (n, k), the result likewise.
    """
    if p.ndim == 1:  # plain floats are sooner than an array of few
        first, *rest = p.tolist()
        return np.array([share * first + (1.0 - share), *(share * v for v in rest)])
    ramped = share * p
    ramped[:, 0] += 1.0 - share
    return ramped
