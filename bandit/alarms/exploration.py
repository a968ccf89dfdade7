"""Exploration collapse: between how many arms a stage still chooses, as against how many it could.

The effective number of arms is exp(H) of the mean propensities, H their entropy in nats (the diversity of order 1 of
Hill 1973, "Diversity and evenness: a unifying notation and its consequences", Ecology 54): k where k arms are drawn
equally often, 1 where one is always drawn. Eligibility alone makes it small, where guardrails exclude most nudges;
therefore it stands beside what drawing evenly among each decision's eligible arms would give.

Shapes: n decisions, k arms.
"""

from typing import NamedTuple

from bandit.arrays import Array, Mask
from bandit.numerics.arithmetic import exp_of, log, total


class EffectiveArms(NamedTuple):
    """Effective number of arms of so many decisions: as they were drawn, and if all eligible ones had been drawn
    evenly (`available`). Both are 0 without decisions, at least 1 otherwise.
    """

    decisions: int
    effective: float
    available: float


def effective_arms(propensity: Array, eligible: Mask) -> EffectiveArms:
    """Effective number of arms of recent decisions, from their propensities (n, k), which are 0 where an arm was not
    eligible and sum to 1, and from which arms were eligible, (n, k), one in each row at least. Decisions of the control
    group are to be left out: no policy drew them.
    """
    n = len(propensity)
    if n == 0:
        return EffectiveArms(0, 0.0, 0.0)
    evenly = eligible / eligible.sum(axis=1, keepdims=True)
    return EffectiveArms(n, _diversity(total(propensity) / n), _diversity(total(evenly) / n))


def unramped(propensity: Array, share: float) -> Array:
    """Propensities (k,) of the policy alone, of those of a decision of which it decided a `share`, in (0, 1], and the
    rest was no nudge, the first arm. Floors must be small beside the share: they are of both together. No nudge, where
    the policy would have shown nothing else.
    """
    own = propensity.copy()
    own[0] = max(0.0, own[0] - (1.0 - share))
    whole = float(total(own))
    return own / whole if whole > 0.0 else propensity


def collapsed(found: EffectiveArms, *, share: float, least: int) -> bool:
    """Whether exploration has collapsed: of the arms beyond the first that could be drawn, less than `share` are, in
    at least `least` decisions. Never where there is no choice.
    """
    return found.decisions >= least and found.effective - 1.0 < share * (found.available - 1.0)


def _diversity(p: Array) -> float:
    """exp of the entropy of p (k,), which sums to 1."""
    some = p[p > 0.0]
    return max(1.0, exp_of(-float(total(some * log(some)))))
