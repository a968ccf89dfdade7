"""Gauss–Legendre quadrature on panels, 10 nodes each: integrals, and integrals up to each node.

The rule is written out: a library computes it from eigenvalues, which end in other bits on other processors.
"""

import numpy as np

from bandit.arrays import Array
from bandit.numerics.arithmetic import total

_HALF = np.array([0.1488743389816312, 0.4333953941292472, 0.6794095682990244, 0.8650633666889845, 0.9739065285171717])
_HALF_WEIGHTS = np.array(
    [0.2955242247147529, 0.2692667193099964, 0.2190863625159820, 0.1494513491505806, 0.0666713443086881]
)
NODES, WEIGHTS = np.concatenate([-_HALF[::-1], _HALF]), np.concatenate([_HALF_WEIGHTS[::-1], _HALF_WEIGHTS])


def points(edges: Array) -> tuple[Array, Array]:
    """Nodes and weights, (10·panels,) each, on the panels between sorted edges (panels + 1,)."""
    half = 0.5 * (edges[1:] - edges[:-1])
    t = (edges[:-1] + half)[:, None] + half[:, None] * NODES
    return t.ravel(), (half[:, None] * WEIGHTS).ravel()


def running(values: Array, edges: Array) -> tuple[Array, Array]:
    """Running integrals: ∫ up to each node (n, k), and the whole integral (k,), of k functions known at the nodes of
    `points`, (n, k).
    """
    half = 0.5 * (edges[1:] - edges[:-1])
    panels = values.reshape(len(half), len(NODES), -1)
    whole = np.add.accumulate(half[:, None] * total(np.moveaxis(panels, 1, 0) * WEIGHTS[:, None, None]), axis=0)
    before = np.concatenate([np.zeros((1, whole.shape[1])), whole[:-1]])
    inside = total(np.moveaxis(panels, 1, 0)[:, :, None] * _UP_TO.T[:, None, :, None])  # (panels, nodes, k)
    return (before[:, None] + half[:, None, None] * inside).reshape(values.shape), whole[-1]


def _up_to() -> Array:
    """(i, j): the integral up to node i of the polynomial that is 1 at node j and 0 at the others."""
    n = len(NODES)
    p = [np.ones(n), NODES]
    for m in range(1, n):
        p.append(((2 * m + 1) * NODES * p[m] - m * p[m - 1]) / (m + 1))
    found = np.multiply.outer(0.5 * (NODES + 1.0), np.ones(n))
    for m in range(1, n):
        found = found + 0.5 * np.multiply.outer(p[m + 1] - p[m - 1], p[m])
    return np.asarray(found * WEIGHTS, dtype=np.float64)


_UP_TO = _up_to()
