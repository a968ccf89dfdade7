"""Centred policy, the default: effects of nudges learned apart from the baseline, by what the draws randomised.

A score is the stage's baseline plus effects that are centred by the logged propensities p of the decision:

    z = x·β + Σ_a c_a x·θ_a,   c_a = 1{A = a} − p_a,   θ_a = ν_all + ν_type(a) + δ_a

Because c has mean 0 given x, whatever the baseline gets wrong is not mistaken for an effect (action centring,
Greenewald et al. 2017; Robinson 1988). Prediction is not centred: z_a = x·(β₀ + θ_a), where β₀ is the baseline of no
nudge (`effects.from_no_nudge`). Rows are learned by assumed density filtering (`assumed_density`); a rebuild sums the
recorded sites to the same bits.

The prior is sceptical and counts costs. Who pays for a nudge expects something of it, and no more: the effect at the
mean context x̄ has prior mean ½B_a, where B_a = (1 − g_a)/(1 − q) + c_a/(q(1 − q)) is the effect in logits at which arm
a breaks even (gain g_a, cost c_a, expected reward q). One scale κ multiplies the sds of all effects; it is the one of
`SCALES` with the largest Laplace evidence, and beyond it where effects are certainly large (`effects.most_likely`), so
that small effects stay small and large ones are found (empirical Bayes, Robbins 1956). x̄ and κ are functions of
the sums alone, so the order of rows shows in nothing.

Where nudges cost something, the choice is made in two steps, *which* and then *whether*: r are Thompson sampling's
propensities among the eligible nudges; a nudge is shown with probability Φ(m / (0.7 s)), where m and s are the
posterior mean and sd of the gain Σ r_a (u_a − u_none) of showing one. So how many nudges there are does not decide how
often one is shown.

Shapes: k arms (no nudge first), d features, m blocks, P = m·d coefficients, n rows. A belief has one row for each arm
and one for each pair of arms: Λ_ab = Σ τ c_a c_b xxᵀ, b_a = Σ ν c_a x, with c_none = 1; then one for each nudge, Σ τ
p_a xxᵀ.
"""

import math
from typing import Annotated, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from bandit.arrays import Array, Mask
from bandit.belief import Belief, empty, grid_sums, reward_moments
from bandit.numerics import arithmetic, compiled, library, logistic, versions
from bandit.numerics.compiled import CompiledKernels
from bandit.numerics.logistic import PROBIT
from bandit.policies import assumed_density, effects, hierarchy, quadratic_forms
from bandit.policies.effects import CentredLayout, EffectPrior
from bandit.policies.hierarchical import Positive, Rate, curved
from bandit.policies.hierarchy import PriorScales
from bandit.policies.protocol import ArmEconomics, CoefficientFactor, Scores, Sites
from bandit.policies.quadratic_forms import ScoreForms
from bandit.propensity import normal_tables
from bandit.propensity.correlated import correlated_many, wins

Tempering = Annotated[float, msgspec.Meta(ge=0.01, le=2)]

_NEWTON, _STRIDE = 3, 2.0  # steps to the mode of what is provisional, and the longest of them in logits
_WHETHER = 0.7  # of the sd with which the gain of showing a nudge is drawn
_PRICE = 0.04  # logits that showing a nudge shall be worth, before anything of it was learned
_LARGE, _FREE = 32.0, 0.7  # scale of effects that are worth finding out, and of the posterior's sd there
_LEAST_ALPHA = 0.35  # scale of the posterior's sd where effects are small
_LEAST = 1e-18  # variance of a score


