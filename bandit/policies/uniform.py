"""Uniform policy: every eligible arm with the same probability, the baseline that can evaluate any other policy."""

from typing import NamedTuple

import msgspec
import numpy as np

from bandit.arrays import Array, Mask
from bandit.belief import Belief
from bandit.policies.protocol import ArmEconomics, ExactSites, Scores, empirical, tiled


class Uniform(msgspec.Struct, ExactSites, frozen=True, tag="uniform", tag_field="name", forbid_unknown_fields=True):
    """Uniform policy, `policy = { name = "uniform" }`: P(a) = 1 / number of eligible arms."""

    def posterior(self, belief: Belief, arms: ArmEconomics) -> "UniformPosterior":  # noqa: ARG002
        """Means and standard errors, for people to read; the choice ignores them."""
        return UniformPosterior(*empirical(belief))


class UniformPosterior(NamedTuple):
    """Per-arm means (k,) and standard errors (k,); the choice ignores them."""

    mean: Array  # (k,)
    sd: Array  # (k,)

    def choose(self, x: Array, eligible: Mask) -> Scores:  # noqa: ARG002
        """Scores with the same probability for every eligible arm, whatever x."""
        return Scores(self.mean, self.sd, np.where(eligible, 1.0 / np.count_nonzero(eligible), 0.0))

    def choose_many(self, x: Array, eligible: Mask) -> Scores:
        """Scores of n rows, (n, k) each, with the same probability for every arm that is eligible in its row."""
        n = len(x)
        return Scores(tiled(self.mean, n), tiled(self.sd, n), eligible / eligible.sum(axis=1, keepdims=True))
