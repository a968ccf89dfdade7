"""Reward model of a twin: what brings a reward at one stage, as a posterior over the parameters of a scenario.

    P(reward within the window | y, a, past) = w_a σ(η),   w_a = P(delay ≤ window)
    η = α + b_0·y + ρ sin(2πt/7) − tires·F − depth·T·1{a is no coupon} − pull·1{pulled}
        + 1{a ≠ none} e^(−dulls·F) (e_a + b_a·y)

with y the encoded features. A hierarchical Gaussian prior shrinks effects e_a to what nudges do on average, slopes b_a
to 0 and to each other; their scales τ_e, τ_b, and `keeps` and `dulls` of fatigue, are integrated over a grid (Rue,
Martino & Chopin 2009, §3: Laplace approximation of the rest at each point). Users come back, so decisions of one user
count as one cluster: the likelihood is raised to the power 1/c, c the mean of the generalised design effects of its
parameters (Rao & Scott 1984), and draws are spread as the scores of users are, A⁻¹(P + J/c²)A⁻¹ with A the precision, P
that of the prior and J the sum of outer products of the users' scores (Ribatet, Cooley & Davison 2012): the level of
all rewards is known much less surely than decisions of as many strangers would tell it, effects of nudges are not.

Shapes: n decisions, k arms, s slopes (columns of x but the constant and the indicators of missing features), p
parameters.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, special

from bandit.arrays import Array, Ints, Mask
from bandit.catalogue.model import Stage
from simulations.twin.app_log import AppLog, VisitPast, coupons, past

LEARNS, FORGETS = 0.5, 0.1
"""Coupon habit: its rate is not told apart from its depth, so the twin has that of the field studies."""

_KEEPS, _DULLS = (0.7, 0.9), (0.0, 0.1, 0.25, 0.5)
_TAU_EFFECT, _TAU_SLOPE = (0.03, 0.07, 0.12, 0.2, 0.35, 0.6), (0.02, 0.05, 0.1, 0.18, 0.3)
_SCALE_EFFECT, _SCALE_SLOPE = 0.2, 0.12  # of the priors of τ, logits: half-Cauchy, half-normal
_SCALE_DULLS = 0.3  # half-normal prior of dulls
_MEAN_EFFECT, _COMMON = 0.25, 0.5  # sd of what nudges do on average; share of slopes that all nudges have in common
_BASE_SLOPE = 0.7
_SEASON, _TIRES, _DEPTH, _PULL = 0.15, 0.03, 0.15, 0.3  # prior sd, logits
_STEPS, _TRIES = 40, 60


class RewardRows(NamedTuple):
    """Decisions with known rewards, as the model reads them. `y` (n, s) encoded features; the rest (n,)."""

    y: Array
    arm: NDArray[np.intp]
    rewarded: Mask
    day: Ints
    user: Ints


class RewardParameters(NamedTuple):
    """Parameters of one draw. `base` logits without any nudge where y is 0; `effects` (k,), 0 for no nudge;
    `base_slopes` (s,); `slopes` (k, s), 0 for no nudge; the rest as in the module.
    """

    base: float
    base_slopes: Array
    effects: Array
    slopes: Array
    season: float
    tires: float
    depth: float
    pull: float
    keeps: float
    dulls: float


class RewardPosterior(NamedTuple):
    """Posterior of the parameters: a mixture of Gaussians, one for each point of the grid.

    `weight` (m,) of the points, `design_effect` c. `central` are the parameters at the mean of the likeliest point.
    """

    points: tuple["_Point", ...]
    weight: Array
    design_effect: float
    central: RewardParameters

    def draw(self, rng: np.random.Generator) -> RewardParameters:
        """Parameters drawn from the posterior; tires, depth, pull and season at 0 or above."""
        point = self.points[int(rng.choice(len(self.points), p=self.weight))]
        for _ in range(_TRIES):
            theta = point.mean + linalg.cho_solve(
                (point.root, False), point.spread @ rng.standard_normal(len(point.mean))
            )
            if (theta[point.layout.signed] >= 0.0).all():
                break
        return point.layout.parameters(theta, point.keeps, point.dulls)


class _Layout(NamedTuple):
    """Where parameters are in θ (p,): constant, base slopes (s), season, tires, depth, pull, then (1 + s) for each
    nudge. Without coupons, depth and pull are held at 0 by their prior.
    """

    s: int
    k: int

    @property
    def signed(self) -> slice:
        return slice(1 + self.s, 5 + self.s)

    @property
    def size(self) -> int:
        return 5 + self.s + (self.k - 1) * (1 + self.s)

    def parameters(self, theta: Array, keeps: float, dulls: float) -> RewardParameters:
        own = theta[5 + self.s :].reshape(self.k - 1, 1 + self.s)
        season, tires, depth, pull = np.maximum(theta[self.signed], 0.0).tolist()
        return RewardParameters(
            base=float(theta[0]),
            base_slopes=theta[1 : 1 + self.s],
            effects=np.r_[0.0, own[:, 0]],
            slopes=np.vstack([np.zeros(self.s), own[:, 1:]]),
            season=season,
            tires=tires,
            depth=depth,
            pull=pull,
            keeps=keeps,
            dulls=dulls,
        )

    def theta(self, p: RewardParameters) -> Array:
        nudges = np.column_stack([p.effects[1:], p.slopes[1:]]).ravel()
        return np.concatenate([[p.base], p.base_slopes, [p.season, p.tires, p.depth, p.pull], nudges])


class _Point(NamedTuple):
    """Gaussian at one point of the grid: its mean (p,), the upper root (p, p) of its precision, and a root (p, p) of
    the variance of the score there, prior included.
    """

    layout: _Layout
    mean: Array
    root: Array
    spread: Array
    keeps: float
    dulls: float


class _Prior(NamedTuple):
    """Gaussian prior at one pair of scales; `log_weight` of that pair, and `log_determinant` of the precision."""

    precision: Array  # (p, p)
    mean: Array  # (p,)
    log_weight: float
    log_determinant: float


class _Likelihood(NamedTuple):
    """Quadratic approximation of the log likelihood: constant + h·θ − θ'Hθ/2."""

    constant: float
    h: Array
    information: Array
    variance: Array  # (p, p) of the score, users as clusters
    clusters: float  # design effect, not yet applied

    def tempered(self, c: float) -> "_Likelihood":
        """The likelihood to the power 1/c. All points of the grid have the same c, or they could not be compared."""
        return self._replace(
            constant=self.constant / c,
            h=self.h / c,
            information=self.information / c,
            variance=self.variance / c**2,
        )


