"""Hierarchical and disjoint logistic policies: Bayesian logistic regression with Thompson sampling, pooled across nudge
types, or one model for each arm.

The likelihood of a binary reward is σ(z); rows are learned by assumed density filtering (`assumed_density`), so their
recorded sites depend on the order in which they were learned. The sums over recorded sites do not: a rebuild gives the
same bits, and taking a row out is exact.

The choice maximises gain·σ(z) − cost under a draw of the joint posterior, its sd scaled by α. Scores of arms that share
blocks are correlated, so propensities are orthant probabilities (`bandit.propensity.correlated`). Where gains or costs
differ, the utility is linearised at the posterior mean: the policy *is* the resulting vector, which is what is logged.
"""

from typing import Annotated, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from bandit.arrays import Array, Mask
from bandit.belief import Belief, add, sites, weighted
from bandit.numerics import arithmetic, library, logistic
from bandit.numerics.logistic import PROBIT
from bandit.policies import assumed_density, hierarchy
from bandit.policies.gaussian import HierarchicalGaussian
from bandit.policies.hierarchy import Layout, PriorScales
from bandit.policies.protocol import ArmEconomics, ArmRows, CoefficientFactor, Scores, Sites
from bandit.policies.quadratic_forms import ScoreForms, forms, joint, places
from bandit.policies.scale import Scales, chosen, fitted
from bandit.propensity import gaussian
from bandit.propensity.correlated import correlated, correlated_many

Positive = Annotated[float, msgspec.Meta(ge=1e-3, le=100)]
Rate = Annotated[float, msgspec.Meta(ge=1e-6, le=0.999999)]
Alpha = Annotated[float, msgspec.Meta(ge=0.01, le=2)]

_LEAST = np.array(1e-18)  # variance of a score; an array, because a float costs twice as much in a product of few
_NEWTON, _STRIDE = 3, 2.0  # steps to the mode of what is provisional, and the longest of them in logits
_SILENT = 1e-100  # chance of silence that is left where an answer is certain
_FLATTEST = 0.01  # of a curvature that could turn: silence about a likely answer


class AssumedDensityPolicy(ArmRows):
    """Mixin of logistic policies: sites by assumed density filtering over a layout of blocks, which the policy itself
    declares.
    """

    alpha: float

    def layout(self, arms: ArmEconomics, d: int) -> Layout:  # noqa: ARG002
        """Layout: which blocks of coefficients each arm's score reads, and their prior; d features."""
        raise TypeError(f"{type(self).__name__} declares no layout")

    def learned(self, arms: ArmEconomics, belief: Belief) -> Layout:
        """Layout with its scales as declared, or as the sums show them where the policy learns them."""
        return self.layout(arms, belief.shift.shape[1])

    @property
    def link(self) -> Literal["identity", "logit"]:
        """Link of the sites: shifts are in logits."""
        return "logit"

    def sites(self, belief: Belief, arms: ArmEconomics, x: Array, arm: NDArray[np.intp], reward: Array) -> Sites:
        """Sites τ (n,), ν (n,) of n rows learned in this order, after what `belief` knows: x (n, d), arm (n,), reward
        (n,) in [0, 1].
        """
        layout = self.learned(arms, belief)
        phi, (precision, shift) = hierarchy.design(layout, x, arm), hierarchy.information(layout, belief)
        tau, nu = np.zeros(len(x)), np.zeros(len(x))
        for rows, together in assumed_density.batches(float(belief.n.sum()), len(x)):
            found = library.factored(precision, shift)
            tau[rows], nu[rows] = assumed_density.matched(found, phi[rows], reward[rows], together=together)
            if rows.stop < len(x):
                belief = add(belief, sites(len(arms.names), x[rows], arm[rows], tau[rows], nu[rows], reward[rows]))
                precision, shift = hierarchy.information(layout, belief)
        return tau, nu

    def provisional(
        self, belief: Belief, arms: ArmEconomics, x: Array, arm: NDArray[np.intp], reward: Array, weight: Array
    ) -> Sites:
        """Provisional sites of n open rows, weight (n,) in (0, 1], all at once, by Laplace's approximation: Newton's
        steps to the joint mode, from what `belief` expects.

        A step is as long as scores may move by 2 logits at most. In batches of thousands this costs a fraction of
        filtering row by row, and what is provisional is replaced by its filtered site when it settles.
        """
        layout = self.learned(arms, belief)
        means, pairs = hierarchy.projected(layout, hierarchy.posterior(layout, belief))
        z, spread = _scores(means, pairs, x, arm)
        tau, nu = curved(z, spread, reward, weight)
        for _ in range(_NEWTON):
            rows = weighted(len(arms.names), x, arm, tau, nu, reward, weight)
            step = hierarchy.scores(hierarchy.means(layout, add(belief, rows)), x, arm) - z
            z = z + step * (_STRIDE / max(float(np.abs(step).max(initial=0.0)), _STRIDE))
            tau, nu = curved(z, np.zeros(len(z)), reward, weight)
        return tau, nu

    def message(self, belief: Belief, arms: ArmEconomics) -> CoefficientFactor | None:  # noqa: ARG002
        """Message to other stages: None, stages share nothing."""
        return None


