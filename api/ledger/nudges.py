"""What settled decisions of a ledger found of their persons' past: the recent nudges from which the price of a nudge is
learned. A function of the decisions recorded before each, so that a rebuild and a receipt find the same.
"""

from collections.abc import Sequence

import numpy as np

from api.stores.decision_log import EarlierDecision
from api.stores.protocol import Store
from bandit.guardrails import NO_CONSENT
from bandit.learning.loss import day_of
from bandit.learning.nudge_price import MOST_EARLIER, EarlierDecisions, RecentNudges, recent
from bandit.learning.statistics import PastNudges
from bandit.records import Decision, Settlement


def past(store: Store) -> PastNudges:
    """Function that finds the past of settled decisions of this ledger. Called by the learner for each batch that
    settles, and by rebuilds.
    """
    return lambda settled: _past(store, settled)


def _past(store: Store, settled: Sequence[tuple[Decision, Settlement]]) -> RecentNudges:
    specs, n = store.specs(), len(settled)
    found = store.earlier_decisions([(d.user, done.decision_seq) for d, done in settled], MOST_EARLIER)
    shape = n, max(map(len, found), default=0)
    earlier = EarlierDecisions(
        at=np.zeros(shape, dtype=np.int64),
        nudge=np.zeros(shape, dtype=bool),
        propensity=np.zeros(shape),
        opted_out=np.zeros(shape, dtype=bool),  # only what is known at once tells who stays away
        there=np.zeros(shape, dtype=bool),
    )
    for i, mine in enumerate(found):
        if not mine:
            continue
        m = len(mine)
        earlier.at[i, :m] = [one.at for one in mine]
        earlier.nudge[i, :m] = [one.nudge for one in mine]
        earlier.propensity[i, :m] = [one.propensity for one in mine]
        earlier.there[i, :m] = True
    windows = [(d.stage_digest, d.expires - d.at) for d, _ in settled]
    long = {window: day_of(specs[window[0]], window[1]) for window in set(windows)}
    days = np.array([long[window] for window in windows])
    opted_out = np.array([_opted_out(d, mine) for (d, _), mine in zip(settled, found, strict=True)], dtype=bool)
    at = np.array([d.at for d, _ in settled], dtype=np.int64)
    return recent(at, earlier, opted_out, np.zeros(n, dtype=bool), days)


def _opted_out(decision: Decision, earlier: Sequence[EarlierDecision]) -> bool:
    """Whether nudges are refused for want of a consent that the person's decision before, newest first, still had,
    after a nudge.
    """
    if not earlier or earlier[0].refused or not any(one.nudge for one in earlier):
        return False
    return any(reason.startswith(NO_CONSENT) for reason in decision.excluded.values())
