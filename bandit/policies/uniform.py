"""Every eligible arm with the same probability: the baseline that can evaluate any other policy."""

from typing import NamedTuple

import msgspec
import numpy as np

from bandit.belief import Belief
from bandit.policies.protocol import Array, Mask, Scores, Utility, empirical, unit_sites


class Uniform(msgspec.Struct, frozen=True, tag="uniform", tag_field="name", forbid_unknown_fields=True):
    """P(a) = 1 / number of eligible arms."""

    def sites(self, x: Array, reward: Array) -> tuple[Array, Array]:  # noqa: ARG002
        """τ = 1, ν = r: the counts are kept although the policy does not use them."""
        return unit_sites(reward)

    def posterior(self, belief: Belief, arms: tuple[str, ...], utility: Utility) -> "UniformPosterior":  # noqa: ARG002
        """Means and standard errors, for people to read."""
        return UniformPosterior(*empirical(belief))


class UniformPosterior(NamedTuple):
    """Per-arm means and standard errors; the choice ignores them."""

    mean: Array  # (k,)
    sd: Array  # (k,)

    def choose(self, x: Array, eligible: Mask) -> Scores:  # noqa: ARG002
        """The same probability for every eligible arm."""
        return Scores(self.mean, self.sd, np.where(eligible, 1.0 / np.count_nonzero(eligible), 0.0))