class Centred(msgspec.Struct, frozen=True, tag="centred", tag_field="name", forbid_unknown_fields=True):
    """Centred policy, `policy = { name = "centred" }`, the default for binary rewards.

    Fields: `prior_mean` q: expected reward before any data. `base_sd`, `base_slope_sd`: prior sds of the baseline's
    intercept and slopes. `common_sd`, `type_sd`, `own_sd`: of the effect at the mean context that all nudges share,
    that a type shares, that is a nudge's own; `…_slope_sd`: of their slopes. All sds are in logits.
    """

    prior_mean: Rate = 0.1
    base_sd: Positive = 1.4
    base_slope_sd: Positive = 0.5
    common_sd: Positive = 0.10
    common_slope_sd: Positive = 0.20
    type_sd: Positive = 0.05
    type_slope_sd: Positive = 0.07
    own_sd: Positive = 0.05
    own_slope_sd: Positive = 0.10

    @property
    def link(self) -> Literal["identity", "logit"]:
        """Link of the sites: shifts are in logits, of centred rows."""
        return "logit"

    @property
    def price(self) -> float:
        """Price of showing a nudge where a stage declares none, in units of the reward range: what 0.04 logits are
        worth.
        """
        return _PRICE * self.prior_mean * (1.0 - self.prior_mean)

    @property
    def alpha(self) -> float:
        """Smallest scale of the posterior sd, that at κ = 1."""
        return _LEAST_ALPHA

    @property
    def prior(self) -> EffectPrior:
        """Prior of the coefficients at κ = 1."""
        return EffectPrior(
            self.prior_mean,
            PriorScales(self.base_sd, self.base_slope_sd),
            PriorScales(self.common_sd, self.common_slope_sd),
            PriorScales(self.type_sd, self.type_slope_sd),
            PriorScales(self.own_sd, self.own_slope_sd),
        )

    def rows(self, arms: tuple[str, ...]) -> tuple[str, ...]:
        """Names of the rows of a belief over `arms` (k,): the arms, then every pair of them, then how often each nudge
        was to be expected; k(k + 1)/2 + k − 1 in all.
        """
        both = (f"{a} & {b}" for i, a in enumerate(arms) for b in arms[i + 1 :])
        return (*arms, *both, *(f"p({a})" for a in arms[1:]))

    def design(self, x: Array, arm: NDArray[np.intp], propensity: Array) -> Array:
        """Design rows (n, k·d) of n decisions: x (n, d) times c_a of every arm, from the arm shown (n,) and the
        propensities (n, k) that it was drawn from.
        """
        c = -propensity
        c[np.arange(len(arm)), arm] += 1.0
        c[:, 0] = 1.0
        return np.asarray((c[:, :, None] * x[:, None, :]).reshape(len(x), c.shape[1] * x.shape[1]), dtype=np.float64)

    def sums(self, k: int, design: Array, arm: NDArray[np.intp], tau: Array, nu: Array, reward: Array) -> Belief:
        """Belief of n settled rows over k arms: sums of contributions that are rounded to the grid one by one, so exact
        in any order. design (n, k·d); arm, tau, nu and reward (n,).
        """
        return _summed(k, design, arm, tau, nu, reward, np.ones(len(arm)), exact=True)

    def weighted_sums(
        self, k: int, design: Array, arm: NDArray[np.intp], tau: Array, nu: Array, reward: Array, weight: Array
    ) -> Belief:
        """Belief of n rows that count in part, weight (n,) in (0, 1], which tau and nu hold already. Not exact, never
        stored.
        """
        return _summed(k, design, arm, tau, nu, reward, weight, exact=False)

    def squares(self, k: int, belief: Belief) -> list[Array]:
        """Parts of a belief over k arms that are sums of τ times squares, and so have no eigenvalue below 0: Λ of all
        arms together, (1, k·d, k·d), whose blocks are those of pairs of arms; and Σ τ p_a xxᵀ, (k − 1, d, d).
        """
        d = belief.shift.shape[1]
        first, second = effects.pairs(k)
        each = np.empty((k, k, d, d))
        each[first, second] = each[second, first] = belief.precision[: len(first)]
        return [each.transpose(0, 2, 1, 3).reshape(1, k * d, k * d), belief.precision[len(first) :]]

    def sites(self, belief: Belief, arms: ArmEconomics, x: Array, arm: NDArray[np.intp], reward: Array) -> Sites:
        """Sites τ (n,), ν (n,) of n rows learned in this order, after what `belief` knows: x (n, k·d) as `design` makes
        it, arm (n,), reward (n,) in [0, 1].
        """
        layout = effects.layout(self.prior, arms, belief)
        sums = effects.summed(layout, belief)
        scale = effects.recorded_scale(layout, sums)
        layout = layout if scale == 1.0 else effects.at_scale(layout, scale)
        phi, told = _phi(layout, x), layout.precision @ layout.mean
        tau, nu = np.zeros(len(x)), np.zeros(len(x))
        for rows, together in assumed_density.batches(float(belief.n.sum()), len(x)):
            found = library.factored(sums[0] + layout.precision, sums[1] + told)
            tau[rows], nu[rows] = assumed_density.matched(found, phi[rows], reward[rows], together=together)
            if rows.stop < len(x):
                part = self.sums(len(arms.names), x[rows], arm[rows], tau[rows], nu[rows], reward[rows])
                more = effects.summed(layout, part)
                sums = sums[0] + more[0], sums[1] + more[1]
        return tau, nu

    def provisional(
        self, belief: Belief, arms: ArmEconomics, x: Array, arm: NDArray[np.intp], reward: Array, weight: Array
    ) -> Sites:
        """Provisional sites of n open rows, weight (n,) in (0, 1], all at once, by Newton's steps to the joint mode as
        in `hierarchical`; x (n, k·d) as `design` makes it.
        """
        layout = self.learned(arms, belief)[0]
        found, phi, k = effects.posterior(layout, belief), _phi(layout, x), len(arms.names)
        z = _applied(phi, found.mean)
        spread = np.empty(len(z))
        for rows in arithmetic.blocks(len(z)):
            half = arithmetic.product(phi[rows], found.covariance)
            spread[rows] = arithmetic.total((half * phi[rows]).T)
        tau, nu = curved(z, np.maximum(spread, 0.0), reward, weight, bounded=True)
        for _ in range(_NEWTON):
            open_rows = self.weighted_sums(k, x, arm, tau, nu, reward, weight)
            both = Belief(*(a + b for a, b in zip(belief, open_rows, strict=True)))
            precision, shift = effects.information(layout, both)
            step = _applied(phi, arithmetic.solution(precision, shift[:, None])[:, 0]) - z
            z = z + step * (_STRIDE / max(float(np.abs(step).max(initial=0.0)), _STRIDE))
            tau, nu = curved(z, np.zeros(len(z)), reward, weight, bounded=True)
        return tau, nu

    def learned(self, arms: ArmEconomics, belief: Belief) -> tuple[CentredLayout, float]:
        """Layout at the scale κ that the sums support, and that scale."""
        plain = effects.layout(self.prior, arms, belief)
        scale = effects.most_likely(plain, belief)
        return plain if scale == 1.0 else effects.at_scale(plain, scale), scale

    def posterior(self, belief: Belief, arms: ArmEconomics) -> "CentredPosterior":
        """Joint posterior of all arms' scores, in logits, ready for the two-step choice."""
        found, scale = self.learned(arms, belief)
        reads = hierarchy.Layout(found.d, found.reads, found.mean, found.mean)
        means, pairs = hierarchy.projected(
            reads, effects.from_no_nudge(found, effects.posterior(found, belief), belief)
        )
        alpha = (
            _FREE if scale >= _LARGE else min(0.5, self.alpha + 0.05 * float(arithmetic.log(np.array(scale))) / _LOG_2)
        )
        priced = bool(np.ptp(arms.gain) > 0.0 or np.ptp(arms.cost) > 0.0)
        place = quadratic_forms.places(len(means))
        arms = arms._replace(gain=arms.gain.astype(np.float64), cost=arms.cost.astype(np.float64))  # as kernels take it
        return CentredPosterior(quadratic_forms.joint(means, pairs), place, priced, alpha, scale, arms)

    def message(self, belief: Belief, arms: ArmEconomics) -> CoefficientFactor | None:  # noqa: ARG002
        """Message to other stages: None, stages share nothing yet."""
        return None


