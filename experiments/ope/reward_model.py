"""Reward model for logs without q̂: ridge regression of the reward on x for each arm, cross-fitted.

Each arm's coefficients shrink towards those of all arms together. With sums G_a = Σ xx', h_a = Σ xr over its rounds,

    θ = (Σ_a G_a + κI)⁻¹ Σ_a h_a,    θ_a = (G_a + λI)⁻¹ (h_a + λθ).

The sums are additive, so a log of any size is fitted in one pass and by several workers. Rounds are in one of `FOLDS`
folds, by user where the log names users; a round is predicted by coefficients that its fold had no part in. Predictions
are clipped to the range of the rewards seen.

Shapes: n rounds, k arms, d features.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from bandit.arrays import Array
from experiments.data.rounds import LoggedRounds
from experiments.inference.joint_moments import groups_of

FOLDS = 5
POOLED = 1.0  # κ, in rounds
RIDGE = 100.0  # λ, in rounds


@dataclass(frozen=True)
class GramSums:
    """Sums of the ridge regression by fold and arm: what is kept of the rounds seen. Merges by `+` in any order, to
    rounding. x gets a leading 1, so there are d + 1 coefficients; `low` and `high` are the range of the rewards seen,
    in their unit.
    """

    gram: Array  # (folds, k, d + 1, d + 1)
    shift: Array  # (folds, k, d + 1)
    low: float
    high: float

    @classmethod
    def of(cls, rounds: LoggedRounds, k: int) -> "GramSums":
        """The sums of n rounds of k arms. Rounds whose reward is not known (NaN) are left out."""
        known = ~np.isnan(rounds.reward)
        fold, rounds = _folds(rounds)[known], rounds.only(known)
        x = _design(rounds)
        gram, shift = np.zeros((FOLDS, k, x.shape[1], x.shape[1])), np.zeros((FOLDS, k, x.shape[1]))
        cell = fold * k + rounds.action
        for c in np.unique(cell).tolist():
            part, reward = x[cell == c], rounds.reward[cell == c]
            gram[divmod(c, k)], shift[divmod(c, k)] = part.T @ part, part.T @ reward
        ends = (rounds.reward.min(), rounds.reward.max()) if len(rounds.reward) else (np.inf, -np.inf)
        return cls(gram, shift, float(ends[0]), float(ends[1]))

    def __add__(self, other: "GramSums") -> "GramSums":
        """The sums over both parts of a log, which have the same k and d."""
        low, high = min(self.low, other.low), max(self.high, other.high)
        return GramSums(self.gram + other.gram, self.shift + other.shift, low, high)

    def solved(self) -> "RewardModel":
        """The fitted model: for each fold, coefficients from the other folds."""
        gram, shift = self.gram.sum(axis=0) - self.gram, self.shift.sum(axis=0) - self.shift  # (folds, k, ·)
        eye = np.eye(gram.shape[-1])
        pooled = np.linalg.solve(gram.sum(axis=1) + POOLED * eye, shift.sum(axis=1)[..., None])[
            ..., 0
        ]  # (folds, d + 1)
        own = np.linalg.solve(gram + RIDGE * eye, (shift + RIDGE * pooled[:, None, :])[..., None])[..., 0]
        return RewardModel(own, self.low, self.high)


@dataclass(frozen=True)
class RewardModel:
    """A cross-fitted linear model of rewards. `theta`: coefficients (folds, k, d + 1), the constant first. `low`,
    `high`: the range that predictions are clipped to, in units of rewards.
    """

    theta: Array
    low: float
    high: float

    def predict(self, rounds: LoggedRounds) -> Array:
        """Expected rewards q̂ (n, k) of every arm, in units of rewards, each by coefficients that did not see the
        round's fold. A log without users has to be read in the same chunks as when the model was fitted.
        """
        x, fold = _design(rounds), _folds(rounds)
        q_hat = np.empty((len(x), self.theta.shape[1]))
        for f in range(FOLDS):
            q_hat[fold == f] = x[fold == f] @ self.theta[f].T
        return np.clip(q_hat, self.low, self.high)


def fitted(parts: Iterable[GramSums]) -> RewardModel | None:
    """The reward model of a log in parts, each of which `evaluate` sums in a worker. None if no round has a reward that
    is known.
    """
    known = [part for part in parts if part.low <= part.high]
    return reduce(GramSums.__add__, known).solved() if known else None


def _design(rounds: LoggedRounds) -> Array:
    ones = np.ones((len(rounds.reward), 1))
    return ones if rounds.x is None else np.column_stack([ones, rounds.x])


def _folds(rounds: LoggedRounds) -> NDArray[np.int64]:
    """Fold (n,) of each round: by user, or else in turn within a chunk, so that a log without users must be read in the
    same chunks when it is predicted.
    """
    return (np.arange(len(rounds.reward)) if rounds.user is None else groups_of(rounds.user)) % FOLDS
