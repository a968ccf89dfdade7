"""Dispersion of rewards: how much they vary around what was expected of them, against rewards of yes or no.

A reward of yes or no with chance q has the variance q (1 − q), and a guard that knows q̂ knows it. Any other reward in
[0, 1] has less, often much less: 50 ± 1 in a range of 0 to 100 has a 2,500th of it. The ratio over all rounds,

    κ = Σ (r − q̂)² / Σ q̂ (1 − q̂),    at most 1,

is the dispersion of a quasi-binomial model (Wedderburn 1974): the variance of each round is taken to be κ q̂ (1 − q̂).
It fits amounts that are mostly 0, whose variance grows with how often they are not, and rewards whose variance is the
same in every arm. Where no range was declared, the variance of every round is taken to be the mean of (r − q̂)². Sums
merge by `+`.

Shapes: n rounds, k arms.
"""

from dataclasses import dataclass

import numpy as np

from bandit.arrays import Array
from experiments.data.rounds import RewardRange
from experiments.inference.intervals import Moments, UserSums


@dataclass(frozen=True, slots=True)
class Dispersion:
    """Sums over rounds from which the dispersion κ follows. `Dispersion()` is the empty log; parts merge by `+`.
    `accumulate` makes them; `evaluate` calls `guarded` on every total before it takes an interval.
    """

    binary: bool = True  # all rewards are at the ends of their range
    residual: float = 0.0  # Σ (r − q̂)², scaled to [0, 1]
    bernoulli: float = 0.0  # Σ q̂ (1 − q̂)
    square: float = 0.0  # Σ (r − q̂)², in the reward's units, whatever the range
    n: int = 0  # rounds of which something was expected

    @classmethod
    def of(cls, reward: Array, q_hat: Array | None, rewards: RewardRange) -> "Dispersion":
        """The sums of n rounds: `reward` (n,) and, where there is one, `q_hat` (n,) of the drawn arms, both in the
        reward's units; `rewards` is their range.
        """
        span = rewards.high - rewards.low
        binary = bool(((reward == rewards.low) | (reward == rewards.high)).all())
        if q_hat is None:
            return cls(binary)
        q = np.clip((q_hat - rewards.low) / span, 0.0, 1.0)
        error, plain = (reward - rewards.low) / span - q, reward - q_hat
        bernoulli = float((q * (1.0 - q)).sum())
        return cls(binary, float(error @ error), bernoulli, float(plain @ plain), len(reward))

    def __add__(self, other: "Dispersion") -> "Dispersion":
        """The sums over both parts of a log; rewards are of yes or no only if they are in both."""
        return Dispersion(
            self.binary and other.binary,
            self.residual + other.residual,
            self.bernoulli + other.bernoulli,
            self.square + other.square,
            self.n + other.n,
        )

    @property
    def ratio(self) -> float:
        """The dispersion κ in [0, 1]; 1 where rewards are yes or no, or nothing was expected."""
        if self.binary or self.bernoulli <= 0.0:
            return 1.0
        return min(1.0, self.residual / self.bernoulli)

    def guarded(self, total: Moments | UserSums, *, ranged: bool = True) -> Moments:
        """Moments of a sum over these rounds, with the guarding variance that fits their kind of reward (see
        `intervals`).

        `total`: of φ by round or by user. `ranged`: whether a range of rewards was declared; without one, the mean of
        (r − q̂)² takes the place of Bernoulli's variance.
        """
        moments = total.moments() if isinstance(total, UserSums) else total
        if not ranged:
            return moments.with_variance(moments.even * self.square / max(self.n, 1))
        return moments if self.binary else moments.with_variance(self.ratio * moments.variance)
