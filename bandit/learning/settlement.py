"""Learning: matured decisions → settlements → belief. Pure; the store makes it durable, exactly once.

The sums are order-free by construction (see `belief`): any batching, any crash, a rebuild from the ledger end in the
same bits. Sites of a logistic policy depend on what was learned before them; they are recorded once and for all.
"""

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from bandit.arrays import Array
from bandit.belief import Belief, empty, sites, stack, weighted
from bandit.catalogue.model import Stage
from bandit.learning import rewards
from bandit.learning.recoding import recoded
from bandit.policies import hurdle
from bandit.records import MaturedDecision, Settlement
from bandit.snapshot import Snapshot


def settle(spec: Stage, matured: Sequence[MaturedDecision], now: int, *, live: Snapshot) -> list[Settlement]:
    """The final reward of each matured decision of one stage, by the rules it was made under (`spec`), and where it is
    learned its site (τ, ν), by the policy that learns it: that of `live`. `now` in µs is when they are settled. Raises
    nothing for decisions that the ledger admitted; the order of `matured` is that of the result.
    """
    current = spec.schema == live.stage_spec.schema
    verdicts = [
        rewards.settle(spec, m.outcomes, holdout=m.decision.holdout, current=current, deferred=m.decision.deferred)
        for m in matured
    ]
    tau, nu = np.zeros(len(matured)), np.zeros(len(matured))
    declared = live.stage_spec.arms
    known = [i for i, m in enumerate(matured) if verdicts[i].learned and spec.belief_row(m.decision.arm) in declared]
    retired = [
        i for i, m in enumerate(matured) if verdicts[i].learned and spec.belief_row(m.decision.arm) not in declared
    ]
    before = empty(len(spec.belief_rows(spec.arms)), live.belief.shift.shape[1])  # what is retired learns alone
    alone = msgspec.structs.replace(live, stage_spec=spec, belief=before, cross_stage_factor=None)
    for snapshot, rows in ((live, known), (alone, retired)):
        if rows:
            x = recoded(np.array([matured[i].decision.x for i in rows]), spec, snapshot.stage_spec)
            arm = np.array(
                [snapshot.stage_spec.arms.index(spec.belief_row(matured[i].decision.arm)) for i in rows], dtype=np.intp
            )
            reward = np.array([spec.reward.scaled(verdicts[i].reward) for i in rows])
            tau[rows], nu[rows] = snapshot.stage_spec.learner.sites(snapshot.belief, snapshot.arms, x, arm, reward)
    return [
        Settlement(
            decision_seq=m.seq,
            stage=m.decision.stage,
            arm=spec.belief_row(m.decision.arm),
            at=now,
            reward=v.reward,
            why=v.why,
            learned=v.learned,
            tau=float(tau[i]),
            nu=float(nu[i]),
        )
        for i, (m, v) in enumerate(zip(matured, verdicts, strict=True))
    ]


def settlements_from_log(live: Snapshot, x: Array, arm: Sequence[str], reward: Array) -> list[Settlement]:
    """Rows of a foreign log, x (n, d), arm (n,) and reward (n,) in its own units, as settlements that `live` learns."""
    spec = live.stage_spec
    index = np.array([spec.arms.index(a) for a in arm], dtype=np.intp)
    scaled = np.array([spec.reward.scaled(float(r)) for r in reward])
    tau, nu = spec.learner.sites(live.belief, live.arms, x, index, scaled)
    return [
        Settlement(
            decision_seq=0, stage=live.stage, arm=a, at=0, reward=float(r), why="reward", learned=True, tau=t, nu=v
        )
        for a, r, t, v in zip(arm, reward, tau.tolist(), nu.tolist(), strict=True)
    ]


def contribution(stage: Stage, settlements: Sequence[Settlement], x: Array, arms: Sequence[str] = ()) -> Belief:
    """What these settlements add to the belief: x (n, d) holds the context of each. Only learned ones count, and only
    those of `arms`: the stage's own, or all that it knows of.
    """
    index = {arm: a for a, arm in enumerate(arms or stage.arms)}
    rows = [i for i, s in enumerate(settlements) if s.learned and s.arm in index]
    learned = [settlements[i] for i in rows]
    arm = np.array([index[s.arm] for s in learned], dtype=np.intp)
    tau, nu = np.array([s.tau for s in learned]), np.array([s.nu for s in learned])
    reward = np.array([stage.reward.scaled(s.reward) for s in learned])
    return sum_sites(stage, len(index), x[rows], arm, tau, nu, reward)


def sum_sites(stage: Stage, k: int, x: Array, arm: NDArray[np.intp], tau: Array, nu: Array, reward: Array) -> Belief:
    """What n learned rows add to the sums of k arms, arm (n,) and reward (n,) in [0, 1]. Exact."""
    total = sites(k, x, arm, tau, nu, reward)
    return stack(total, _amounts(k, x, arm, reward)) if stage.hurdle else total


def _amounts(k: int, x: Array, arm: NDArray[np.intp], reward: Array) -> Belief:
    """How much, over those who bought: exact sites of levels."""
    bought = np.flatnonzero(reward > 0.0)
    level = hurdle.level(reward[bought])
    return sites(k, x[bought], arm[bought], np.ones(len(bought)), level, level)


def weighted_contribution(
    stage: Stage, x: Array, arm: NDArray[np.intp], tau: Array, nu: Array, reward: Array, weight: Array
) -> Belief:
    """What rows add that count in part, weight (n,): not exact, never stored."""
    k = len(stage.arms)
    total = weighted(k, x, arm, tau, nu, reward, weight)
    if not stage.hurdle:
        return total
    bought, level = np.flatnonzero(reward > 0.0), hurdle.level(reward)
    w = weight[bought]
    return stack(total, weighted(k, x[bought], arm[bought], w, w * level[bought], level[bought], w))
