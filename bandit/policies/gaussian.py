"""Hierarchical Gaussian policy, for rewards that are numbers: the blocks of `hierarchy`, a Gaussian likelihood, unknown
noise.

Everything is in units of the noise σ, which is the pooled within-arm sd of the rewards: with sums Λ = Σxxᵀ and b = Σrx,
θ/σ has precision Λ + prior and shift b/σ + prior·mean, so that prior widths, and what stages say to each other about
types, mean the same whatever the reward's range. Exact in its sums: rows may come in any order.
"""

from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from bandit.arrays import Array, Mask
from bandit.belief import Belief
from bandit.policies import hierarchy, quadratic_forms
from bandit.policies.hierarchy import Layout, PriorScales
from bandit.policies.protocol import ArmEconomics, CoefficientFactor, ExactSites, RetiredArms, Scores
from bandit.policies.quadratic_forms import ScoreForms
from bandit.propensity.correlated import correlated, correlated_many

_PSEUDO = 50.0  # decisions that the starting values of σ² and of the pooled rate are worth
_UNITS = 0.35  # noise units in a logit: √(p(1 − p)) at a rate of 14 %


class HierarchicalGaussian(msgspec.Struct, ExactSites, frozen=True):
    """Form of `Hierarchical` where the reward is continuous: the same widths, one logit taken as 0.35 of the noise.
    `Stage.learner` makes it.

    Fields: `prior_mean` and `noise_sd` in units of the reward range; `base` and `effect` widths in logits; `alpha`
    scale of the posterior sd; `scales` as in `Hierarchical`.
    """

    prior_mean: float
    base: PriorScales
    effect: PriorScales
    alpha: float
    noise_sd: float = 0.3  # guessed noise before any data, in units of the reward range
    scales: str = "declared"

    def posterior(self, belief: Belief, arms: ArmEconomics) -> "JointPosterior":
        """Joint posterior of all arms' rewards: one inversion of an (m·d, m·d) matrix for each snapshot."""
        _, means, pairs, tagged = self.fitted(belief, arms)
        return JointPosterior(quadratic_forms.joint(means, pairs), quadratic_forms.places(len(means)), tagged)

    def fitted(self, belief: Belief, arms: ArmEconomics) -> tuple[float, Array, Array, ArmEconomics]:
        """Fitted model: the noise sd in units of the reward range; means (k, d); for each pair of arms the covariance,
        (k, k, d, d), as the policy samples it; the arms.
        """
        noise, layout, scaled, tagged = self._ready(belief, arms)
        means, pairs = hierarchy.projected(layout, hierarchy.posterior(layout, scaled))
        width = noise * self.alpha
        return noise, noise * means, width * width * pairs, tagged

    def message(self, belief: Belief, arms: ArmEconomics) -> CoefficientFactor | None:
        """Message to the app's other stages about the types of its nudges, in units of the noise; None if there are no
        nudges.
        """
        _, layout, scaled, tagged = self._ready(belief, arms)
        return hierarchy.message(layout, scaled, tagged.columns)

    def _ready(self, belief: Belief, arms: ArmEconomics) -> tuple[float, Layout, Belief, ArmEconomics]:
        total = belief.n.sum() + _PSEUDO
        rate = (belief.reward.sum() + _PSEUDO * self.prior_mean) / total
        within = belief.square - belief.reward * belief.reward / np.maximum(belief.n, 1.0)
        noise = float(np.sqrt((np.maximum(within, 0.0).sum() + _PSEUDO * self.noise_sd * self.noise_sd) / total))
        tagged = arms._replace(kinds=tuple(map(_tagged, arms.kinds)), retired=_scaled(arms.retired, noise))
        d = belief.shift.shape[1]
        base, effect = (PriorScales(_UNITS * s.intercept, _UNITS * s.slope) for s in (self.base, self.effect))
        layout = hierarchy.shared(tagged, d, base=base, effect=effect, start=rate / noise)
        scaled = belief._replace(shift=belief.shift / noise)
        if self.scales == "learned":
            layout = hierarchy.empirical(layout, scaled, hierarchy.grouped(layout))
        return noise, layout, scaled, tagged


def _tagged(kind: str) -> str:
    """A type as stages with this likelihood speak of it: not in logits."""
    return f"{kind} in noise units"


def _scaled(retired: RetiredArms | None, noise: float) -> RetiredArms | None:
    if retired is None:
        return None
    return retired._replace(kinds=tuple(map(_tagged, retired.kinds)), shift=retired.shift / noise)


class JointPosterior(NamedTuple):
    """Joint posterior of the rewards of all arms at x: their means, and the covariance of every pair as the policy
    samples it.
    """

    forms: ScoreForms
    pair: NDArray[np.intp]  # (k, k): which form
    arms: ArmEconomics

    def choose(self, x: Array, eligible: Mask) -> Scores:
        """Scores (k,) at x (d,) with joint propensities of utilities gain·reward − cost, for `eligible` arms
        (k,); exact up to the orthant integral. Raises PropensityError as `correlated`.
        """
        mean, spread = self.forms.one(x)
        covariance, gain = spread[self.pair], self.arms.gain
        joint = covariance * np.multiply.outer(gain, gain)
        p = np.zeros(len(mean))
        p[eligible] = correlated((gain * mean - self.arms.cost)[eligible], joint[np.ix_(eligible, eligible)])
        return Scores(mean, np.sqrt(np.maximum(covariance.diagonal(), 1e-18)), p)

    def choose_many(self, x: Array, eligible: Mask) -> Scores:
        """Scores of n rows, (n, k) each, joint in every row, with the bits of `choose`. Raises PropensityError as
        `correlated`.
        """
        mean, spread = self.forms.many(x)
        covariance, gain = spread[:, self.pair], self.arms.gain
        p = correlated_many(gain * mean - self.arms.cost, covariance * np.multiply.outer(gain, gain), eligible)
        return Scores(mean, np.sqrt(np.maximum(np.diagonal(covariance, axis1=1, axis2=2), 1e-18)), p)
