"""Eligible share: for which share of decisions a nudge's evidence and consents arrived, and whether it fell suddenly.

Whether they arrived for a decision of the newer group is compared with the group before it by Fisher's exact test:
if nothing has changed, all ways of dividing those with one between both groups are equally probable, and the number in
the newer group has a hypergeometric distribution (Fisher 1935, "The logic of inductive inference", JRSS 98).
"""

from typing import NamedTuple

from scipy import stats

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
    everybody = before.decisions + now.decisions
    return float(stats.hypergeom.cdf(now.eligible, everybody, before.eligible + now.eligible, now.decisions))


def fallen(before: EligibleShare, now: EligibleShare, fall: float) -> bool:
    """Whether the share is below `fall`, in (0, 1), times what it was, and that is beyond chance."""
    return now.share < fall * before.share and chance(before, now) <= CHANCE
