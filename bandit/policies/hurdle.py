"""Hurdle policy, the hierarchy for revenue: whether anything is bought is logistic, how much is log-normal, each with
its own blocks.

    E r = σ(z)·exp(μ_ℓ + ½σ_ℓ²)

Most people bring nothing and few bring much, so one Gaussian describes neither (hurdle model, Mullahy 1986). A belief
has 2k rows here: whether, for each arm; then how much, over the rows that bought. Amounts are winsorised at the
declared maximum, and kept as ℓ = 1 + log(r / max) / log 10⁴: 1 at the maximum, 0 at a ten-thousandth of it.

The utility gain·E r − cost is linearised at the posterior mean in both: the policy is the vector that results.
"""

from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from bandit.arrays import Array, Mask
from bandit.belief import Belief, sites, stack, weighted
from bandit.numerics import arithmetic
from bandit.numerics.logistic import PROBIT
from bandit.policies import hierarchy, quadratic_forms
from bandit.policies.gaussian import HierarchicalGaussian
from bandit.policies.hierarchical import AssumedDensityPolicy
from bandit.policies.hierarchy import Layout, PriorScales
from bandit.policies.protocol import ArmEconomics, CoefficientFactor, Scores, Sites
from bandit.policies.quadratic_forms import ScoreForms
from bandit.propensity.correlated import correlated, correlated_many

_LOG = 9.210340371976184  # log 10⁴
_SHARE = 0.1  # of the maximum: an amount before any was seen
_NOISE = 0.1  # sd of ℓ before any was seen: 0.9 in the log of an amount


def level(reward: Array) -> Array:
    """Level ℓ in [0, 1] of amounts (n,) as shares of the maximum, above 0."""
    return np.asarray(np.clip(1.0 + arithmetic.log(np.maximum(reward, 1e-300)) / _LOG, 0.0, 1.0), dtype=np.float64)


def halves(belief: Belief) -> tuple[Belief, Belief]:
    """Two halves of a belief of 2k rows: whether (k rows), and how much (k rows)."""
    k = len(belief.n) // 2
    return Belief(*(part[:k] for part in belief)), Belief(*(part[k:] for part in belief))


class HierarchicalHurdle(msgspec.Struct, AssumedDensityPolicy, frozen=True):
    """Form of `Hierarchical` where the reward is revenue; `Stage.learner` makes it. `prior_mean`: share of people who
    buy; other fields as in `Hierarchical`.
    """

    prior_mean: float
    base: PriorScales
    effect: PriorScales
    alpha: float
    scales: str = "declared"

    def layout(self, arms: ArmEconomics, d: int) -> Layout:
        """Layout of blocks for whether anything is bought."""
        start = arithmetic.logit(self.prior_mean)
        return hierarchy.shared(arms, d, base=self.base, effect=self.effect, start=start)

    def learned(self, arms: ArmEconomics, belief: Belief) -> Layout:
        """Layout for whether, its prior variances by empirical Bayes if `scales = "learned"`."""
        layout = self.layout(arms, belief.shift.shape[1])
        return hierarchy.empirical(layout, belief, hierarchy.grouped(layout)) if self.scales == "learned" else layout

    def sites(self, belief: Belief, arms: ArmEconomics, x: Array, arm: NDArray[np.intp], reward: Array) -> Sites:
        """Sites τ (n,), ν (n,) for whether anything is bought; how much is exact, and needs no site recorded. x (n, d),
        reward (n,) in [0, 1].
        """
        return super().sites(halves(belief)[0], arms, x, arm, (reward > 0.0).astype(np.float64))

    def provisional(
        self, belief: Belief, arms: ArmEconomics, x: Array, arm: NDArray[np.intp], reward: Array, weight: Array
    ) -> Sites:
        """Provisional sites τ (n,), ν (n,) of n open rows for whether anything is bought, weight (n,) in (0, 1]."""
        bought = (reward > 0.0).astype(np.float64)
        return super().provisional(halves(belief)[0], arms, x, arm, bought, weight)

    def rows(self, arms: tuple[str, ...]) -> tuple[str, ...]:
        """Names of 2k rows: of each arm whether anything is bought, then of each how much."""
        return (*arms, *(f"{arm}$" for arm in arms))

    def sums(self, k: int, x: Array, arm: NDArray[np.intp], tau: Array, nu: Array, reward: Array) -> Belief:
        """Sums of whether, and exact sites of levels over the rows that bought; (2k) rows."""
        bought = np.flatnonzero(reward > 0.0)
        much = level(reward[bought])
        amounts = sites(k, x[bought], arm[bought], np.ones(len(bought)), much, much)
        return stack(sites(k, x, arm, tau, nu, reward), amounts)

    def weighted_sums(
        self, k: int, x: Array, arm: NDArray[np.intp], tau: Array, nu: Array, reward: Array, weight: Array
    ) -> Belief:
        """Both halves of rows that count in part; (2k) rows."""
        bought, much = np.flatnonzero(reward > 0.0), level(reward)
        w = weight[bought]
        amounts = weighted(k, x[bought], arm[bought], w, w * much[bought], much[bought], w)
        return stack(weighted(k, x, arm, tau, nu, reward, weight), amounts)

    def message(self, belief: Belief, arms: ArmEconomics) -> CoefficientFactor | None:
        """Message to other stages about what types do to whether anything is bought; None if there are no nudges."""
        whether = halves(belief)[0]
        return hierarchy.message(self.learned(arms, whether), whether, arms.columns)

    def posterior(self, belief: Belief, arms: ArmEconomics) -> "HurdlePosterior":
        """Joint posterior of both halves: logits and levels of all arms."""
        whether, much = halves(belief)
        layout = self.learned(arms, whether)
        start = float(level(np.array([_SHARE]))[0])
        amounts = HierarchicalGaussian(start, self.base, self.effect, 1.0, noise_sd=_NOISE, scales=self.scales)
        alone = arms._replace(cross_stage_factor=None, retired=None)
        means, pairs = hierarchy.projected(layout, hierarchy.posterior(layout, whether))
        noise, *levels, _ = amounts.fitted(much, alone)
        joint = quadratic_forms.joint
        return HurdlePosterior(
            joint(means, pairs), joint(*levels), quadratic_forms.places(len(means)), noise, self.alpha, arms
        )