class LogitPolicy(AssumedDensityPolicy):
    """Mixin of filtered policies whose posterior is joint in the logits of all arms, and nothing else."""

    def posterior(self, belief: Belief, arms: ArmEconomics) -> "LogitPosterior":
        """Joint posterior of all arms' scores, in logits: one inversion of an (m·d, m·d) matrix for each snapshot."""
        return _ready(self.learned(arms, belief), belief, arms, self.alpha)


class Hierarchical(
    msgspec.Struct, LogitPolicy, frozen=True, tag="hierarchical", tag_field="name", forbid_unknown_fields=True
):
    """Hierarchical Thompson sampling, `policy = { name = "hierarchical" }`, the default: a baseline for the stage,
    effects for each type of nudge and for each nudge. Types are shared across the stages of an app.

    A continuous reward is learned by `gaussian`, revenue by `hurdle` (`Stage.learner`).

    Fields: sds are in logits: of the stage's baseline and of nudges' effects, intercept and slopes. `prior_mean`:
    expected reward before any data, in units of the reward range. `alpha`: scale of the posterior sd. `scales`:
    "learned" moves the four sds to what the data show (empirical Bayes), for those who cannot guess them.
    """

    prior_mean: Rate = 0.1
    base_sd: Positive = 1.4
    base_slope_sd: Positive = 0.5
    effect_sd: Positive = 0.25
    effect_slope_sd: Positive = 0.2
    alpha: Alpha = 0.35
    scales: Literal["declared", "learned"] = "declared"

    @property
    def widths(self) -> tuple[PriorScales, PriorScales]:
        """Prior widths (in logits) of the baseline and of effects."""
        return PriorScales(self.base_sd, self.base_slope_sd), PriorScales(self.effect_sd, self.effect_slope_sd)

    def layout(self, arms: ArmEconomics, d: int) -> Layout:
        """Layout of blocks: the stage's baseline, one for each type, one for each nudge."""
        base, effect = self.widths
        return hierarchy.shared(arms, d, base=base, effect=effect, start=arithmetic.logit(self.prior_mean))

    def learned(self, arms: ArmEconomics, belief: Belief) -> Layout:
        """Layout with prior variances by empirical Bayes if `scales = "learned"`, else as declared."""
        layout = self.layout(arms, belief.shift.shape[1])
        return hierarchy.empirical(layout, belief, hierarchy.grouped(layout)) if self.scales == "learned" else layout

    def gaussian(self) -> HierarchicalGaussian:
        """Policy with the same hierarchy for continuous rewards."""
        return HierarchicalGaussian(self.prior_mean, *self.widths, self.alpha, scales=self.scales)

    def message(self, belief: Belief, arms: ArmEconomics) -> CoefficientFactor | None:
        """Message to the app's other stages about the types of its nudges; None if there are no nudges."""
        return hierarchy.message(self.learned(arms, belief), belief, arms.columns)


