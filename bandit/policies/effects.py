"""Layout of the coefficients of a centred policy: their prior, the posterior that sums give, and its scale.

`CentredLayout` says which blocks of coefficients the effect of each arm reads, and what is expected of them before any
data. `posterior` adds the sums of a belief; `most_likely` chooses the scale κ of all effects by Laplace evidence;
`from_no_nudge` turns the baseline, which is the mean over the logged draws, into that of showing nothing.

Shapes: k arms (no nudge first), d features, m blocks (baseline, all nudges, each type of two nudges or more, each
nudge), P = m·d coefficients. A nudge that is the only one of its type reads one block for both, with the prior of their
sum. A belief has the rows that `pairs` numbers, then one for each nudge: Σ τ p_a xxᵀ.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bandit.arrays import Array, Mask
from bandit.belief import Belief
from bandit.numerics import arithmetic, library
from bandit.policies.hierarchy import Gaussian, PriorScales
from bandit.policies.protocol import ArmEconomics
from bandit.policies.scale import SCALES, fitted, likeliest

_HOPELESS = 1000.0  # logits: a nudge that breaks even there or beyond is shown to nobody
_ALWAYS = SCALES[:3]  # scales that `likeliest` always tries
_ONE_HOT = 0.33  # of a slope's sd, for columns of a category


class EffectPrior(NamedTuple):
    """Prior of a centred policy at κ = 1: expected reward `rate` q, and prior sds in logits of the baseline, of what
    all nudges share, of what those of a type share, and of a nudge's own. `paid`: the part of an arm's break-even
    effect that is expected of it.
    """

    rate: float
    base: PriorScales
    common: PriorScales
    type: PriorScales
    own: PriorScales
    paid: float = 0.5

    def sceptical(self) -> "EffectPrior":
        """Prior that expects nothing of any effect, and leaves what all nudges share more open: ±0.15 logits."""
        common, kind, own = PriorScales(0.15, 0.20), PriorScales(0.05, 0.07), PriorScales(0.10, 0.10)
        return self._replace(common=common, type=kind, own=own, paid=0.0)


class CentredLayout(NamedTuple):
    """Layout of the P coefficients at one scale: blocks are the baseline, what all nudges share, one for each type of
    two nudges or more (`types`), one for each nudge.

    `effect` (k, m) is 1 where an arm's effect reads a block; prior N(mean (P,), inverse of precision (P, P)).
    """

    d: int
    types: tuple[str, ...]
    effect: NDArray[np.bool_]
    precision: Array
    mean: Array

    @property
    def reads(self) -> tuple[tuple[int, ...], ...]:
        """Blocks that the score of each arm reads when it is predicted: the baseline, and its effect's."""
        return tuple((0, *(int(i) for i in np.flatnonzero(row) if i)) for row in self.effect)


