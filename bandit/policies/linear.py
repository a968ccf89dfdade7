"""Linear Thompson sampling, one Bayesian linear regression for each arm (disjoint).

Model: r = x·θ_a + ε, ε ~ N(0, σ²), θ_a ~ N(m₀, σ² diag v). With sums Λ = Σxxᵀ and b = Σrx,
P = Λ + diag(1/v), mean = P⁻¹(b + m₀/v), covariance = σ² P⁻¹ (Agrawal & Goyal 2013).

Two choices beyond the textbook, both functions of the exact sums only:
* σ² is the pooled within-arm variance of the rewards, started at `noise_sd`: rewards of a 3 % conversion rate
  vary five times less than the ½ that is usually assumed, and exploration should know.
* the prior mean of the intercept is the pooled reward rate, so that a new arm starts as an average arm.

The posterior's standard deviation is scaled by α: at the traffic of one journey stage, exact Thompson
sampling explores too much.

With `scales = "slopes"` one factor κ multiplies the prior sds of all slopes (`scale.chosen`), with "learned" those of
intercepts too. The noise is integrated out, and σ² is the variance that the regression leaves, not that within arms,
which effects of the context make larger:

    log evidence = ½ Σ_a (log|Π_κ| − log|P_a|) − ½ (n + 50) log σ²_κ,
    σ²_κ = (Σ (r − r̄)² − Σ_a tᵀ_a P⁻¹_a t_a + 50 σ₀²) / (n + 50),   t_a = b_a − r̄ Λ_a e₁
"""

from typing import Annotated, NamedTuple

import msgspec
import numpy as np

from bandit.arrays import Array, Mask
from bandit.belief import Belief
from bandit.numerics import arithmetic
from bandit.policies.protocol import ArmEconomics, ExactSites, Scores
from bandit.policies.quadratic_forms import ScoreForms, forms
from bandit.policies.scale import Scales, chosen, fitted
from bandit.propensity import gaussian

Positive = Annotated[float, msgspec.Meta(ge=1e-4, le=1e3)]

_LEAST = np.array(1e-18)  # variance of a score; an array, because a float costs twice as much in a product of few
_PSEUDO = 50.0  # decisions that the starting values of σ² and of the pooled rate are worth


class Ridge(msgspec.Struct, ExactSites, frozen=True):
    """Bayesian ridge regression for each arm: the model that `linear` and its baselines share.

    Fields: `prior_mean`, `noise_sd`: expected reward and guessed noise before any data, in units of the reward range.
    `prior_sd`, `slope_sd`: prior sd of an arm's intercept and of each slope, in units of the noise; s weighs as much as
    1/s² decisions (25 and 280 by default).
    """

    prior_mean: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.1
    prior_sd: Positive = 0.2
    slope_sd: Positive = 0.06
    noise_sd: Positive = 0.3

    def regression(
        self, belief: Belief, arms: ArmEconomics, alpha: float, scales: Scales = "declared"
    ) -> "LinearPosterior":
        """Posterior of the regression, sds scaled by `alpha`: one inversion for each arm, then every decision is two
        matrix–vector products, both exact. `scales` other than "declared": prior sds and noise as the data show them.
        """
        rate = (belief.reward.sum() + _PSEUDO * self.prior_mean) / (belief.n.sum() + _PSEUDO)
        scale, noise = (1.0, self._within(belief)) if scales == "declared" else self._learned(belief, rate, scales)
        prior = self._prior(belief, scale, scales)
        inverse = arithmetic.inverse(belief.precision + np.diag(prior))
        start = belief.shift.copy()
        start[:, 0] += prior[0] * rate
        mean = arithmetic.applied(inverse, start)
        priced = bool((arms.gain != 1.0).any() or (arms.cost != 0.0).any())
        return LinearPosterior(forms(mean, noise * alpha * alpha * inverse), arms, priced)

    def _prior(self, belief: Belief, scale: float, scales: Scales) -> Array:
        """Prior precision (d,) of an arm's coefficients, their sds multiplied by `scale`, or only those of slopes."""
        slope, start = self.slope_sd * scale, self.prior_sd * (1.0 if scales == "slopes" else scale)
        prior = np.full(belief.shift.shape[1], 1.0 / (slope * slope))
        prior[0] = 1.0 / (start * start)
        return prior

    def _within(self, belief: Belief) -> float:
        """Variance of rewards within arms, pooled."""
        within = belief.square - belief.reward * belief.reward / np.maximum(belief.n, 1.0)
        return float(self._pooled(np.maximum(within, 0.0).sum(), belief))

    def _pooled(self, squares: float, belief: Belief) -> float:
        return float((squares + _PSEUDO * self.noise_sd * self.noise_sd) / (belief.n.sum() + _PSEUDO))

    def _learned(self, belief: Belief, rate: float, scales: Scales) -> tuple[float, float]:
        """Scale κ, and the variance that is left at the likeliest scale."""
        about = float((belief.square - 2.0 * rate * belief.reward + rate * rate * belief.n).sum())
        moved = belief.shift - rate * belief.precision[:, :, 0]

        def fit(scale: float) -> tuple[float, float]:
            prior = self._prior(belief, scale, scales)
            determinants, explained = fitted(belief.precision + np.diag(prior), moved)
            widths = len(moved) * float(arithmetic.total(arithmetic.log(prior)))
            left = self._pooled(max(about - float(arithmetic.total(explained)), 0.0), belief)
            return 0.5 * (widths - float(arithmetic.total(determinants))), left

        def log_evidence(scale: float) -> float:
            widths, left = fit(scale)
            return widths - 0.5 * float(belief.n.sum() + _PSEUDO) * float(arithmetic.log(np.array(left)))

        at, scale = chosen(scales, log_evidence)
        return scale, fit(at)[1]


