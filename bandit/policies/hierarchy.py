"""Block hierarchy: which blocks of coefficients θ an arm's score reads, and the Gaussian posterior over all of them.

    z(a, x) = x·β + 1{a ≠ none} (x·ν_kind(a) + x·δ_a)

β is the stage's baseline, ν what nudges of one type share, δ what is the nudge's own: sampling θ from the joint
Gaussian is hierarchical Thompson sampling (HierTS, Hong et al. 2022), integrated exactly. An arm's sums Λ_a, b_a over x
are all that is needed: its site at φ = (x, x, x) adds Λ_a to every pair of blocks it reads.

Types are shared across the stages of an app. Given the types, stages are independent, so all that a stage's sums say to
another is one Gaussian `CoefficientFactor` over the coefficients of types, with its own β and δ integrated out: exact.

Shapes: k arms, d features, m blocks; θ has m·d elements.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bandit.arrays import Array
from bandit.belief import Belief
from bandit.numerics import arithmetic
from bandit.policies.protocol import ArmEconomics, CoefficientFactor, RetiredArms


class PriorScales(NamedTuple):
    """Prior sds of a block: of its intercept, and of each slope, in logits or in units of the noise."""

    intercept: float
    slope: float


class Layout(NamedTuple):
    """Layout of blocks and their prior N(mean (m·d,), diag(1/precision (m·d,))); `reads[a]` are the blocks of arm a.

    `elsewhere` is what other stages know of the coefficients `at` (indices into θ), beyond the prior. `gone` is what
    retired nudges have taught.
    """

    d: int
    reads: tuple[tuple[int, ...], ...]
    precision: Array
    mean: Array
    types: tuple[str, ...] = ()  # blocks 1 … len(types)
    elsewhere: CoefficientFactor | None = None
    at: NDArray[np.intp] | None = None
    gone: tuple["RetiredInformation", ...] = ()


class RetiredInformation(NamedTuple):
    """Information of a retired nudge on the blocks it `reads`, its own block integrated out: for every pair the same
    (d, d) precision, and for each the same (d,) shift.
    """

    reads: tuple[int, ...]
    precision: Array
    shift: Array


class Gaussian(NamedTuple):
    """Gaussian posterior of θ, N(mean (m·d,), covariance (m·d, m·d))."""

    mean: Array
    covariance: Array


def shared(arms: ArmEconomics, d: int, *, base: PriorScales, effect: PriorScales, start: float) -> Layout:
    """Layout with sharing: one baseline for all arms, one block for each type, one for each nudge. `start`: prior mean
    of the baseline's intercept.
    """
    types = tuple(dict.fromkeys(arms.kinds[1:]))
    reads: list[tuple[int, ...]] = [(0,)]
    reads += [(0, 1 + types.index(kind), own) for own, kind in enumerate(arms.kinds[1:], 1 + len(types))]
    variances = [_variances(base, d)] + [_variances(effect, d)] * (len(types) + len(arms.kinds) - 1)
    mean = np.zeros(len(variances) * d)
    mean[0] = start
    given, at = _restricted(arms.cross_stage_factor, arms, types, effect)
    gone = _gone(arms.retired, types, _variances(effect, d))
    return Layout(d, tuple(reads), 1.0 / np.concatenate(variances), mean, types, given, at, gone)


def _gone(retired: RetiredArms | None, types: tuple[str, ...], variance: Array) -> tuple[RetiredInformation, ...]:
    """A type that no nudge has any more is integrated out with its last nudge."""
    result = []
    for kind, precision, shift in zip(retired.kinds, retired.precision, retired.shift, strict=True) if retired else ():
        known = kind in types
        own = np.diag(1.0 / (variance if known else 2.0 * variance))
        kept = np.eye(len(variance)) - arithmetic.solution(precision + own, precision).T  # I − Λ(Λ + P)⁻¹
        reduced = arithmetic.product(kept, precision)
        reads = (0, 1 + types.index(kind)) if known else (0,)
        result.append(
            RetiredInformation(reads, 0.5 * (reduced + reduced.T), arithmetic.product(kept, shift[:, None])[:, 0])
        )
    return tuple(result)


def disjoint(arms: ArmEconomics, d: int, *, own: PriorScales, start: float) -> Layout:
    """Layout without sharing: one block for each arm. `start`: prior mean of each intercept."""
    k = len(arms.names)
    mean = np.zeros((k, d))
    mean[:, 0] = start
    return Layout(d, tuple((a,) for a in range(k)), 1.0 / np.tile(_variances(own, d), k), mean.ravel())


def empirical(layout: Layout, belief: Belief, groups: NDArray[np.intp]) -> Layout:
    """Layout with prior variances learned from the sums: empirical Bayes by expectation–maximisation.

    groups (m·d,): coefficients of one group have one variance, v ← (Σ (m_i − m0_i)² + Σ_ii + ν v₀) / (n + ν) with the
    declared v₀ worth ν = 2 coefficients (Dempster, Laird & Rubin 1977, §4.5). Six rounds.
    """
    declared = 1.0 / layout.precision
    size = np.bincount(groups)
    for _ in range(_ROUNDS):
        found = posterior(layout, belief)
        moved = found.mean - layout.mean
        second = moved * moved + found.covariance.diagonal()
        total = np.bincount(groups, second) + _DECLARED * np.bincount(groups, declared) / size
        layout = layout._replace(precision=1.0 / (total / (size + _DECLARED))[groups])
    return layout


def grouped(layout: Layout) -> NDArray[np.intp]:
    """Groups (m·d,) of a `shared` layout: the baseline's intercept, its slopes, effects' intercepts, their slopes."""
    effects, slopes = np.arange(len(layout.mean)) >= layout.d, np.arange(len(layout.mean)) % layout.d > 0
    found: NDArray[np.intp] = np.unique(2 * effects + slopes, return_inverse=True)[1]
    return found


def posterior(layout: Layout, belief: Belief) -> Gaussian:
    """Posterior of θ from prior, sums and what others know. One inversion of an (m·d, m·d) matrix, once for each
    snapshot.
    """
    precision, shift = information(layout, belief)
    covariance = arithmetic.inverse(precision)
    return Gaussian(arithmetic.applied(covariance, shift), covariance)


def means(layout: Layout, belief: Belief) -> Array:
    """Posterior mean of each arm's own coefficients, (k, d), without its covariance."""
    precision, shift = information(layout, belief)
    found = arithmetic.solution(precision, shift[:, None]).reshape(-1, layout.d)
    return np.array([_added(found, reads) for reads in layout.reads])


