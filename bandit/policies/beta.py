"""Beta–Bernoulli Thompson sampling: one conversion rate for each arm, no context. The readable baseline.

Posterior of arm a: Beta(prior_success + Σr, prior_failure + n − Σr), concentration divided by α² so that the standard
deviation is scaled by α (posterior reshaping, Chapelle & Li 2011). Propensities by quadrature. Shapes: k arms.
"""

from typing import Annotated, NamedTuple

import msgspec
import numpy as np

from bandit.arrays import Array, Mask
from bandit.belief import Belief
from bandit.policies.protocol import ArmEconomics, ExactSites, Scores, tiled
from bandit.propensity import beta

AtLeastOne = Annotated[float, msgspec.Meta(ge=1, le=1e6)]

_SUREST = 1e7  # of a + b: surer posteriors are integrated as if they were this sure, at an sd of 1.6e-4


class Beta(msgspec.Struct, ExactSites, frozen=True, tag="beta", tag_field="name", forbid_unknown_fields=True):
    """Beta–Bernoulli policy, `policy = { name = "beta" }`. Needs a binary reward; exact in its sums, in any order.

    Fields: `prior_success`, `prior_failure`: pseudo-counts. `alpha` scales the posterior's standard deviation; 1 is
    Thompson's own. The bounds keep both posterior parameters at 1 or more, where the density is bounded and its
    integral accurate.
    """

    prior_success: AtLeastOne = 1.0
    prior_failure: AtLeastOne = 1.0
    alpha: Annotated[float, msgspec.Meta(ge=0.05, le=1)] = 1.0

    def posterior(self, belief: Belief, arms: ArmEconomics) -> "BetaPosterior":
        """Tempered Beta posteriors of the arms. Probabilities do not depend on x, so each eligible set is integrated
        once.
        """
        success = (self.prior_success + belief.reward) / (self.alpha * self.alpha)
        failure = (self.prior_failure + belief.n - belief.reward) / (self.alpha * self.alpha)
        known = np.maximum((success + failure) / _SUREST, 1.0)
        return BetaPosterior(success / known, failure / known, arms, {})


class BetaPosterior(NamedTuple):
    """Posterior Beta(success, failure) for each arm; `seen` remembers the propensities (k,) of each eligible set, so
    that it is integrated once.
    """

    success: Array  # (k,)
    failure: Array  # (k,)
    arms: ArmEconomics
    seen: dict[bytes, Array]

    def choose(self, x: Array, eligible: Mask) -> Scores:  # noqa: ARG002
        """Scores of every arm, the same for every x. Raises PropensityError as `bandit.propensity.beta.wins`."""
        total = self.success + self.failure
        mean = self.success / total
        key = eligible.tobytes()
        if key not in self.seen:
            p = np.zeros(len(eligible))
            p[eligible] = beta.wins(
                self.success[eligible],
                self.failure[eligible],
                self.arms.gain[eligible],
                self.arms.cost[eligible],
            )
            p.flags.writeable = False
            self.seen[key] = p
        return Scores(mean, np.sqrt(mean * (1.0 - mean) / (total + 1.0)), self.seen[key])

    def choose_many(self, x: Array, eligible: Mask) -> Scores:
        """Scores of n rows, (n, k) each: `choose` once for each eligible set among the rows. Raises PropensityError as
        `choose`.
        """
        packed = np.packbits(eligible, axis=1)
        names = packed.view(np.dtype((np.void, packed.shape[1])))[:, 0]
        _, first, place = np.unique(names, return_index=True, return_inverse=True)
        each = [self.choose(x[row], eligible[row]) for row in first]
        p = np.array([scores.propensity for scores in each]).reshape(-1, eligible.shape[1])[place]
        return Scores(tiled(each[0].mean, len(x)), tiled(each[0].sd, len(x)), p)
