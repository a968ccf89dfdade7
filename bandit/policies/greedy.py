"""Index baselines over the model of `linear`: greedy, ε-greedy (Sutton & Barto 2018, §2.2), disjoint LinUCB (Li et al.
2010).

They are here to be compared with. Greedy and LinUCB draw one arm with probability 1, so that without a floor their logs
cannot evaluate any other policy, and greedy may stay with a bad arm forever. Arms whose index is equal share p equally.
"""

from typing import Annotated, NamedTuple

import msgspec
import numpy as np

from bandit.arrays import Array, Mask
from bandit.belief import Belief
from bandit.policies.linear import LinearPosterior, Ridge
from bandit.policies.protocol import ArmEconomics, Scores


class Greedy(Ridge, frozen=True, tag="greedy", tag_field="name", forbid_unknown_fields=True):
    """Greedy policy, `policy = { name = "greedy" }`: the arm with the best expected utility. Fields as `Ridge`."""

    def posterior(self, belief: Belief, arms: ArmEconomics) -> "IndexPosterior":
        """Index of each arm: the posterior mean of its utility."""
        return IndexPosterior(self.regression(belief, arms, 1.0), 0.0, 0.0)


class EpsilonGreedy(Ridge, frozen=True, tag="epsilon-greedy", tag_field="name", forbid_unknown_fields=True):
    """ε-greedy policy: with probability `epsilon` any eligible arm, all alike, else the greedy one. Other fields as
    `Ridge`.
    """

    epsilon: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.05

    def posterior(self, belief: Belief, arms: ArmEconomics) -> "IndexPosterior":
        """Index of each arm: the posterior mean of its utility; `choose` mixes in ε."""
        return IndexPosterior(self.regression(belief, arms, 1.0), 0.0, self.epsilon)


class LinUCB(Ridge, frozen=True, tag="linucb", tag_field="name", forbid_unknown_fields=True):
    """Disjoint LinUCB: the arm with the best upper bound, mean + `width` posterior sds of its utility. Other fields as
    `Ridge`.
    """

    width: Annotated[float, msgspec.Meta(ge=0, le=10)] = 1.0

    def posterior(self, belief: Belief, arms: ArmEconomics) -> "IndexPosterior":
        """Index of each arm: the upper bound of its utility."""
        return IndexPosterior(self.regression(belief, arms, 1.0), self.width, 0.0)


class IndexPosterior(NamedTuple):
    """Index posterior: scores by `model`, the choice by the largest index, utility + width · sd."""

    model: LinearPosterior
    width: float
    epsilon: float

    def choose(self, x: Array, eligible: Mask) -> Scores:
        """Scores at x (d,): 1 − ε shared by the best eligible arms, ε by all eligible ones."""
        mean, sd, worth, spread = self.model.marginals(x)
        index = np.where(eligible, worth + self.width * spread, -np.inf)
        best = index == index.max()
        p = (1.0 - self.epsilon) * best / np.count_nonzero(best)
        return Scores(mean, sd, p + self.epsilon * eligible / np.count_nonzero(eligible))

    def choose_many(self, x: Array, eligible: Mask) -> Scores:
        """Scores of n rows, (n, k) each, in every row as `choose`."""
        mean, sd, worth, spread = self.model.marginals_many(x)
        index = np.where(eligible, worth + self.width * spread, -np.inf)
        best = index == index.max(axis=1, keepdims=True)
        p = (1.0 - self.epsilon) * best / best.sum(axis=1, keepdims=True)
        return Scores(mean, sd, p + self.epsilon * eligible / eligible.sum(axis=1, keepdims=True))
