"""Confidence intervals for what a run reports, at a sample size that was fixed beforehand.

`rate`, `mean` and `difference` are for plain observations. `interval` is for off-policy values: φ, one number for each
round, whose mean estimates a policy's value, or the difference of two values if φ is their difference. It is GHU:

* guarded, as the kind of reward asks. Rewards of yes or no: the variance is not less than what the model of rewards
  says it should be, V = max(s², mean vm + s²_dm); a log in which a rare reward has not come yet has a small sample
  variance and a large true one. Other rewards (`Moments.with_variance`): with the residual variance of all arms in
  place of Bernoulli's, V = s² + λ max(mean vm + s²_dm − s², 0), λ = min(1, (10 + 4(κ₄ − 1)) / n), κ₄ the sample's
  kurtosis. n / (κ₄ − 1) is how many rounds the variance really rests on: its relative variance is (κ₄ − 1) / n. So
  λ matters for small n and for heavy tails, and vanishes else. The skewness would not do: in a difference of two
  policies it cancels, and the kurtosis does not;
* skewness-corrected to first order, by what inverting its Edgeworth expansion adds to Student's t (Johnson 1978, Hall
  1983): with skewness γ the interval is
      m + √(V/n) (γ (1 + 2z²) / 6√n ± z),    z the quantile of Student's t.
  γ is the model's, mean k3m / V^1.5, for guarded rewards of yes or no. Else it is the sample's times 1 + |γ| / √n,
  because a sample's third moment misses the tail that has not come yet;
* the union of that with m ± z √(V/n): it is longer on the side of the skewness, never shorter on the other.

Also tried: Hall's (1992) cubic transformation at the larger of the two skewnesses. It covers no better, and explodes if
few conversions carry large weights; the sample's third moment is noise there, hence the model's.

The model moments of a round are those of φ if rewards were Bernoulli(q̂); see `model_moments`. Assumed: the conditional
mean of φ does not depend on the log so far (any adaptive policy with logged propensities), and floors do not vanish. To
look again and again, and stop when it pleases, use `experiments.inference.sequences`.

`Moments` merge by `+` in any order, to rounding: parts can be made by several workers. Where users recur, rounds of one
user are not independent: add `UserSums`, and take the interval of its `.moments()`.
"""

from dataclasses import dataclass, replace
from math import sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from bandit.arrays import Array

LEVEL = 0.95
_CONSTANT = 1e-24  # a variance below this share of mean² is rounding
_PSEUDO, _TAIL = 10.0, 4.0  # how many rounds the residual variance of all arms is worth: in any log, for each κ₄ − 1


class Interval(NamedTuple):
    """A confidence interval: an estimate from n observations, and the bounds that cover its truth in 95 % of
    repetitions (or at the level that was asked for).

    `value`, `low` and `high` are in the unit of what was estimated; `low` ≤ `high`, and both are ±∞ (or the bounds of
    the value) where n says nothing. `value` is NaN without observations.

        interval(Moments.of(phi))  →  Interval(value=0.031, low=0.022, high=0.041, n=5000)
    """

    value: float
    low: float
    high: float
    n: int


def rate(successes: float, n: int) -> Interval:
    """Wilson's score interval of a share, at 95 % (Wilson 1927): `successes` of `n`, in [0, 1]. With n = 0: NaN within
    [0, 1].
    """
    if n == 0:
        return Interval(float("nan"), 0.0, 1.0, 0)
    k, z = round(successes), float(special.ndtri(0.5 + LEVEL / 2))
    share, weight = k / n, 2.0 * (n + z**2)
    centre = (2.0 * n * share + z**2) / weight
    half = z / weight * sqrt(4.0 * n * share * (1.0 - share) + z**2)
    return Interval(successes / n, centre - half if k > 0 else 0.0, centre + half if k < n else 1.0, n)


