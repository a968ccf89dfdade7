"""Eligible share: for which share of decisions a nudge's evidence and consents arrived, and whether it fell suddenly.

Whether they arrived for a decision of the newer group is compared with the group before it by Fisher's exact test:
if nothing has changed, all ways of dividing those with one between both groups are equally probable, and the number in
the newer group has a hypergeometric distribution (Fisher 1935, "The logic of inductive inference", JRSS 98).
"""

from typing import NamedTuple

import numpy as np
from scipy import special

from bandit.arrays import Array, Ints

CHANCE = 1e-6
"""Probability of a fall at least so deep, if nothing has changed, at or below which it is beyond chance. Small, since
it is asked again and again.
"""


class EligibleShare(NamedTuple):
    """Eligible share of a group: its decisions, and those for which evidence and consents arrived."""

    decisions: int
    eligible: int

    @property
    def share(self) -> float:
        """Share in [0, 1], 0 of no decisions."""
        return self.eligible / self.decisions if self.decisions else 0.0


def chance(before: EligibleShare, now: EligibleShare) -> float:
    """Probability that the newer group has so few or fewer, given both groups together, if nothing has changed."""
    found = np.arange(max(0, now.eligible + before.eligible - before.decisions), now.eligible + 1)
    rest = before.eligible + now.eligible - found
    log_ways = _log_ways(now.decisions, found) + _log_ways(before.decisions, rest)
    every = _log_ways(before.decisions + now.decisions, np.array([before.eligible + now.eligible]))
    return min(1.0, float(np.exp(log_ways - every).sum()))


def _log_ways(n: int, k: Ints) -> Array:
    """Logarithm of the ways to choose k (m,) of n."""
    return np.asarray(special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1))


def fallen(before: EligibleShare, now: EligibleShare, fall: float) -> bool:
    """Whether the share is below `fall`, in (0, 1), times what it was, and that is beyond chance."""
    return now.share < fall * before.share and chance(before, now) <= CHANCE