def pairs(k: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Arms (a, b) of each row of a belief: every arm with itself, then every pair a < b in order."""
    a, b = np.triu_indices(k, 1)
    own = np.arange(k)
    return np.concatenate([own, a]), np.concatenate([own, b])


def layout(prior: EffectPrior, arms: ArmEconomics, belief: Belief) -> CentredLayout:
    """Layout of a stage's coefficients at κ = 1, around the mean context of the belief."""
    kinds, d, q = arms.kinds[1:], belief.shift.shape[1], prior.rate
    types, k = tuple(dict.fromkeys(kind for kind in kinds if kinds.count(kind) > 1)), len(arms.names)
    effect = np.zeros((k, 2 + len(types) + k - 1), dtype=bool)
    effect[0, 0] = effect[1:, 1] = True
    for a, kind in enumerate(kinds, 1):
        effect[a, 1 + len(types) + a] = True
        if kind in types:
            effect[a, 2 + types.index(kind)] = True
    cost = arms.cost if arms.price is None else arms.cost - arms.price
    even = prior.paid * np.minimum((1.0 - arms.gain) / (1.0 - q) + cost / (q * (1.0 - q)), _HOPELESS)
    alone = _sum_of(prior.type, prior.own)
    blocks = [prior.common, *[prior.type] * len(types), *(prior.own if kind in types else alone for kind in kinds)]
    start = np.concatenate([np.zeros(1 + len(types)), even[1:]])
    heads = np.sqrt(np.array([block.intercept for block in blocks]) ** 2 + 0.25 * start * start)
    width = np.where(_one_hot(arms.columns, d), _ONE_HOT, 1.0)
    middle = _middle(belief)
    precision = np.zeros((effect.shape[1], d, effect.shape[1], d))
    precision[0, np.arange(d), 0, np.arange(d)] = _inverse_squares(prior.base.intercept, prior.base.slope * width)
    mean = np.zeros((effect.shape[1], d))
    mean[0, 0] = arithmetic.logit(q)
    for i, (head, block) in enumerate(zip(heads.tolist(), blocks, strict=True), 1):
        inverse = _inverse_squares(head, block.slope * width)
        own = np.diag(np.concatenate([[0.0], inverse[1:]])) + inverse[0] * np.multiply.outer(middle, middle)
        precision[i, :, i, :] = own
        mean[i, 0] = start[i - 1]
    size = effect.shape[1] * d
    return CentredLayout(d, types, effect, precision.reshape(size, size), mean.ravel())


def _sum_of(one: PriorScales, other: PriorScales) -> PriorScales:
    """Prior sds of the sum of two blocks."""
    intercept, slope = one.intercept**2 + other.intercept**2, one.slope**2 + other.slope**2
    return PriorScales(math.sqrt(intercept), math.sqrt(slope))


def _inverse_squares(head: float, slopes: Array) -> Array:
    inverse = 1.0 / (slopes * slopes)
    inverse[0] = 1.0 / (head * head)
    return np.asarray(inverse, dtype=np.float64)


def _one_hot(columns: tuple[str, ...], d: int) -> Mask:
    """Which columns (d,) are values of a category: their keys say `NAME=VALUE`."""
    named = columns or ("",) * d
    return np.array(["=" in name.split(":")[0] for name in named], dtype=bool)


def _middle(belief: Belief) -> Array:
    """Mean context x̄ (d,) of the rows, weighted by τ, with x̄ = 0 worth one row; its first element is 1."""
    row = belief.precision[0, 0]
    middle = row / (row[0] + 0.25)
    middle[0] = 1.0
    return np.asarray(middle, dtype=np.float64)


def at_scale(plain: CentredLayout, scale: float) -> CentredLayout:
    """Layout with the sds of effects multiplied by `scale`; the baseline's stay."""
    precision = plain.precision.copy()
    precision[plain.d :, plain.d :] /= scale * scale
    return plain._replace(precision=precision)


def information(layout: CentredLayout, belief: Belief) -> tuple[Array, Array]:
    """Precision (P, P) and shift (P,) of the coefficients: the prior's and the sums'."""
    (precision, shift), prior = summed(layout, belief), layout.precision
    total = precision + prior
    return 0.5 * (total + total.T), shift + arithmetic.applied(prior, layout.mean)


def summed(layout: CentredLayout, belief: Belief) -> tuple[Array, Array]:
    """Precision (P, P) and shift (P,) that the sums alone say of the coefficients, at any scale."""
    (k, m), d = layout.effect.shape, layout.d
    each = np.empty((k, k, d, d))
    first, second = pairs(k)
    each[first, second] = each[second, first] = belief.precision[: len(first)]
    rows = np.zeros((m, k, d, d))
    shift = np.zeros((m, d))
    places = [np.flatnonzero(row).tolist() for row in layout.effect]
    for a, reads in enumerate(places):
        for i in reads:
            rows[i] += each[a]
            shift[i] += belief.shift[a]
    precision = np.zeros((m, m, d, d))
    for b, reads in enumerate(places):
        for j in reads:
            precision[:, j] += rows[:, b]
    return precision.transpose(0, 2, 1, 3).reshape(m * d, m * d), shift.ravel()


def posterior(layout: CentredLayout, belief: Belief) -> Gaussian:
    """Posterior N(mean (P,), covariance (P, P)) of the coefficients: one inversion."""
    precision, shift = information(layout, belief)
    covariance = arithmetic.inverse(precision)
    return Gaussian(arithmetic.applied(covariance, shift), covariance)


def from_no_nudge(layout: CentredLayout, found: Gaussian, belief: Belief) -> Gaussian:
    """The same posterior with the baseline's block measured from no nudge, so that z_a = x·(β₀ + θ_a).

    Rows are learned as z = x·β + Σ_a (1{A = a} − p_a) x·θ_a, whose baseline is the mean over what was drawn: it has
    taken up the part of Σ_a p_a x·θ_a that is linear in x. By least squares with the weights of the rows,
    β₀ = β − Σ_a (Λ₀₀ + Π₀)⁻¹ (Σ τ p_a xxᵀ) θ_a.
    """
    (k, m), d = layout.effect.shape, layout.d
    drawn = np.zeros((m - 1, d, d))
    for a in range(1, k):
        drawn[np.flatnonzero(layout.effect[a]) - 1] += belief.precision[a - k]
    wide = drawn.transpose(1, 0, 2).reshape(d, (m - 1) * d)
    taken = arithmetic.solution(belief.precision[0] + layout.precision[:d, :d], wide)
    mean, covariance = found.mean.copy(), found.covariance.copy()
    mean[:d] -= arithmetic.applied(taken, mean[d:])
    covariance[:d] -= arithmetic.product(taken, covariance[d:])
    covariance[:, :d] -= arithmetic.product(covariance[:, d:], taken.T)
    covariance[:d, :d] = 0.5 * (covariance[:d, :d] + covariance[:d, :d].T)
    covariance[d:, :d] = covariance[:d, d:].T
    return Gaussian(mean, covariance)


def most_likely(plain: CentredLayout, belief: Belief) -> float:
    """Scale κ of all effects, by the Laplace evidence of the sums (`scale.likeliest`)."""
    if not belief.precision[0, 0, 0]:
        return 1.0
    sums = effect_sums(plain, belief)
    known = dict(zip(_ALWAYS, log_evidences(plain, _ALWAYS, *sums), strict=True))  # together: fewer calls of numpy
    return likeliest(
        lambda scale: known[scale] if scale in known else log_evidences(plain, (scale,), *sums)[0],
    )[1]


def recorded_scale(plain: CentredLayout, sums: tuple[Array, Array]) -> float:
    """`most_likely` of what `summed` gave, in the library's arithmetic, for sites. Two scales that are worth the same
    to the last bits may change places.
    """
    if not sums[0][0, 0]:
        return 1.0
    d, prior, mean = plain.d, plain.precision, plain.mean
    precision, shift = library.complement(sums[0] + prior, sums[1] + prior @ mean, d)
    prior, mean = prior[d:, d:], mean[d:]
    precision, shift, told = precision - prior, shift - prior @ mean, prior @ mean
    n, means = len(mean), float(mean @ told)

    def log_evidence(scale: float) -> float:
        square = scale * scale
        determinant, fit = library.evidence(precision + prior / square, shift + told / square)
        return 0.5 * (-2.0 * n * arithmetic.log_of(scale) - determinant + fit - means / square)

    return likeliest(log_evidence)[1]


def effect_sums(plain: CentredLayout, belief: Belief) -> tuple[Array, Array]:
    """Precision and shift that the sums alone give the effects (P − d), the baseline integrated out."""
    precision, shift = information(plain, belief)
    d, n = plain.d, len(shift)
    joined = np.zeros((n + 1, n + 1))
    joined[:n, :n], joined[:n, n], joined[n, :n] = precision, shift, shift
    left, _ = arithmetic.complement(joined, d)
    prior, mean = plain.precision[d:, d:], plain.mean[d:]
    reduced = left[:-1, :-1] - prior
    return 0.5 * (reduced + reduced.T), left[:-1, -1] - arithmetic.applied(prior, mean)


def log_evidences(plain: CentredLayout, scales: Sequence[float], precision: Array, shift: Array) -> list[float]:
    """Laplace evidence of what `effect_sums` gave, (S, t), under the layout's prior at each scale, up to a constant
    that all scales share:

        ½ log|Π| − ½ log|Π + S| + ½ (Πm + t)ᵀ(Π + S)⁻¹(Πm + t) − ½ mᵀΠm
    """
    d, n, square = plain.d, len(shift), np.square(scales)
    prior, mean = plain.precision[d:, d:] / square[:, None, None], np.tile(plain.mean[d:], (len(scales), 1))
    told = arithmetic.applied(prior, mean)
    determinants, fits = fitted(prior + precision, told + shift)
    widths = -2.0 * n * arithmetic.log(np.array(scales))  # log|Π| beside the one at κ = 1
    means = arithmetic.total((mean * told).T)
    return [float(v) for v in 0.5 * (widths - determinants + fits - means)]
