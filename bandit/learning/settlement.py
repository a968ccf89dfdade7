"""Learning: matured decisions → settlements → belief. Pure; the store makes it durable, exactly once.

The sums are order-free by construction (see `belief`): any batching, any crash, a rebuild from the ledger end in the
same bits. Sites of a logistic policy depend on what was learned before them; they are recorded once and for all.
"""

from collections.abc import Sequence

import msgspec
import numpy as np

from bandit.arrays import Array
from bandit.belief import Belief, empty
from bandit.catalogue.model import Stage
from bandit.learning import rewards
from bandit.learning.recoding import recoded
from bandit.learning.rewards import SettledReward
from bandit.records import Decision, MaturedDecision, Settlement
from bandit.snapshot import Snapshot


def settle(spec: Stage, matured: Sequence[MaturedDecision], now: int, *, live: Snapshot) -> list[Settlement]:
    """The final reward of each matured decision of one stage, by the rules it was made under (`spec`), and where it is
    learned its site (τ, ν), by the policy that learns it: that of `live`. `now` in µs is when they are settled. Raises
    nothing for decisions that the ledger admitted; the order of `matured` is that of the result.
    """
    verdicts = _verdicts(spec, matured, current=spec.schema == live.stage_spec.schema)
    tau, nu = np.zeros(len(matured)), np.zeros(len(matured))
    declared, shown = live.stage_spec.arms, [spec.belief_row(m.decision.arm) for m in matured]
    known = [i for i, arm in enumerate(shown) if verdicts[i].learned and arm in declared]
    retired = [i for i, arm in enumerate(shown) if verdicts[i].learned and arm not in declared]
    before = empty(len(spec.belief_rows(spec.arms)), live.belief.shift.shape[1])  # what is retired learns alone
    alone = msgspec.structs.replace(live, stage_spec=spec, belief=before, cross_stage_factor=None)
    for snapshot, rows in ((live, known), (alone, retired)):
        if rows:
            now_declared, made = snapshot.stage_spec, [matured[i].decision for i in rows]
            x = recoded(np.array([d.x for d in made]), spec, now_declared)
            arm = np.array([now_declared.arms.index(shown[i]) for i in rows], dtype=np.intp)
            p = propensities(made, spec.arms, now_declared.arms)
            reward = spec.reward.all_scaled([verdicts[i].reward for i in rows])
            learner = now_declared.learner
            x = learner.design(x, arm, p)
            tau[rows], nu[rows] = learner.sites(snapshot.belief, snapshot.arms, x, arm, reward)
    return [
        Settlement(
            decision_seq=m.seq,
            stage=m.decision.stage,
            arm=shown[i],
            at=now,
            reward=v.reward,
            why=v.why,
            learned=v.learned,
            tau=float(tau[i]),
            nu=float(nu[i]),
            corrects=m.settled.first if m.settled else 0,
            outcomes=len(m.outcomes),
        )
        for i, (m, v) in enumerate(zip(matured, verdicts, strict=True))
    ]


def _verdicts(spec: Stage, matured: Sequence[MaturedDecision], *, current: bool) -> list[SettledReward]:
    """Final reward of each; that of decisions of which nothing was reported once for all that are alike."""
    found, silent = list[SettledReward](), dict[tuple[bool, bool, bool], SettledReward]()
    for m in matured:
        like = m.decision.holdout, m.decision.deferred, not m.decision.contribution
        verdict = None if m.outcomes else silent.get(like)
        if verdict is None:
            holdout, deferred, over_limit = like
            verdict = rewards.settle(
                spec, m.outcomes, holdout=holdout, current=current, deferred=deferred, over_limit=over_limit
            )
            if not m.outcomes:
                silent[like] = verdict
        found.append(verdict)
    return found


def propensities(made: Sequence[Decision], declared: tuple[str, ...], arms: tuple[str, ...]) -> Array:
    """Recorded propensities (n, k) of decisions made under the arms `declared`, over `arms`: an arm that was not
    declared then has 0. Zeros where actions come with the request: the one row of such a belief has no propensity.
    """
    p = np.zeros((len(made), len(arms)))
    if any(d.actions for d in made):
        return p
    place = {arm: a for a, arm in enumerate(declared)}
    recorded = np.array([d.propensity for d in made]).reshape(len(made), len(declared))
    for a, arm in enumerate(arms):
        if arm in place:
            p[:, a] = recorded[:, place[arm]]
    return p


def design_of_log(stage: Stage, x: Array, arm: Sequence[str]) -> Array:
    """Design (n, D) of a foreign log, x (n, d) and arm (n,): where the policy needs propensities, how often each arm
    occurs in the log stands for them.
    """
    index = np.array([stage.arms.index(a) for a in arm], dtype=np.intp)
    often = np.bincount(index, minlength=len(stage.arms)) / max(len(index), 1)
    return stage.learner.design(x, index, np.tile(often, (len(index), 1)))


def settlements_from_log(live: Snapshot, x: Array, arm: Sequence[str], reward: Array) -> list[Settlement]:
    """Rows of a foreign log, x (n, D) as `design_of_log` made it, arm (n,) and reward (n,) in its own units, as
    settlements that `live` learns.
    """
    spec = live.stage_spec
    index = np.array([spec.arms.index(a) for a in arm], dtype=np.intp)
    scaled = spec.reward.all_scaled(reward.tolist())
    tau, nu = spec.learner.sites(live.belief, live.arms, x, index, scaled)
    return [
        Settlement(
            decision_seq=0, stage=live.stage, arm=a, at=0, reward=float(r), why="reward", learned=True, tau=t, nu=v
        )
        for a, r, t, v in zip(arm, reward, tau.tolist(), nu.tolist(), strict=True)
    ]


def contribution(stage: Stage, settlements: Sequence[Settlement], x: Array, arms: Sequence[str] = ()) -> Belief:
    """What these settlements add to the belief: x (n, D) holds the design of each. Only learned ones count, and only
    those of `arms`: the stage's own, or all that it knows of.
    """
    index = {arm: a for a, arm in enumerate(arms or stage.arms)}
    rows = [i for i, s in enumerate(settlements) if s.learned and s.arm in index]
    learned = [settlements[i] for i in rows]
    arm = np.array([index[s.arm] for s in learned], dtype=np.intp)
    tau, nu = np.array([s.tau for s in learned]), np.array([s.nu for s in learned])
    reward = stage.reward.all_scaled([s.reward for s in learned])
    return stage.learner.sums(len(index), x[rows], arm, tau, nu, reward)