def reward_rows(stage: Stage, log: AppLog) -> RewardRows:
    """The rows of a log whose rewards are known, as the model reads them."""
    known = log.only(~np.isnan(log.reward))
    return RewardRows(
        y=slope_columns(stage, known.x),
        arm=known.arm,
        rewarded=known.reward > 0.0,
        day=log.day[~np.isnan(log.reward)],
        user=known.user,
    )


def slope_columns(stage: Stage, x: Array) -> Array:
    """Columns (n, s) of encoded contexts that slopes multiply: all but the constant and the indicators of missing
    features.
    """
    return x[:, 1 : x.shape[1] - len(stage.features)]


def fit(stage: Stage, log: AppLog, within: Array) -> RewardPosterior:
    """Posterior of the parameters given a log. `within` (k,): P(delay ≤ window) by arm."""
    rows, coupon = reward_rows(stage, log), coupons(stage)
    layout = _Layout(rows.y.shape[1], len(stage.arms))
    known = ~np.isnan(log.reward)
    priors = [
        _prior(layout, effect, slope, rows, has_coupons=bool(coupon.any()))
        for effect in _TAU_EFFECT
        for slope in _TAU_SLOPE
    ]
    prior = _prior(layout, _TAU_EFFECT[2], _TAU_SLOPE[2], rows, has_coupons=bool(coupon.any()))
    seen = list[tuple[float, float, _Likelihood]]()
    start: Array | None = None
    nudged = bool((rows.arm > 0).any())
    for keeps in _KEEPS if nudged else _KEEPS[-1:]:
        found = past(log, coupon, keeps=keeps, learns=LEARNS, forgets=FORGETS)
        found = found.at(known)
        for dulls in _DULLS if nudged else _DULLS[:1]:
            matrix = _matrix(rows, found, coupon, dulls, layout)
            start = _mode(matrix, rows, within, prior, prior.mean if start is None else start)
            seen.append((keeps, dulls, _quadratic(matrix, rows, within, start, prior)))
    design_effect = float(np.mean([one.clusters for _, _, one in seen]))
    points, weights = list[_Point](), list[float]()
    for keeps, dulls, likelihood in seen:
        for evidence, point in _over_scales(likelihood.tempered(design_effect), layout, priors):
            points.append(point._replace(keeps=keeps, dulls=dulls))
            weights.append(evidence - 0.5 * (dulls / _SCALE_DULLS) ** 2)
    logs = np.array(weights)
    weight = special.softmax(logs)
    best = points[int(logs.argmax())]
    central = layout.parameters(best.mean, best.keeps, best.dulls)
    return RewardPosterior(tuple(points), weight, design_effect, central)


