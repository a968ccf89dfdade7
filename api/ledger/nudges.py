"""What settled decisions of a ledger found of their persons' past: the recent nudges from which the price of a nudge is
learned. A function of the decisions recorded before each, so that a rebuild and a receipt find the same.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from api.stores.decision_log import EarlierDecision
from api.stores.protocol import Store
from bandit.arrays import Mask
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
    many = np.array([len(mine) for mine in found], dtype=np.intp)
    there = np.arange(max(many.tolist(), default=0)) < many[:, None]
    times, nudge, propensity, _ = zip(*chain.from_iterable(found), strict=True) if there.any() else ((),) * 4
    earlier = EarlierDecisions(
        at=_filled(there, times, np.dtype(np.int64)),
        nudge=_filled(there, nudge, np.dtype(bool)),
        propensity=_filled(there, propensity, np.dtype(np.float64)),
        opted_out=np.zeros_like(there),  # only what is known at once tells who stays away
        there=there,
    )
    windows = [(d.stage_digest, d.expires - d.at) for d, _ in settled]
    long = {window: day_of(specs[window[0]], window[1]) for window in set(windows)}
    days = np.array([long[window] for window in windows])
    opted_out = np.array([_opted_out(d, mine) for (d, _), mine in zip(settled, found, strict=True)], dtype=bool)
    at = np.array([d.at for d, _ in settled], dtype=np.int64)
    return recent(at, earlier, opted_out, np.zeros(n, dtype=bool), days)


def _filled(there: Mask, values: Sequence[float], kind: np.dtype[Any]) -> NDArray[Any]:
    """Table of zeros with the values, in order, where something is there, row by row."""
    table = np.zeros(there.shape, dtype=kind)
    table[there] = values
    return table


def _opted_out(decision: Decision, earlier: Sequence[EarlierDecision]) -> bool:
    """Whether nudges are refused for want of a consent that the person's decision before, newest first, still had,
    after a nudge.
    """
    if not earlier or earlier[0].refused or not any(one.nudge for one in earlier):
        return False
    return any(reason.startswith(NO_CONSENT) for reason in decision.excluded.values())
