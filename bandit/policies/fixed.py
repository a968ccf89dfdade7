"""Fixed policy: always one arm, what a team without a bandit would ship, and the control of an experiment."""

from typing import NamedTuple

import msgspec
import numpy as np

from bandit.arrays import Array, Mask
from bandit.belief import Belief
from bandit.policies.protocol import ArmEconomics, ExactSites, Scores, empirical, tiled


class Fixed(msgspec.Struct, ExactSites, frozen=True, tag="fixed", tag_field="name", forbid_unknown_fields=True):
    """Fixed policy, `policy = { name = "fixed", arm = … }`: P(arm) = 1 while `arm` is eligible; no nudge (the first
    arm) otherwise.
    """

    arm: str = "none"

    def posterior(self, belief: Belief, arms: ArmEconomics) -> "FixedPosterior":
        """Means and standard errors, for people to read; the choice ignores them. Raises ValueError if `arm` is not one
        of `arms`, which a checked catalogue excludes.
        """
        return FixedPosterior(arms.names.index(self.arm), *empirical(belief))


class FixedPosterior(NamedTuple):
    """Index of the chosen arm, and per-arm means and standard errors (k,) that the choice ignores."""

    arm: int
    mean: Array  # (k,)
    sd: Array  # (k,)

    def choose(self, x: Array, eligible: Mask) -> Scores:  # noqa: ARG002
        """Scores with all probability on the fixed arm, or on the first eligible one when the fixed arm may not be
        shown.
        """
        propensity = np.zeros(len(eligible))
        propensity[self.arm if eligible[self.arm] else int(np.argmax(eligible))] = 1.0
        return Scores(self.mean, self.sd, propensity)

    def choose_many(self, x: Array, eligible: Mask) -> Scores:
        """Scores of n rows, (n, k) each, in every row as `choose`."""
        n = len(x)
        arm = np.where(eligible[:, self.arm], self.arm, eligible.argmax(axis=1))
        propensity = np.zeros(eligible.shape)
        propensity[np.arange(n), arm] = 1.0
        return Scores(tiled(self.mean, n), tiled(self.sd, n), propensity)