def design(layout: Layout, x: Array, arm: NDArray[np.intp]) -> Array:
    """Rows (n, m·d) whose products with θ are the scores of n rows x (n, d) under their arms (n,)."""
    n, d = x.shape
    phi = np.zeros((n, len(layout.mean) // d, d))
    for a in np.unique(arm).tolist():
        rows = np.flatnonzero(arm == a)
        for i in layout.reads[a]:
            phi[rows, i] = x[rows]
    return phi.reshape(n, phi.shape[1] * d)


def information(layout: Layout, belief: Belief) -> tuple[Array, Array]:
    """Precision (m·d, m·d) and shift (m·d,) of θ: the prior's, the sums' and what others know."""
    d = layout.d
    precision, shift = np.diag(layout.precision), layout.precision * layout.mean
    for a, reads in enumerate(layout.reads):
        for i in reads:
            shift[i * d : (i + 1) * d] += belief.shift[a]
            for j in reads:
                precision[i * d : (i + 1) * d, j * d : (j + 1) * d] += belief.precision[a]
    for gone in layout.gone:
        for i in gone.reads:
            shift[i * d : (i + 1) * d] += gone.shift
            for j in gone.reads:
                precision[i * d : (i + 1) * d, j * d : (j + 1) * d] += gone.precision
    if layout.elsewhere is not None and layout.at is not None:
        precision[np.ix_(layout.at, layout.at)] += layout.elsewhere.precision
        shift[layout.at] += layout.elsewhere.shift
    return precision, shift


def message(layout: Layout, belief: Belief, columns: tuple[str, ...]) -> CoefficientFactor | None:
    """Message of a stage's own sums on the coefficients of its types, its baseline and its nudges integrated out.

    The prior of the types, and what others said of them, are left out, so that nothing is counted twice. None if there
    are no nudges. `columns`: d names.
    """
    if not layout.types:
        return None
    own = layout._replace(elsewhere=None, at=None)
    precision, shift = information(own, belief)
    inside = np.zeros(len(shift), dtype=bool)
    inside[layout.d : (1 + len(layout.types)) * layout.d] = True
    factor = _without(precision, shift, inside)
    prior = layout.precision[inside]
    keys = tuple((kind, column) for kind in layout.types for column in columns)
    return CoefficientFactor(keys, factor[0] - np.diag(prior), factor[1] - prior * layout.mean[inside])


def combined(factors: list[CoefficientFactor]) -> CoefficientFactor | None:
    """Product of factors: sums over the union of their coefficients, in sorted order; None for no factors."""
    keys = tuple(sorted({key for factor in factors for key in factor.keys}))
    if not keys:
        return None
    place = {key: i for i, key in enumerate(keys)}
    precision, shift = np.zeros((len(keys), len(keys))), np.zeros(len(keys))
    for factor in factors:
        at = np.array([place[key] for key in factor.keys], dtype=np.intp)
        precision[np.ix_(at, at)] += factor.precision
        shift[at] += factor.shift
    return CoefficientFactor(keys, precision, shift)


def _restricted(
    factor: CoefficientFactor | None, arms: ArmEconomics, types: tuple[str, ...], effect: PriorScales
) -> tuple[CoefficientFactor | None, NDArray[np.intp] | None]:
    """The factor over this stage's coefficients, the others integrated out under their prior; and where those are."""
    if factor is None or not types:
        return None, None
    d = len(arms.columns)
    place = {(kind, c): (1 + t) * d + i for t, kind in enumerate(types) for i, c in enumerate(arms.columns)}
    inside = np.array([key in place for key in factor.keys], dtype=bool)
    prior = np.array([1.0 / _square(effect.intercept if c == INTERCEPT else effect.slope) for _, c in factor.keys])
    precision = factor.precision + np.diag(np.where(inside, 0.0, prior))
    keys = tuple(key for key in factor.keys if key in place)
    at = np.array([place[key] for key in keys], dtype=np.intp)
    return CoefficientFactor(keys, *_without(precision, factor.shift, inside)), at


def _without(precision: Array, shift: Array, inside: NDArray[np.bool_]) -> tuple[Array, Array]:
    """Information about the coefficients `inside`, the others integrated out (Schur complement)."""
    cross = precision[np.ix_(inside, ~inside)]
    if cross.shape[1] == 0:
        return precision[np.ix_(inside, inside)], shift[inside]
    order, out = np.concatenate([np.flatnonzero(~inside), np.flatnonzero(inside)]), cross.shape[1]
    joined = np.zeros((len(order) + 1, len(order) + 1))
    joined[:-1, :-1], joined[:-1, -1], joined[-1, :-1] = precision[np.ix_(order, order)], shift[order], shift[order]
    left, _ = arithmetic.complement(joined, out)
    return 0.5 * (left[:-1, :-1] + left[:-1, :-1].T), left[:-1, -1]


def projected(layout: Layout, found: Gaussian) -> tuple[Array, Array]:
    """Projection of θ on the arms, what scores need: means (k, d), and for each pair of arms the matrix G with cov(z_a,
    z_b) = x'G_ab x, (k, k, d, d).
    """
    d, k = layout.d, len(layout.reads)
    m = len(found.mean) // d
    rows = np.array([_added(found.covariance.reshape(m, d, m * d), reads) for reads in layout.reads])
    each = rows.reshape(k, d, m, d).transpose(2, 0, 1, 3)
    pairs = np.array([_added(each, reads) for reads in layout.reads])  # (b, a, d, d)
    return np.array([_added(found.mean.reshape(m, d), reads) for reads in layout.reads]), pairs.transpose(1, 0, 2, 3)


def scores(means: Array, x: Array, arm: NDArray[np.intp]) -> Array:
    """Mean scores (n,) of rows x (n, d) under their arms (n,): x·m_a, from means (k, d)."""
    return arithmetic.total((x * means[arm]).T)


def _added(blocks: Array, reads: tuple[int, ...]) -> Array:
    """The blocks that an arm reads, one added after the other."""
    found: Array = blocks[reads[0]]
    for i in reads[1:]:
        found = found + blocks[i]
    return found


_ROUNDS, _DECLARED = 6, 2.0
INTERCEPT = "1"
"""The column that is always 1."""


def _variances(scales: PriorScales, d: int) -> Array:
    variances = np.full(d, _square(scales.slope))
    variances[0] = _square(scales.intercept)
    return variances


def _square(value: float) -> float:
    return value * value  # ** is a library's own
