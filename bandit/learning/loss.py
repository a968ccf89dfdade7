"""Loss accounting: a prepared policy with the account of what learning may have cost, before it is published."""

import msgspec
import numpy as np

from bandit.engine import PreparedPolicy
from bandit.loss_account import DAY, FIRST, Exposures, ExposureSums, LossAccount, account
from bandit.policies import Centred


def accounted(
    live: PreparedPolicy, sums: ExposureSums, recent: Exposures | None, now: int, day: float = DAY
) -> PreparedPolicy:
    """Prepared policy whose snapshot carries its loss account at time `now` (µs). `sums`: all decisions of the stage;
    `recent`: the newest of them, None before any. `day`: µs in a day of the app's clock.
    """
    snapshot = live.snapshot
    stage, declared = snapshot.stage_spec, snapshot.stage_spec.loss_share
    if declared is None or not isinstance(stage.policy, Centred):
        return live
    if recent is None:
        found = LossAccount(share=FIRST, budget=0.0, gain=0.0, sd=0.0, room=0.0, daily=0.0)
    else:
        ahead = live.posterior.choose_many(recent.x, recent.eligible)
        asked = recent._replace(propensity=ahead.propensity, baseline=np.asarray(ahead.mean[:, 0]))
        found = account(stage.policy, snapshot.arms, snapshot.evidence, sums, asked, declared, now, day)
    return live._replace(snapshot=msgspec.structs.replace(snapshot, loss_account=found))