def mean(values: NDArray[np.float64]) -> Interval:
    """Student's interval of the mean of `values` (n,), at 95 %, in their unit. With fewer than two values it is
    unbounded.
    """
    n = len(values)
    if n < 2:
        return Interval(float(values.mean()) if n else float("nan"), -np.inf, np.inf, n)
    centre = float(values.mean())
    half = float(special.stdtrit(n - 1, 0.5 + LEVEL / 2)) * float(values.std(ddof=1)) / np.sqrt(n)
    return Interval(centre, centre - half, centre + half, n)


def difference(left: Interval, right: Interval) -> Interval:
    """Interval of left − right for independent estimates: MOVER, each side keeps its own shape (Newcombe 1998, method
    10). Its n is the smaller one.
    """
    d = left.value - right.value
    low = d - float(np.hypot(left.value - left.low, right.high - right.value))
    high = d + float(np.hypot(left.high - left.value, right.value - right.low))
    return Interval(d, low, high, min(left.n, right.n))


@dataclass(frozen=True, slots=True)
class Moments:
    """Central moments of φ over n rounds and, if every part had them, the moments that the model of rewards expects.

    `Moments()` is the empty log. Merges by `+` in any order, to rounding (Pébay 2008), so parts can be made by several
    workers. φ is in the unit of the value; vm and k3m are its modelled second and third central moments, dm the
    modelled mean. Assumes independent rounds; where users recur, use `UserSums`.
    """

    n: int = 0
    mean: float = 0.0
    m2: float = 0.0  # Σ (φ − mean)²
    m3: float = 0.0  # Σ (φ − mean)³
    m4: float = 0.0  # Σ (φ − mean)⁴
    variance: float = 0.0  # Σ vm
    third: float = 0.0  # Σ k3m
    direct: float = 0.0  # mean of dm
    direct_m2: float = 0.0  # Σ (dm − direct)²
    even: float = 0.0  # Σ vm if the reward of every arm had variance 1
    modelled: bool = True
    bernoulli: bool = True  # rewards are yes or no: the model's variance is exact, and its skewness known

    @classmethod
    def of(
        cls,
        phi: Array,
        vm: Array | None = None,
        k3m: Array | None = None,
        dm: Array | None = None,
        even: Array | None = None,
    ) -> "Moments":
        """The moments of n rounds: `phi` (n,), and `vm`, `k3m`, `dm` (n,) as `model_moments` returns them. If any of
        the three is missing, there is no model.

        `even` (n,): what vm would be if the reward of every arm had variance 1.
        """
        if len(phi) == 0:
            return cls()
        mean = float(phi.mean())
        centred = phi - mean
        square = centred * centred
        fourth = float((square * square).sum())
        sample = (len(phi), mean, float(square.sum()), float((square * centred).sum()), fourth)
        if vm is None or k3m is None or dm is None:
            return cls(*sample, modelled=False)
        direct = float(dm.mean())
        model = (float(vm.sum()), float(k3m.sum()), direct, float(((dm - direct) ** 2).sum()))
        return cls(*sample, *model, even=0.0 if even is None else float(even.sum()))

    def __add__(self, other: "Moments") -> "Moments":
        """The moments over both logs, as if they had been one (Pébay 2008). The model is kept only if both have it."""
        n = self.n + other.n
        if n == 0:
            return self
        a, b = self.n / n, other.n / n
        gap, gap_dm = other.mean - self.mean, other.direct - self.direct
        cross = self.n * b * gap
        fourth = cross * gap**3 * (a * a - a * b + b * b) + 4.0 * gap * (a * other.m3 - b * self.m3)
        fourth += 6.0 * gap * gap * (a * a * other.m2 + b * b * self.m2)
        return Moments(
            n=n,
            mean=a * self.mean + b * other.mean,
            m2=self.m2 + other.m2 + cross * gap,
            m3=self.m3 + other.m3 + cross * gap * gap * (a - b) + 3.0 * gap * (a * other.m2 - b * self.m2),
            m4=self.m4 + other.m4 + fourth,
            variance=self.variance + other.variance,
            third=self.third + other.third,
            direct=a * self.direct + b * other.direct,
            direct_m2=self.direct_m2 + other.direct_m2 + self.n * b * gap_dm * gap_dm,
            even=self.even + other.even,
            modelled=self.modelled and other.modelled,
            bernoulli=self.bernoulli and other.bernoulli,
        )

    def with_variance(self, total: float) -> "Moments":
        """The same moments for rewards that are not yes or no: `total` takes the place of Σ vm, and the model's
        skewness is dropped, because it is not known for such rewards. Called by `Dispersion.guarded`.
        """
        return replace(self, variance=total, third=0.0, bernoulli=False)


