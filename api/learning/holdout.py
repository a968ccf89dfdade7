"""Audit by the holdout from a ledger: what people brought at a stage in all, with nudges and without."""

import numpy as np

from api.ledger.statistics_store import key_of
from api.stores.protocol import Store
from bandit.catalogue.model import Stage
from bandit.catalogue.net_value import arm_worth
from bandit.learning.holdout_audit import HoldoutAudit, PersonTotals, audit


def audit_of(store: Store, name: str, stage: Stage) -> HoldoutAudit | None:
    """Audit of a stage from its settlements, None where it has no holdout. Costs are those declared now; a nudge that
    is not declared any more costs nothing. Decisions count that were made while the holdout had the share that it has
    now: people who changed groups would be counted in both, and a group that has grown has newer people. Reads the
    ledger, in any thread, in time proportional to it.
    """
    if not stage.holdout:
        return None
    worth, arms = arm_worth(stage.reward.value, stage.nudges.values()), {arm: a for a, arm in enumerate(stage.arms)}
    brought: dict[tuple[bool, bytes], float] = {}
    for one in store.person_rewards(key_of(name, stage), stage.holdout):
        a = arms.get(one.arm, 0)
        net = float(worth.gain[a]) * one.reward - float(worth.cost[a]) * one.decisions
        brought[one.holdout, one.user] = brought.get((one.holdout, one.user), 0.0) + net
    groups = (PersonTotals.of(np.array([v for (held, _), v in brought.items() if held is g])) for g in (False, True))
    return audit(*groups)
