"""Confidence sequences: intervals that may be looked at after every decision, and acted upon when it pleases.

One construction serves a value and a lift, a fixed world and a drifting one, one machine and many. For a series X that
is at least −k, and any ŷ in [0, span] fixed before X is seen,

    log W(ν) = Σ_i [ log(1 + λ (X_i − ŷ_i)) + λ ŷ_i ] − λ n ν,    0 < λ (k + span) < 1

is the log of a supermartingale that starts at 1 when ν is the mean of the X's conditional means so far, because 1 + λ
(μ − ŷ) ≤ exp(λ (μ − ŷ)). So {ν : W(ν) < 1/δ} holds that running mean at all times with probability 1 − δ (Ville). The
sum is one number for each λ: parts add up in any order. ŷ is the mean of earlier X in the same part. Against the
betting product Π(1 + λ (X_i − ν)) (Waudby-Smith & Ramdas 2024), which covers only a constant mean and needs a grid of
ν, this loses less than 2 % of width (`tests/experiments/inference/test_sequences.py`).

X is the doubly robust score with q̂ cut so that it is bounded below (Waudby-Smith, Wu, Ramdas, Karampatziakis & Mineiro
2022, Karampatziakis, Mineiro & Ramdas 2021): with w = π/p and q̂ᵏ = min(q̂, k/w),

    φᵏ = Σ_a π q̂ᵏ + w (r − q̂ᵏ) ≥ −k,   unbiased for any q̂ known before the draw.

The lower bound bets on φᵏ of r; the upper bound on φᵏ of 1 − r and 1 − q̂; the lift of π over π₀ on the sum of π's φᵏ
of r and π₀'s of 1 − r. W is a mixture over three levels k and 16 λ each, fixed below: no bet is chosen by looking.

Shapes: n decisions in order, k arms, J levels, L bets; `BettingCapital` may have leading axes "…", one log each.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from bandit.arrays import Array
from bandit.errors import InvalidRequest, Problem
from experiments.inference.intervals import LEVEL, Interval

_BETS = 1.6 ** -np.arange(16.0)  # λ (k + span) / 0.9
_CENTRE, _SPREAD = 0.04, 1.2  # the prior of log λ: Laplace; √(10/nV) is the best λ, 0.03 for n = 10,000 and V = 1
_TRUST = (0.15, 0.15, 0.7)  # the prior of the levels: the last cuts least
_PSEUDO = 5.0  # rows that the middle of the range is worth as ŷ
_FEW = 32
_BLOCK = 8192  # rows at a time: arrays that fit the cache are ten times faster


class SequenceLevels(NamedTuple):
    """Cut levels k of one policy: where q̂ is cut for the lower and for the upper bound, as many for each. Any levels
    are valid if chosen without looking at the log; good ones make narrow sequences.
    """

    lower: tuple[float, ...]
    upper: tuple[float, ...]


WEIGHTS_ONLY = SequenceLevels((0.0,), (0.0,))
"""No q̂ at all, φ⁰ = w r: for logs that have only the propensity of the drawn arm. Give them as logs of one arm."""


def levels(heaviest: float) -> SequenceLevels:
    """Cut levels for a policy whose weight π/p is at most `heaviest`, i.e. the largest π over the floor. A wrong guess
    costs only width, never coverage.
    """
    return SequenceLevels((0.3, 1.0, 4.0), (0.5 * heaviest**0.5, 0.3 * heaviest, 0.95 * heaviest))


class SequenceDraws(NamedTuple):
    """A piece of the log in the order of its decisions, "…" for any leading axes (one log each). Rewards and q̂ are
    scaled to [0, 1]; q̂ was known before the arm was drawn, or else the sequence is not valid.
    """

    action: NDArray[np.integer]  # (…, n)
    reward: Array  # (…, n)
    propensity: Array  # (…, n, k), 0 where an arm could not be drawn
    q_hat: Array  # (…, n, k)

    def only(self, rows: slice) -> "SequenceDraws":
        """The draws of a slice of decisions, of every log alike."""
        action, reward, propensity, q_hat = self
        return SequenceDraws(action[..., rows], reward[..., rows], propensity[..., rows, :], q_hat[..., rows, :])


@dataclass(frozen=True, slots=True)
class BettingCapital:
    """Wealth of every bet on one series X with mean in [0, span]. Additive: `total` and `growth` of two parts are
    summed by `+`. Immutable: `fed` returns the capital after more rows.
    """

    rate: Array  # (J, L) λ
    log_prior: Array  # (J, L)
    span: float  # the mean is in [0, span]
    n: int  # rows
    total: Array  # (…, J) ΣX
    growth: Array  # (…, J, L) Σ log(1 + λ (X − ŷ)) + λ ŷ

    @classmethod
    def none(cls, cut: tuple[float, ...], span: float, shape: tuple[int, ...] = ()) -> "BettingCapital":
        """The capital before the first row. `cut`: (J,) the series of each level is at least −cut; `span`: the largest
        possible mean; `shape`: the leading axes "…".
        """
        rate = 0.9 / (np.array(cut)[:, None] + span) * _BETS
        prior = np.exp(-np.abs(np.log(rate / _CENTRE)) / _SPREAD)
        trust = np.array(_TRUST if len(cut) == len(_TRUST) else [1.0 / len(cut)] * len(cut))
        weight = trust[:, None] * prior / prior.sum(axis=1, keepdims=True)
        nothing = np.zeros((*shape, len(cut)))
        return cls(rate, np.log(weight), span, 0, nothing, np.zeros((*shape, *rate.shape)))

    def fed(self, x: Array) -> "BettingCapital":
        """The capital after the rows of `x` (…, J, n), in order."""
        factors, centre = self._factors(x)
        grown = self.growth + _log_product(factors) + self.rate * centre.sum(axis=-1)[..., None]
        return replace(self, n=self.n + x.shape[-1], total=self.total + x.sum(axis=-1), growth=grown)

    def steps(self, x: Array, mean: Array) -> Array:
        """log W(mean) after each row of `x` (…, J, n), shape (…, n): the whole path, for tests and figures. `mean`: (…,
        n) or (…, 1), in [0, span].
        """
        time = self.n + np.arange(1.0, x.shape[-1] + 1.0)
        factors, centre = self._factors(x)
        gains = np.log(factors) + self.rate[:, None, :] * centre[..., None]
        grown = self.growth[..., None, :] + np.cumsum(gains, axis=-2)
        grown -= (mean * time)[..., None, :, None] * self.rate[:, None, :]
        grown += self.log_prior[:, None, :]
        most = grown.max(axis=(-3, -1), keepdims=True)
        wealth = np.exp(np.subtract(grown, most, out=grown), out=grown).sum(axis=(-3, -1))
        return np.asarray(np.log(wealth) + most[..., 0, :, 0], dtype=np.float64)

    def log_wealth(self, mean: Array | float) -> Array:
        """log W(mean), (…): the evidence that the running mean is above `mean`. Its exponential is an e-value at any
        time.
        """
        paid = self.n * np.asarray(mean)[..., None, None] * self.rate
        return np.asarray(special.logsumexp(self.growth - paid + self.log_prior, axis=(-2, -1)), dtype=np.float64)

    def bound(self, delta: float) -> Array:
        """Lower confidence bound (…): the largest mean in [0, span] that W refutes at 1/δ; 0 if it refutes none. W
        falls with the mean, so 60 steps of bisection find it.
        """
        low, high = np.zeros(self.total.shape[:-1]), np.full(self.total.shape[:-1], self.span)
        for _ in range(60):
            middle = 0.5 * (low + high)
            refuted = self.log_wealth(middle) >= -np.log(delta)
            low, high = np.where(refuted, middle, low), np.where(refuted, high, middle)
        return low

    def __add__(self, other: "BettingCapital") -> "BettingCapital":
        """The capital over both parts. Raises InvalidRequest if they were started with different cuts."""
        if self.rate.shape != other.rate.shape or not np.array_equal(self.rate, other.rate):
            raise InvalidRequest(Problem("levels", "parts with different levels", "start every part with the same"))
        n, total = self.n + other.n, self.total + other.total
        return replace(self, n=n, total=total, growth=self.growth + other.growth)

    def _factors(self, x: Array) -> tuple[Array, Array]:
        """1 + λ (X − ŷ), (…, J, n, L), and ŷ (…, J, n)."""
        before = np.cumsum(x, axis=-1) - x + self.total[..., None] + _PSEUDO * self.span / 2.0
        time = self.n + np.arange(x.shape[-1])
        centre = np.clip(before / (time + _PSEUDO), 0.0, self.span)
        factors = (x - centre)[..., None] * self.rate[:, None, :]
        factors += 1.0
        return factors, centre


def _log_product(factors: Array) -> Array:
    """Σ log over the last axis but one; products of few factors first, which are floats up to weights of 1e9."""
    *shape, n, bets = factors.shape
    whole = n - n % _FEW
    few = factors[..., :whole, :].reshape(*shape, whole // _FEW, _FEW, bets).prod(axis=-2)
    return np.asarray(np.log(few).sum(axis=-2) + np.log(factors[..., whole:, :]).sum(axis=-2), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Sequence:
    """Confidence sequence of one policy's value, or of the lift of a policy over another; in units of rewards scaled to
    [0, 1].

    At every time at once, with probability `level`, the bounds hold the mean over the decisions so far of the policy's
    true expected reward (or of the difference), also if the policy that made the log adapts and the world drifts.
    Immutable; merges by `+`. A part may be made by any worker from any consecutive rows; an interval is valid for a sum
    that is a prefix of the log: cut at a decision, never at "those whose rewards have arrived".

        sequence = Sequence.of_value(levels(heaviest=20.0)).fed(draws, pi)
        sequence.interval(0.95)
    """

    levels: tuple[SequenceLevels, ...]  # of the policy; and of the one that it is compared with
    lower: BettingCapital  # bets that the mean is larger
    upper: BettingCapital  # bets that the mean is smaller

    @classmethod
    def of_value(cls, policy: SequenceLevels, shape: tuple[int, ...] = ()) -> "Sequence":
        """The sequence before the first row, for the value of a policy, in [0, 1]. `shape`: leading axes "…", one log
        each.
        """
        return cls(
            (policy,), BettingCapital.none(policy.lower, 1.0, shape), BettingCapital.none(policy.upper, 1.0, shape)
        )

    @classmethod
    def of_lift(cls, policy: SequenceLevels, against: SequenceLevels, shape: tuple[int, ...] = ()) -> "Sequence":
        """The sequence before the first row, for the value of `policy` less that of `against`, in [−1, 1]. `shape`:
        leading axes "…", one log each.
        """
        lower = tuple(a + b for a, b in zip(policy.lower, against.upper, strict=True))
        upper = tuple(a + b for a, b in zip(policy.upper, against.lower, strict=True))
        return cls((policy, against), BettingCapital.none(lower, 2.0, shape), BettingCapital.none(upper, 2.0, shape))

    def fed(self, draws: SequenceDraws, *policies: Array) -> "Sequence":
        """The sequence after these draws. `policies`: the probabilities (…, n, k) of as many policies as there are
        levels, the compared one last.

        Raises InvalidRequest if a reward is outside [0, 1]: unlike most intervals, this one would then promise falsely.
        """
        found = self
        for start in range(0, draws.reward.shape[-1], _BLOCK):
            rows = slice(start, start + _BLOCK)
            lower, upper = self.series(draws.only(rows), *(pi[..., rows, :] for pi in policies))
            found = replace(found, lower=found.lower.fed(lower), upper=found.upper.fed(upper))
        return found

    def series(self, draws: SequenceDraws, *policies: Array) -> tuple[Array, Array]:
        """The series X that the lower and the upper bound bet on, (…, J, n) each, of these draws. Raises InvalidRequest
        if a reward is outside [0, 1].
        """
        if not ((draws.reward >= 0.0) & (draws.reward <= 1.0)).all():
            problem = f"rewards from {draws.reward.min():g} to {draws.reward.max():g}"
            raise InvalidRequest(Problem("reward", problem, "scale them to [0, 1] by the declared range"))
        lost = draws._replace(reward=1.0 - draws.reward, q_hat=1.0 - np.clip(draws.q_hat, 0.0, 1.0))
        won = draws._replace(q_hat=np.clip(draws.q_hat, 0.0, 1.0))
        lower, upper = (
            _cut_scores(won, policies[0], self.levels[0].lower),
            _cut_scores(lost, policies[0], self.levels[0].upper),
        )
        for against, cut in zip(policies[1:], self.levels[1:], strict=True):
            lower, upper = lower + _cut_scores(lost, against, cut.upper), upper + _cut_scores(won, against, cut.lower)
        return lower, upper

    def interval(self, level: float = LEVEL) -> Interval:
        """The interval at this moment, valid at every time at once, for a sequence of one log. Its value is the mean of
        the series that is cut least; NaN before the first row.
        """
        if self.lower.n == 0:
            return Interval(float("nan"), -self.offset, 1.0, 0)
        low, high = self.bounds(level)
        value = float(self.lower.total[-1]) / self.lower.n - self.offset
        return Interval(value, float(low), float(high), self.lower.n)

    def bounds(self, level: float = LEVEL) -> tuple[Array, Array]:
        """Lower and upper bound at this moment, (…) each, one for each log; together they miss with probability at most
        1 − `level`, at all times.
        """
        delta = (1.0 - level) / 2.0
        return self.lower.bound(delta) - self.offset, 1.0 - self.upper.bound(delta)

    @property
    def offset(self) -> float:
        """What the lower series is shifted by so that it is bounded below: 0 for a value, 1 for a lift."""
        return len(self.levels) - 1.0

    def __add__(self, other: "Sequence") -> "Sequence":
        """The sequence over both parts. Raises InvalidRequest if they were started with different levels."""
        return replace(self, lower=self.lower + other.lower, upper=self.upper + other.upper)


def _cut_scores(draws: SequenceDraws, pi: Array, cuts: tuple[float, ...]) -> Array:
    """Scores φᵏ of the decisions with q̂ cut at each level k, (…, J, n)."""
    drawn = draws.propensity > 0.0
    weight = np.where(drawn, pi, 0.0) / np.where(drawn, draws.propensity, 1.0)
    action = draws.action[..., None]
    mine = np.take_along_axis(weight, action, -1)[..., 0]
    ceiling = 1.0 / np.maximum(weight, 1e-300)
    series = []
    for cut in cuts:
        q = np.minimum(draws.q_hat, cut * ceiling)
        expected = np.einsum("...k,...k->...", pi, q)  # sums over few numbers cost less than by .sum
        series.append(expected + mine * (draws.reward - np.take_along_axis(q, action, -1)[..., 0]))
    return np.stack(series, axis=-2)