@dataclass(frozen=True, slots=True)
class UserSums:
    """Sums of φ and of the model moments by user, for logs in which users recur. Merges by `+`; 7 numbers a user.

    The unit is the user: the value is Σφ / Σrounds, a ratio, whose linearisation (Σφ − mean·rounds) / (rounds a user) +
    mean takes φ's place, so that `interval` serves. Rounds of one user may depend on each other in any way.
    """

    user: NDArray[np.int64]  # (g,) sorted, distinct
    sums: Array  # (g, 6): rounds, φ, vm, k3m, dm, even
    modelled: bool = True  # every part had vm, k3m and dm

    @classmethod
    def of(
        cls,
        user: NDArray[np.int64],
        phi: Array,
        vm: Array | None = None,
        k3m: Array | None = None,
        dm: Array | None = None,
        even: Array | None = None,
    ) -> "UserSums":
        """The sums of n rounds, arguments (n,) as for `Moments.of`, with the `user` (n,) of each round: any int64 keys,
        of users or of groups of users.
        """
        modelled = vm is not None and k3m is not None and dm is not None
        model = [np.zeros(len(phi)) if part is None else part for part in (vm, k3m, dm, even)]
        return _grouped(user, np.column_stack([np.ones(len(phi)), phi, *model]), modelled)

    def __add__(self, other: "UserSums") -> "UserSums":
        """The sums over both logs; a user may be in both, and the sums are then added."""
        both = np.concatenate([self.user, other.user]), np.concatenate([self.sums, other.sums])
        return _grouped(*both, self.modelled and other.modelled)

    def moments(self) -> Moments:
        """The moments of the linearised ratio, one observation for each user; n is the number of users, not of
        rounds.
        """
        rounds, phi, vm, k3m, dm, even = self.sums.T
        if len(rounds) == 0:
            return Moments()
        each = float(rounds.mean())
        phi, dm = (_linearised(part, rounds) for part in (phi, dm))
        if not self.modelled:
            return Moments.of(phi)
        return Moments.of(phi, vm / each**2, k3m / each**3, dm, even / each**2)


def _grouped(user: NDArray[np.int64], rows: Array, modelled: bool) -> UserSums:
    names, where = np.unique(user, return_inverse=True)
    columns = [np.bincount(where, column, len(names)) for column in rows.T]
    return UserSums(names, np.column_stack(columns), modelled)


def _linearised(total: Array, rounds: Array) -> Array:
    mean = total.sum() / rounds.sum()
    return np.asarray((total - mean * rounds) / rounds.mean() + mean, dtype=np.float64)