def chances(
    stage: Stage, p: RewardParameters, log: AppLog, within: Array, *, arms: NDArray[np.intp] | None = None
) -> Array:
    """P(reward within the window) (n,) of the decisions of a log for what was shown, or for the arms given (n,)."""
    coupon = coupons(stage)
    found = past(log, coupon, keeps=p.keeps, learns=LEARNS, forgets=FORGETS)
    arm = log.arm if arms is None else arms
    rows = RewardRows(slope_columns(stage, log.x), arm, log.reward > 0.0, log.day, log.user)
    layout = _Layout(rows.y.shape[1], len(stage.arms))
    eta = _matrix(rows, found, coupon, p.dulls, layout) @ layout.theta(p)
    return np.asarray(within[arm] * special.expit(eta))


def _matrix(rows: RewardRows, found: VisitPast, coupon: Mask, dulls: float, layout: _Layout) -> Array:
    """Design (n, p)."""
    n, s = rows.y.shape
    own = np.column_stack([np.ones(n), rows.y])
    made = np.zeros((n, layout.size))
    made[:, : 1 + s] = own
    made[:, 1 + s] = np.sin(2.0 * np.pi * rows.day / 7.0)
    made[:, 2 + s] = -found.fatigue
    made[:, 3 + s] = -found.trained * ~coupon[rows.arm]
    made[:, 4 + s] = -found.pulled.astype(np.float64)
    fresh = np.exp(-dulls * found.fatigue)[:, None]
    for a in range(1, layout.k):
        shown = rows.arm == a
        at = 5 + s + (a - 1) * (1 + s)
        made[shown, at : at + 1 + s] = (fresh * own)[shown]
    return made


def _prior(layout: _Layout, tau_effect: float, tau_slope: float, rows: RewardRows, *, has_coupons: bool) -> _Prior:
    s, nudges = layout.s, layout.k - 1
    covariance = np.zeros((layout.size, layout.size))
    rate = float(np.clip(rows.rewarded.mean(), 1e-4, 1.0 - 1e-4)) if len(rows.rewarded) else 0.5
    mean = np.zeros(layout.size)
    mean[0] = special.logit(rate)
    near = 1.0 if has_coupons else 1e-3
    diagonal = [2.0, *([_BASE_SLOPE] * s), _SEASON, _TIRES, near * _DEPTH, near * _PULL]
    covariance[: 5 + s, : 5 + s] = np.diag(np.square(diagonal))
    for column in range(1 + s):
        at = 5 + s + column + (1 + s) * np.arange(nudges)
        if column:
            block = tau_slope**2 * ((1.0 - _COMMON) * np.eye(nudges) + _COMMON)
        else:
            block = tau_effect**2 * np.eye(nudges) + _MEAN_EFFECT**2
        covariance[np.ix_(at, at)] = block
    weight = -np.log1p((tau_effect / _SCALE_EFFECT) ** 2) - 0.5 * (tau_slope / _SCALE_SLOPE) ** 2
    width = np.log(tau_effect * tau_slope)  # the grid is about even in the logarithm
    return _Prior(
        np.asarray(np.linalg.inv(covariance), dtype=np.float64),
        mean,
        float(weight + width),
        -float(np.linalg.slogdet(covariance)[1]),
    )