_LOG_2 = 0.6931471805599453


def _summed(
    k: int, design: Array, arm: NDArray[np.intp], tau: Array, nu: Array, reward: Array, weight: Array, *, exact: bool
) -> Belief:
    """Sums over pairs of arms; with `exact` each contribution is rounded to the grid."""
    d = design.shape[1] // k
    first, second = effects.pairs(k)
    total = empty(len(first) + k - 1, d)
    for part, values in zip(total[:3], reward_moments(k, arm, reward, weight, exact=exact), strict=True):
        part[:k] = values
    one, other = np.triu_indices(d)
    for rows in arithmetic.blocks(len(arm)):
        some, shown = design[rows], arm[rows]
        x, c = some[:, :d], some[:, ::d]
        twice = np.concatenate([c[:, first] * c[:, second], c[:, 1:]], axis=1)
        nudged = np.flatnonzero(shown)
        twice[:, len(first) :] *= -1.0
        twice[nudged, len(first) + shown[nudged] - 1] += 1.0  # p = 1{A = a} − c
        adds = grid_sums if exact else _products
        squares = adds(tau[rows, None] * twice, x[:, one] * x[:, other])  # symmetric: half of it is enough
        total.precision[:, one, other] += squares
        total.shift[:k] += adds(nu[rows, None] * c, x)
    total.precision[:, other, one] = total.precision[:, one, other]
    return total