class Logistic(msgspec.Struct, LogitPolicy, frozen=True, tag="logistic", tag_field="name", forbid_unknown_fields=True):
    """Disjoint logistic Thompson sampling, `policy = { name = "logistic" }`. Needs a binary reward. One model for each
    arm, nothing shared.

    Fields: `prior_sd`, `slope_sd`: prior sds in logits, of an arm's intercept and slopes. `prior_mean`: expected reward
    before any data. `alpha`: scale of the posterior sd. `scales`: "slopes" multiplies the sd of slopes by one factor κ,
    chosen by the Laplace evidence of the sums (`scale.chosen`), "learned" both sds, "declared" none.
    """

    prior_mean: Rate = 0.1
    prior_sd: Positive = 1.0
    slope_sd: Positive = 0.4
    alpha: Alpha = 0.5
    scales: Scales | msgspec.UnsetType = msgspec.UNSET

    def layout(self, arms: ArmEconomics, d: int) -> Layout:
        """Layout of blocks: one for each arm."""
        own = PriorScales(self.prior_sd, self.slope_sd)
        return hierarchy.disjoint(arms, d, own=own, start=arithmetic.logit(self.prior_mean))

    def learned(self, arms: ArmEconomics, belief: Belief) -> Layout:
        """Layout with prior sds as `scales` has them: as declared, or κ times that."""
        layout, scales = self.layout(arms, belief.shift.shape[1]), self.scales or "declared"
        if scales == "declared" or not belief.n.any():
            return layout
        prior, mean = layout.precision.reshape(belief.shift.shape), layout.mean.reshape(belief.shift.shape)
        moved = np.arange(layout.d) >= (1 if scales == "slopes" else 0)
        size = len(prior) * int(moved.sum())

        def at(scale: float) -> Array:
            return np.where(moved, prior / (scale * scale), prior)

        def log_evidence(scale: float) -> float:
            own = at(scale)
            told = own * mean
            determinants, fit = fitted(belief.precision + own[:, :, None] * np.eye(layout.d), belief.shift + told)
            widths = -2.0 * size * float(arithmetic.log(np.array(scale)))
            return 0.5 * (
                widths - float(arithmetic.total(determinants)) + float(arithmetic.total(fit - _dot(mean, told)))
            )

        return layout._replace(precision=at(chosen(scales, log_evidence)[1]).ravel())


def _dot(one: Array, other: Array) -> Array:
    return arithmetic.total((one * other).T)


class LogitPosterior(NamedTuple):
    """Posterior of the logits of all arms: their means, and covariances x'G_ab x for every pair of arms; for every arm
    with itself only where scores are independent.
    """

    forms: ScoreForms
    pair: NDArray[np.intp] | None  # (k, k): which form; None where scores are independent
    own: slice | NDArray[np.intp]  # forms of an arm with itself
    priced: bool  # gains or costs of arms differ
    alpha: float
    arms: ArmEconomics

    def choose(self, x: Array, eligible: Mask) -> Scores:
        """Scores from joint logits N(m, α² C) at x (d,); the mean and sd reported are of the reward σ(z). Raises
        PropensityError where integration fails.
        """
        z, spread = self.forms.one(x)
        mean, at, steep, width = self._marginals(z, spread[self.own])
        matrix = width if self.pair is None else self.alpha * self.alpha * spread[self.pair]
        gain, cost = self.arms.gain, self.arms.cost
        if all(eligible.tolist()):
            return Scores(mean, steep * width, self._wins(z, at, steep, matrix, gain, cost))
        p, some = np.zeros(len(z)), eligible if self.pair is None else np.ix_(eligible, eligible)
        p[eligible] = self._wins(
            z[eligible], at[eligible], steep[eligible], matrix[some], gain[eligible], cost[eligible]
        )
        return Scores(mean, steep * width, p)

    def _marginals(self, z: Array, variance: Array) -> tuple[Array, Array, Array, Array]:
        """E σ(z); σ(z), its slope, and the sd of z as the policy samples it."""
        variance = np.maximum(variance, _LEAST)
        mean, at = logistic.values(np.array([z / np.sqrt(1.0 + PROBIT * variance), z]))
        return mean, at, at * (1.0 - at), self.alpha * np.sqrt(variance)

    def _wins(self, z: Array, at: Array, steep: Array, spread: Array, gain: Array, cost: Array) -> Array:
        """`spread`: sds where scores are independent, their covariance where not."""
        if self.priced and (np.ptp(gain) > 0.0 or np.ptp(cost) > 0.0):
            scale = gain * steep
            z = gain * at - cost
            spread = scale * spread if self.pair is None else spread * scale[:, None] * scale
        return gaussian.gaussian(z, spread) if self.pair is None else correlated(z, spread)

    def choose_many(self, x: Array, eligible: Mask) -> Scores:
        """Scores of n rows, (n, k) each, joint in every row, with the bits of `choose`. Raises PropensityError as
        `choose`.
        """
        z, spread = self.forms.many(x)
        mean, at, steep, width = self._marginals(z, spread[:, self.own])
        worth, scale = self._worth_many(z, at, steep, eligible)
        if self.pair is None:
            return Scores(mean, steep * width, gaussian.gaussian_many(worth, scale * width, eligible))
        covariance = self.alpha * self.alpha * spread[:, self.pair] * scale[:, :, None] * scale[:, None, :]
        return Scores(mean, steep * width, correlated_many(worth, covariance, eligible))

    def _worth_many(self, z: Array, at: Array, steep: Array, eligible: Mask) -> tuple[Array, Array]:
        """What is compared, and its slope in z, (n, k) each: utilities in rows whose gains or costs differ, else z."""
        if not self.priced:
            return z, np.ones_like(z)
        differ = _differ(self.arms.gain, eligible) | _differ(self.arms.cost, eligible)
        gain = self.arms.gain
        return np.where(differ, gain * at - self.arms.cost, z), np.where(differ, gain * steep, 1.0)