def _mode(matrix: Array, rows: RewardRows, within: Array, prior: _Prior, start: Array) -> Array:
    """Mode of the posterior by Fisher scoring, halving steps that go down."""
    theta = start
    value = _objective(matrix, rows, within, prior, theta)
    for _ in range(_STEPS):
        score, information, _ = _derivatives(matrix, rows, within, theta)
        pull = prior.precision @ (prior.mean - theta)
        step = linalg.solve(information + prior.precision, score + pull, assume_a="pos")
        size = 1.0
        while True:
            next_ = theta + size * step
            new = _objective(matrix, rows, within, prior, next_)
            if new >= value - 1e-9 or size < 1e-3:
                break
            size /= 2.0
        moved, theta, value = np.abs(next_ - theta).max(), next_, new
        if moved < 1e-5:
            break
    return theta


def _objective(matrix: Array, rows: RewardRows, within: Array, prior: _Prior, theta: Array) -> float:
    away = theta - prior.mean
    return _loglik(matrix, rows, within, theta) - 0.5 * float(away @ prior.precision @ away)


def _chance(matrix: Array, rows: RewardRows, within: Array, theta: Array) -> tuple[Array, Array]:
    sigma = special.expit(matrix @ theta)
    w = within[rows.arm]
    return np.clip(w * sigma, 1e-9, 1.0 - 1e-9), w * sigma * (1.0 - sigma)


def _loglik(matrix: Array, rows: RewardRows, within: Array, theta: Array) -> float:
    chance, _ = _chance(matrix, rows, within, theta)
    return float(np.where(rows.rewarded, np.log(chance), np.log1p(-chance)).sum())


def _derivatives(matrix: Array, rows: RewardRows, within: Array, theta: Array) -> tuple[Array, Array, Array]:
    """Score (p,), Fisher information (p, p), and the factor (n,) of each row's score."""
    chance, slope = _chance(matrix, rows, within, theta)
    variance = chance * (1.0 - chance)
    factor = (rows.rewarded - chance) / variance * slope
    return matrix.T @ factor, (matrix * (slope**2 / variance)[:, None]).T @ matrix, factor


def _quadratic(matrix: Array, rows: RewardRows, within: Array, theta: Array, prior: _Prior) -> _Likelihood:
    score, information, factor = _derivatives(matrix, rows, within, theta)
    _, user = np.unique(rows.user, return_inverse=True)
    scores = np.zeros((int(user.max(initial=-1)) + 1, len(theta)))
    np.add.at(scores, user, matrix * factor[:, None])
    variance = scores.T @ scores * (len(scores) / max(len(scores) - 1, 1))
    inverse = np.linalg.inv(information + prior.precision)
    clusters = max(1.0, float(np.trace(inverse @ variance) / max(np.trace(inverse @ information), 1e-9)))
    h = score + information @ theta
    constant = _loglik(matrix, rows, within, theta) - float(score @ theta) - 0.5 * float(theta @ information @ theta)
    return _Likelihood(constant, h, information, variance, clusters)


def _over_scales(seen: _Likelihood, layout: _Layout, priors: Sequence[_Prior]) -> Iterator[tuple[float, _Point]]:
    """(log weight, Gaussian) at each pair of scales."""
    for prior in priors:
        root = linalg.cholesky(seen.information + prior.precision, lower=False)
        pull = prior.precision @ prior.mean
        total = seen.h + pull
        mean = linalg.cho_solve((root, False), total)
        evidence = (
            seen.constant
            + 0.5 * (prior.log_determinant - float(prior.mean @ pull) + float(total @ mean))
            - float(np.log(np.diag(root)).sum())
        )
        spread = linalg.cholesky(seen.variance + prior.precision, lower=True)
        yield evidence + prior.log_weight, _Point(layout, mean, root, spread, 0.0, 0.0)
