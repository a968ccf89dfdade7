"""Ranking of policies over the draws of a twin: how surely one is best for this app, and what a wrong choice costs.

Each draw is a world that the log allows, as likely as any other; all policies met the same people in it. So shares of
draws are posterior probabilities, and means over draws posterior expectations.

Shapes: D draws.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from simulations.offline.paired import PairedRuns

LEVEL = 0.9


class PolicyRank(NamedTuple):
    """Rank of one policy. Money is in currency a user over no nudge, in the whole run: the mean and its 90 % interval
    over draws. `best`: probability that none of the others earns more; `loses`: that it earns less than no nudge;
    `regret`: what choosing it is expected to give away against the best of all in each draw. `best` is None for a
    policy that knows the truth, with which the others are not compared.
    """

    policy: str
    gain: float
    low: float
    high: float
    best: float | None
    loses: float
    regret: float


def ranks(runs: Sequence[PairedRuns], knowing: Sequence[str] = ()) -> list[PolicyRank]:
    """Ranks of policies, most money first. `runs`: of every policy, one seed for each draw, the same for all; no nudge
    is among them. `knowing`: those that know the truth.
    """
    gains = {one.policy: one.per_user for one in runs}  # (D,) each
    able = np.array([gain for policy, gain in gains.items() if policy not in knowing])
    top = able.max(axis=0)
    ties = (able == top).sum(axis=0)
    found = []
    for policy, gain in gains.items():
        low, high = np.quantile(gain, [(1.0 - LEVEL) / 2.0, (1.0 + LEVEL) / 2.0])
        best = None if policy in knowing else float(((gain == top) / ties).mean())
        regret = float(np.maximum(top - gain, 0.0).mean())
        found.append(
            PolicyRank(policy, float(gain.mean()), float(low), float(high), best, float((gain < 0.0).mean()), regret)
        )
    return sorted(found, key=lambda one: -one.gain)