def _differ(values: Array, eligible: Mask) -> Mask:
    """(n, 1): whether the eligible arms of a row have different `values` (k,)."""
    most = np.where(eligible, values, -np.inf).max(axis=1, keepdims=True)
    return np.asarray(most > np.where(eligible, values, np.inf).min(axis=1, keepdims=True))


def curved(z: Array, variance: Array, reward: Array, weight: Array, *, bounded: bool = False) -> Sites:
    """Provisional sites (τ, ν) of rows at scores z, smoothed by the scores' variance: slope and curvature of
    log(1 − F σ(z)) where nobody has answered yet and F = `weight` of all answers would have come by now; of the usual
    likelihood where F = 1. `bounded`: the curvature is at most F p(1 − p), which the floor for flat ones exceeds near
    p = 1; not in ledgers that recorded decisions without it.
    """
    p = arithmetic.expit(z / np.sqrt(1.0 + PROBIT * variance))
    q, silent = 1.0 - p, np.maximum(1.0 - weight * p, _SILENT)
    most = weight * p * q
    tau = most * np.maximum(1.0 - 2.0 * p + weight * p * p, _FLATTEST) / (silent * silent)
    if bounded:
        tau = np.minimum(tau, most)
    return tau, tau * z + weight * (reward - p) * q / silent


def _scores(means: Array, pairs: Array, x: Array, arm: NDArray[np.intp]) -> tuple[Array, Array]:
    """Mean and variance (n,) of the score of each row, x (n, d) under its arm (n,), from means (k, d) and pairs (k, k,
    d, d).
    """
    variance = np.zeros(len(x))
    for a in np.unique(arm).tolist():
        rows = arm == a
        variance[rows] = arithmetic.total((arithmetic.product(x[rows], pairs[a, a]) * x[rows]).T)
    return hierarchy.scores(means, x, arm), variance


def _ready(layout: Layout, belief: Belief, arms: ArmEconomics, alpha: float) -> LogitPosterior:
    means, pairs = hierarchy.projected(layout, hierarchy.posterior(layout, belief))
    each = np.arange(len(means))
    priced = bool(np.ptp(arms.gain) > 0.0 or np.ptp(arms.cost) > 0.0)
    if all(len(reads) == 1 for reads in layout.reads):
        return LogitPosterior(forms(means, pairs[each, each]), None, slice(None), priced, alpha, arms)
    pair = places(len(means))
    return LogitPosterior(joint(means, pairs), pair, pair.diagonal(), priced, alpha, arms)
