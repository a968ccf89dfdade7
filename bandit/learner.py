"""Learning: matured decisions → settlements → belief. Pure; the store makes it durable, exactly once.

Order-free by construction (see `belief`): any batching, any crash, a rebuild from the ledger end in the same bits.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bandit import rewards
from bandit.belief import Belief, sites
from bandit.catalogue import Stage
from bandit.records import Matured, Settlement

Array = NDArray[np.float64]


def settle(stage: Stage, matured: Sequence[Matured], now: int) -> list[Settlement]:
    """The final reward of each matured decision of one stage and, where it is learned, its site (τ, ν)."""
    verdicts = [rewards.settle(stage, m.outcomes, holdout=m.decision.holdout) for m in matured]
    tau, nu = stage.policy.sites(
        np.array([m.decision.x for m in matured]),
        np.array([stage.reward.scaled(v.reward) for v in verdicts]),
    )
    return [
        Settlement(
            decision_seq=m.seq,
            stage=m.decision.stage,
            arm=m.decision.arm,
            at=now,
            reward=v.reward,
            why=v.why,
            learned=v.learned,
            tau=float(tau[i]) if v.learned else 0.0,
            nu=float(nu[i]) if v.learned else 0.0,
        )
        for i, (m, v) in enumerate(zip(matured, verdicts, strict=True))
    ]


def contribution(stage: Stage, settlements: Sequence[Settlement], x: Array) -> Belief:
    """What these settlements add to the belief: x (n, d) holds the context of each. Only learned ones count, and only
    those of arms that the stage still declares.
    """
    index = {arm: a for a, arm in enumerate(stage.arms)}
    rows = [i for i, s in enumerate(settlements) if s.learned and s.arm in index]
    learned = [settlements[i] for i in rows]
    return sites(
        len(stage.arms),
        x[rows],
        np.array([index[s.arm] for s in learned], dtype=np.intp),
        np.array([s.tau for s in learned]),
        np.array([s.nu for s in learned]),
        np.array([stage.reward.scaled(s.reward) for s in learned]),
    )