def _products(values: Array, rows: Array) -> Array:
    """Σ values_i rows_i of n rows, values (n, m) and rows (n, d); the result is (m, d), not rounded to the grid."""
    return arithmetic.product(values.T, rows)


def _applied(phi: Array, mean: Array) -> Array:
    """Scores (n,) of rows phi (n, P) under coefficients (P,): a block of rows at a time, each for itself."""
    z = np.empty(len(phi))
    for rows in arithmetic.blocks(len(phi)):
        z[rows] = arithmetic.applied(phi[rows], mean)
    return z


def _phi(layout: CentredLayout, design: Array) -> Array:
    """Rows of the P coefficients (n, P) from design rows (n, k·d): a block's part is the sum of its arms'."""
    n, (k, m) = len(design), layout.effect.shape
    each, phi = design.reshape(n, k, layout.d), np.zeros((n, m, layout.d))
    for a in range(k):
        for i in np.flatnonzero(layout.effect[a]).tolist():
            phi[:, i] += each[:, a]
    return phi.reshape(n, m * layout.d)


def _product(one: list[float], other: list[float]) -> float:
    """Σ one·other, added in order: Python's own sum of floats corrects itself from 3.12 on."""
    value = 0.0
    for a, b in zip(one, other, strict=True):
        value += a * b
    return value


def _whether(share: list[float], worth: list[float], width: list[list[float]]) -> list[float]:
    """`CentredPosterior._whether_many` of one row in which no nudge is eligible and so is a nudge, from plain floats;
    `width` is symmetric to the bit.
    """
    contrast = [-1.0, *share[1:]]
    gain = _product(contrast, worth)
    variance = max(_product([_product(contrast, row) for row in width], contrast), _LEAST)
    z = gain / (_WHETHER * math.sqrt(variance))
    shown = normal_tables.one(z)
    return [normal_tables.one(-z), *(shown * c for c in contrast[1:])]