def model_moments(pi: Array, propensity: Array, q_hat: Array) -> tuple[Array, Array, Array]:
    """Model moments vm, k3m and dm, (n,) each, of the doubly robust φ if rewards are Bernoulli(q̂).

    `pi` (n, k) is the evaluated policy, or the difference of two; `propensity` (n, k) the logged one, 0 where an arm
    could not be drawn; `q_hat` (n, k) expected rewards scaled to [0, 1]. With w = π/p over the arms that could be
    drawn: vm = Σ p w² q̂(1 − q̂), k3m = Σ p w³ q̂(1 − q̂)(1 − 2q̂), dm = Σ π q̂. For other rewards in [0, 1], vm is a
    bound.
    """
    drawn = propensity > 0.0
    w = np.where(drawn, pi, 0.0) / np.where(drawn, propensity, 1.0)
    q = np.clip(q_hat, 0.0, 1.0)
    spread = pi * w * q * (1.0 - q)
    return spread.sum(axis=1), (spread * w * (1.0 - 2.0 * q)).sum(axis=1), (pi * q_hat).sum(axis=1)


def interval(moments: Moments, level: float = LEVEL, bounds: tuple[float, float] | None = None) -> Interval:
    """The GHU interval of the mean of φ (see the module). `level`: coverage in repetitions of the log at this fixed n.
    `bounds`: what the value cannot leave, e.g. (0, 1), or (−1, 1) for a difference; they clip the interval.

    Fewer than two rounds, or rounds that are all equal with no model to say how much they might have differed, say
    nothing: the interval is then the bounds, or ±∞.
    """
    low, high = bounds or (-np.inf, np.inf)
    n, m = moments.n, moments.mean
    if n < 2:
        return Interval(m if n else float("nan"), low, high, n)
    variance, skew = _variance_and_skewness(moments)
    if not (moments.modelled and moments.bernoulli) and variance <= _CONSTANT * m * m:
        return Interval(m, low, high, n)
    z = float(special.stdtrit(n - 1, 0.5 + level / 2))
    error = float(np.sqrt(variance / n))
    shift = skew * (1.0 + 2.0 * z * z) / (6.0 * float(np.sqrt(n)))
    lower, upper = m - error * (z + max(-shift, 0.0)), m + error * (z + max(shift, 0.0))
    return Interval(m, min(max(lower, low), high), max(min(upper, high), low), n)


def standard_error(moments: Moments) -> float:
    """The standard error √(V/n) of the mean of φ, in its unit, guarded by the model as `interval` is; ∞ for fewer than
    two rounds.
    """
    return float(np.sqrt(_variance_and_skewness(moments)[0] / moments.n)) if moments.n > 1 else float("inf")


def side_error(moments: Moments, level: float = LEVEL) -> float | None:
    """Standard error of the normal law that is as wide as the longer side of the interval: √(V/n), or more where φ is
    skewed; None where the interval knows no bounds. What is computed with it never says more than the interval does.
    """
    found = interval(moments, level)
    if not np.isfinite(found.low):
        return None
    longer = max(found.value - found.low, found.high - found.value)
    return float(longer / special.stdtrit(moments.n - 1, 0.5 + level / 2))


def _variance_and_skewness(moments: Moments) -> tuple[float, float]:
    """Guarded variance V of φ, and skewness γ, as the module's text defines them."""
    n = moments.n
    sample, model = moments.m2 / (n - 1), moments.variance / n + moments.direct_m2 / (n - 1)
    if moments.modelled and moments.bernoulli:
        variance = max(sample, model)
        return variance, moments.third / n / variance**1.5 if variance > 0.0 else 0.0
    skew = moments.m3 / n / (moments.m2 / n) ** 1.5 if moments.m2 > 0.0 else 0.0
    if moments.modelled:
        tail = max(moments.m4 / n / (moments.m2 / n) ** 2 - 1.0, skew * skew) if moments.m2 > 0.0 else 0.0
        trust = min(1.0, (_PSEUDO + _TAIL * tail) / n)
        sample += trust * max(model - sample, 0.0)
    return sample, skew * (1.0 + abs(skew) / float(np.sqrt(n)))


def bonferroni_level(level: float, tests: int) -> float:
    """The Bonferroni level: what each of `tests` intervals needs so that all cover together with probability
    `level`.
    """
    return 1.0 - (1.0 - level) / max(tests, 1)
