"""Learning: matured decisions → settlements → belief. Pure; the store makes it durable, exactly once.

The sums are order-free by construction (see `belief`): any batching, any crash, a rebuild from the ledger end in the
same bits. Sites of a logistic policy depend on what was learned before them; they are recorded once and for all.
"""

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from bandit import rewards
from bandit.belief import Belief, empty, sites
from bandit.catalogue import Stage
from bandit.records import Matured, Settlement
from bandit.snapshot import Snapshot

Array = NDArray[np.float64]


def settle(spec: Stage, matured: Sequence[Matured], now: int, *, live: Snapshot) -> list[Settlement]:
    """The final reward of each matured decision of one stage, by the rules it was made under (`spec`), and where it is
    learned its site (τ, ν), by the policy that learns it: that of `live`.
    """
    current = spec.schema == live.spec.schema
    verdicts = [rewards.settle(spec, m.outcomes, holdout=m.decision.holdout, current=current) for m in matured]
    tau, nu = np.zeros(len(matured)), np.zeros(len(matured))
    declared = live.spec.arms
    known = [i for i, m in enumerate(matured) if verdicts[i].learned and m.decision.arm in declared]
    retired = [i for i, m in enumerate(matured) if verdicts[i].learned and m.decision.arm not in declared]
    before = empty(len(spec.arms), live.belief.shift.shape[1])  # a retired arm's site waits for the arm to come back
    alone = msgspec.structs.replace(live, spec=spec, belief=before, elsewhere=None)
    for snapshot, rows in ((live, known), (alone, retired)):
        if rows:
            x = np.array([matured[i].decision.x for i in rows])
            arm = np.array([snapshot.spec.arms.index(matured[i].decision.arm) for i in rows], dtype=np.intp)
            reward = np.array([spec.reward.scaled(verdicts[i].reward) for i in rows])
            tau[rows], nu[rows] = snapshot.spec.learner.sites(snapshot.belief, snapshot.arms, x, arm, reward)
    return [
        Settlement(
            decision_seq=m.seq,
            stage=m.decision.stage,
            arm=m.decision.arm,
            at=now,
            reward=v.reward,
            why=v.why,
            learned=v.learned,
            tau=float(tau[i]),
            nu=float(nu[i]),
        )
        for i, (m, v) in enumerate(zip(matured, verdicts, strict=True))
    ]


def contribution(stage: Stage, settlements: Sequence[Settlement], x: Array, arms: Sequence[str] = ()) -> Belief:
    """What these settlements add to the belief: x (n, d) holds the context of each. Only learned ones count, and only
    those of `arms`: the stage's own, or all that it knows of.
    """
    index = {arm: a for a, arm in enumerate(arms or stage.arms)}
    rows = [i for i, s in enumerate(settlements) if s.learned and s.arm in index]
    learned = [settlements[i] for i in rows]
    return sites(
        len(index),
        x[rows],
        np.array([index[s.arm] for s in learned], dtype=np.intp),
        np.array([s.tau for s in learned]),
        np.array([s.nu for s in learned]),
        np.array([stage.reward.scaled(s.reward) for s in learned]),
    )
