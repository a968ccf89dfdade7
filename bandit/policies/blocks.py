"""Structured features: which blocks of θ an arm's score reads, and the Gaussian posterior over all of them.

    z(a, x) = x·β + 1{a ≠ none} (x·ν_kind(a) + x·δ_a)

β is the stage's baseline, ν what nudges of one type share, δ what is the nudge's own: sampling θ from the joint
Gaussian is hierarchical Thompson sampling (HierTS, Hong et al. 2022), integrated exactly. An arm's sums Λ_a, b_a
over x are all that is needed: its site at φ = (x, x, x) adds Λ_a to every pair of blocks it reads.

Shapes: k arms, d features, m blocks; θ has m·d elements. A type with one nudge has no block of its own: its
variance goes to the nudge's.
"""

from collections import Counter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bandit.belief import Belief
from bandit.policies.protocol import Arms

Array = NDArray[np.float64]


class Scales(NamedTuple):
    """Prior sd of a block: of its intercept, and of each slope."""

    intercept: float
    slope: float


class Layout(NamedTuple):
    """`reads[a]` are the blocks of arm a; prior N(mean (m·d,), diag(1/precision (m·d,)))."""

    d: int
    reads: tuple[tuple[int, ...], ...]
    precision: Array
    mean: Array


class Gaussian(NamedTuple):
    """N(mean (m·d,), covariance (m·d, m·d))."""

    mean: Array
    covariance: Array


def shared(arms: Arms, d: int, *, base: Scales, effect: Scales, start: float) -> Layout:
    """One baseline for all arms, one block for each type of two nudges or more, one for each nudge."""
    types = [kind for kind, many in Counter(arms.kinds[1:]).items() if many > 1]
    reads: list[tuple[int, ...]] = [(0,)]
    variances = [_variances(base, d, 1.0)] + [_variances(effect, d, 1.0)] * len(types)
    for own, kind in enumerate(arms.kinds[1:], 1 + len(types)):
        reads.append((0, 1 + types.index(kind), own) if kind in types else (0, own))
        variances.append(_variances(effect, d, 1.0 if kind in types else 2.0))
    mean = np.zeros(len(variances) * d)
    mean[0] = start
    return Layout(d, tuple(reads), 1.0 / np.concatenate(variances), mean)


def disjoint(arms: Arms, d: int, *, own: Scales, start: float) -> Layout:
    """Nothing shared: one block for each arm."""
    k = len(arms.names)
    mean = np.zeros((k, d))
    mean[:, 0] = start
    return Layout(d, tuple((a,) for a in range(k)), 1.0 / np.tile(_variances(own, d, 1.0), k), mean.ravel())


def posterior(layout: Layout, belief: Belief) -> Gaussian:
    """The posterior of the blocks, from prior and sums. One inversion of an (m·d, m·d) matrix."""
    d = layout.d
    precision, shift = np.diag(layout.precision), layout.precision * layout.mean
    for a, reads in enumerate(layout.reads):
        for i in reads:
            shift[i * d : (i + 1) * d] += belief.shift[a]
            for j in reads:
                precision[i * d : (i + 1) * d, j * d : (j + 1) * d] += belief.precision[a]
    covariance = np.linalg.inv(precision)
    covariance = 0.5 * (covariance + covariance.T)
    return Gaussian(covariance @ shift, covariance)


def projected(layout: Layout, found: Gaussian) -> tuple[Array, Array]:
    """What scores need: means (k, d), and for each pair of arms the (d, d) matrix G with cov(z_a, z_b) = x'G_ab x."""
    d, k = layout.d, len(layout.reads)
    m = len(found.mean) // d
    reads = np.zeros((k, m))
    for a, blocks in enumerate(layout.reads):
        reads[a, list(blocks)] = 1.0
    pairs = found.covariance.reshape(m, d, m, d)
    return reads @ found.mean.reshape(m, d), np.einsum("ai,idje,bj->abde", reads, pairs, reads, optimize=True)


def _variances(scales: Scales, d: int, times: float) -> Array:
    variances = np.full(d, times * scales.slope**2)
    variances[0] = times * scales.intercept**2
    return variances
