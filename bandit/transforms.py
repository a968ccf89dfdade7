"""Transforms of a probability vector, between the policy and the floor. Pure; sums kept.

Shapes: (k,) in, (k,) out; (n, k) of n rows where a name ends in `_many`, each row for itself.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def top_two(p: Array, beta: float) -> Array:
    """Top-two Thompson sampling in closed form: the winner of a draw with probability `beta`, else the winner of a
    draw that another arm wins (Russo 2020). It measures the two best arms more equally than Thompson sampling does.

        p_k (β + (1 − β) Σ_{j≠k} p_j / (1 − p_j))

    An arm that wins every draw has no runner-up, and keeps its probability of 1. So does an arm of p = 0 its 0.
    """
    others = 1.0 - np.eye(len(p))  # sums over others, not differences: nothing cancels where one arm is almost sure
    rest = others @ p
    if rest.min() <= 0.0:
        return p
    return np.asarray(p * (beta + (1.0 - beta) * (others @ (p / rest))), dtype=np.float64)


def top_two_many(p: Array, beta: float) -> Array:
    """`top_two` of n rows, the same to rounding."""
    others = 1.0 - np.eye(p.shape[1])
    rest = np.einsum("na,ab->nb", p, others)
    sure = rest.min(axis=1, keepdims=True) <= 0.0
    odds = np.einsum("na,ab->nb", p / np.where(sure, 1.0, rest), others)
    return np.where(sure, p, p * (beta + (1.0 - beta) * odds))


def ramp(p: Array, share: float) -> Array:
    """The policy decides for `share` of the traffic, the rest gets no nudge (the first arm). Also of rows (n, k)."""
    ramped = share * p
    ramped[..., 0] += 1.0 - share
    return ramped