class HurdlePosterior(NamedTuple):
    """Posterior of logits and levels of all arms: their means, and the covariances of every pair. `noise`: sd of a
    level.
    """

    logits: ScoreForms
    levels: ScoreForms
    pair: NDArray[np.intp]  # (k, k): which form
    noise: float  # sd of ℓ between people
    alpha: float
    arms: ArmEconomics

    def choose(self, x: Array, eligible: Mask) -> Scores:
        """Scores at x (d,) with joint propensities of expected utilities. Raises PropensityError as `correlated`."""
        (z, spread), (mu, doubt) = self.logits.one(x), self.levels.one(x)
        mean, utility, worth, sd = self._worth(z, spread[self.pair], mu, doubt[self.pair])
        p = np.zeros(len(mean))
        p[eligible] = correlated(utility[eligible], worth[np.ix_(eligible, eligible)])
        return Scores(mean, sd, p)

    def choose_many(self, x: Array, eligible: Mask) -> Scores:
        """Scores of n rows, (n, k) each, in every row as `choose`, to the bit. Raises PropensityError
        as `correlated`.
        """
        (z, spread), (mu, doubt) = self.logits.many(x), self.levels.many(x)
        mean, utility, worth, sd = self._worth(z, spread[:, self.pair], mu, doubt[:, self.pair])
        return Scores(mean, sd, correlated_many(utility, worth, eligible))

    def _worth(self, z: Array, spread: Array, mu: Array, doubt: Array) -> tuple[Array, Array, Array, Array]:
        """Expected reward, utility and its covariance, and the reward's sd: of logits and levels (…, k), (…, k, k)."""
        own = np.maximum(np.diagonal(doubt, axis1=-2, axis2=-1), 0.0)
        extra = 0.5 * _LOG * _LOG * (self.noise * self.noise + own)
        amount = np.minimum(arithmetic.exp(_LOG * (np.minimum(mu, 1.0) - 1.0) + extra), 1.0)
        at = arithmetic.expit(z)
        by_z, by_level = amount * at * (1.0 - at), _LOG * amount * at
        covariance = self.alpha * self.alpha * (_outer(by_z) * spread + _outer(by_level) * doubt)
        variance = np.maximum(np.diagonal(spread, axis1=-2, axis2=-1), 1e-18)
        mean = arithmetic.expit(z / np.sqrt(1.0 + PROBIT * variance)) * amount
        gain, cost = self.arms.gain, self.arms.cost
        sd = np.sqrt(np.maximum(np.diagonal(covariance, axis1=-2, axis2=-1), 1e-18))
        return mean, gain * at * amount - cost, covariance * np.multiply.outer(gain, gain), sd


def _outer(v: Array) -> Array:
    return np.asarray(v[..., :, None] * v[..., None, :], dtype=np.float64)