class CentredPosterior(NamedTuple):
    """Posterior of the logits of all arms: their means, and covariances x'G_ab x of every pair of arms; `scale` is
    κ.
    """

    forms: ScoreForms
    pair: NDArray[np.intp]  # (k, k): which form
    priced: bool  # gains or costs of arms differ
    alpha: float
    scale: float
    arms: ArmEconomics

    def choose(self, x: Array, eligible: Mask) -> Scores:
        """Scores at x (d,) with the propensities of the two-step choice among `eligible` arms (k,). Raises
        PropensityError as `correlated`.
        """
        kernels = compiled.kernels()
        found = None if kernels is None else self.compiled(kernels, x, eligible)
        return self.plain(x, eligible) if found is None else found

    def compiled(self, kernels: CompiledKernels, x: Array, eligible: Mask) -> Scores | None:
        """Scores as of `choose`, by compiled code; None where that leaves them to `plain`."""
        if versions.number() < versions.NEARLY_INDEPENDENT:
            return None
        stacked, _, _, sharp = self.forms
        gain, cost, out = self.arms.gain, self.arms.cost, np.empty((3, len(eligible)))
        done = kernels.choice(
            stacked, sharp, x.astype(np.float64), self.pair, gain, cost, eligible.copy(), self.alpha, self.priced,
            kernels.normal, kernels.logistic, out,
        )  # fmt: skip
        return Scores(out[0], out[1], out[2]) if done else None

    def plain(self, x: Array, eligible: Mask) -> Scores:
        """Scores as of `choose`, with the bits of `choose_many`, in plain floats: they are sooner than arrays of few
        numbers.
        """
        means, forms = self.forms.one(x)
        z, spread, may, k = means.tolist(), forms.tolist(), eligible.tolist(), len(means)
        alpha, place, gain, cost = self.alpha, self.pair.tolist(), self.arms.gain.tolist(), self.arms.cost.tolist()
        variance = [max(spread[place[a][a]], _LEAST) for a in range(k)]
        mean = [logistic.one(m / math.sqrt(1.0 + PROBIT * v)) for m, v in zip(z, variance, strict=True)]
        at = [logistic.one(m) for m in z]
        steep = [v * (1.0 - v) for v in at]
        sd = [s * (alpha * math.sqrt(v)) for s, v in zip(steep, variance, strict=True)]
        worth, scale = z, [1.0] * k
        if self.priced:
            worth = [g * v - c for g, v, c in zip(gain, at, cost, strict=True)]
            scale = [g * s for g, s in zip(gain, steep, strict=True)]
        width = [[scale[a] * scale[b] * spread[i] for b, i in enumerate(row)] for a, row in enumerate(place)]
        some = [a for a in range(k) if may[a] and (a or not self.priced)]
        if some:
            share = self._which(worth, width, some)
            if self.priced and may[0]:
                share = _whether(share, worth, width)
        else:
            share = [1.0] + [0.0] * (k - 1)
        return Scores(np.array(mean), np.array(sd), np.array(share))

    def _which(self, worth: list[float], width: list[list[float]], some: list[int]) -> list[float]:
        """Propensities (k,) of Thompson sampling among `some` arms."""
        square = self.alpha * self.alpha
        p = wins([worth[a] for a in some], [[square * width[a][b] for b in some] for a in some])
        share = [0.0] * len(worth)
        for a, v in zip(some, p, strict=True):
            share[a] = v
        return share

    def choose_many(self, x: Array, eligible: Mask) -> Scores:
        """Scores of n rows, (n, k) each, with the bits of `choose`. Raises PropensityError as `choose`."""
        z, spread = self.forms.many(x)
        spread = spread[:, self.pair]
        mean, sd, worth, scale = self._worth(z, np.diagonal(spread, axis1=1, axis2=2))
        width = scale[:, :, None] * scale[:, None, :] * spread
        some = eligible.copy()
        some[:, 0] &= not self.priced
        share = correlated_many(worth, self.alpha * self.alpha * width, some)
        return Scores(mean, sd, self._whether_many(share, worth, width, eligible) if self.priced else share)

    def _worth(self, z: Array, variance: Array) -> tuple[Array, Array, Array, Array]:
        """E σ(z), the sd of the reward as it is sampled, utilities (logits where nothing costs), and their slope in z,
        of means z and variances of logits, (k,) or (n, k).
        """
        variance = np.maximum(variance, _LEAST)
        mean, at = logistic.values(np.array([z / np.sqrt(1.0 + PROBIT * variance), z]))
        steep = at * (1.0 - at)
        sd = steep * (self.alpha * np.sqrt(variance))
        if not self.priced:
            return mean, sd, z, np.ones_like(z)
        return mean, sd, self.arms.gain * at - self.arms.cost, self.arms.gain * steep

    def _whether_many(self, share: Array, worth: Array, width: Array, eligible: Mask) -> Array:
        """Propensities (n, k) from those among the nudges, `share`; `width` the covariance of utilities, not
        tempered.
        """
        contrast = share.copy()
        contrast[:, 0] = -1.0
        gain = arithmetic.total((contrast * worth).T)
        half = arithmetic.total(np.moveaxis(contrast[:, :, None] * width, 1, 0))
        variance = np.maximum(arithmetic.total((half * contrast).T), _LEAST)
        z = gain / (_WHETHER * np.sqrt(variance))
        both = np.empty((len(z), 2))
        normal_tables.below(np.stack([z, -z], axis=1), both, normal_tables.scratch(both.shape))
        p = both[:, :1] * share
        p[:, 0] = both[:, 1]
        alone, without = ~eligible[:, 1:].any(axis=1), ~eligible[:, 0]
        p[alone] = 0.0
        p[alone, 0] = 1.0
        p[without] = share[without]
        return np.asarray(p, dtype=np.float64)