class Linear(Ridge, frozen=True, tag="linear", tag_field="name", forbid_unknown_fields=True):
    """Linear Thompson sampling, `policy = { name = "linear" }`; exact in its sums, rows in any order. `alpha` scales
    the posterior sd; `scales`: "slopes" makes prior sds of slopes wider where the data show large ones, "learned" those
    of intercepts too, "declared" none; other fields as `Ridge`.
    """

    alpha: Annotated[float, msgspec.Meta(ge=0.01, le=2)] = 0.5
    scales: Scales | msgspec.UnsetType = msgspec.UNSET

    def posterior(self, belief: Belief, arms: ArmEconomics) -> "LinearPosterior":
        """Posterior score marginals of every arm, made once for each snapshot."""
        return self.regression(belief, arms, self.alpha, self.scales or "declared")


class LinearPosterior(NamedTuple):
    """Posterior score marginals of every arm: means, and α²Σ_a as quadratic forms. `priced`: some gain is not 1 or some
    cost not 0.
    """

    forms: ScoreForms
    arms: ArmEconomics
    priced: bool  # some gain is not 1, or some cost not 0

    def marginals(self, x: Array) -> tuple[Array, Array, Array, Array]:
        """Marginals at x (d,): mean and sd of the reward, then of the utility, (k,) each: x·m_a and α √(x'Σ_a x)."""
        mean, sd = self.forms.one(x)
        np.maximum(sd, _LEAST, out=sd)
        np.sqrt(sd, sd)
        arms = self.arms
        return (mean, sd, arms.gain * mean - arms.cost, arms.gain * sd) if self.priced else (mean, sd, mean, sd)

    def choose(self, x: Array, eligible: Mask) -> Scores:
        """Scores at x (d,), draws independent across arms. Raises PropensityError as
        `bandit.propensity.gaussian.gaussian`.
        """
        mean, sd, worth, width = self.marginals(x)
        if all(eligible.tolist()):
            return Scores(mean, sd, gaussian.gaussian(worth, width))
        p = np.zeros(len(mean))
        p[eligible] = gaussian.gaussian(worth[eligible], width[eligible])
        return Scores(mean, sd, p)

    def marginals_many(self, x: Array) -> tuple[Array, Array, Array, Array]:
        """Marginals of n rows x (n, d): as `marginals`, (n, k) each, to the bit."""
        mean, variance = self.forms.many(x)
        sd = np.sqrt(np.maximum(variance, _LEAST))
        return mean, sd, self.arms.gain * mean - self.arms.cost, self.arms.gain * sd

    def choose_many(self, x: Array, eligible: Mask) -> Scores:
        """Scores of n rows, (n, k) each, in every row as `choose`, to the bit. Raises PropensityError as `choose`."""
        mean, sd, worth, width = self.marginals_many(x)
        return Scores(mean, sd, gaussian.gaussian_many(worth, width, eligible))
