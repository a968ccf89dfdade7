"""Train–test split of a randomised experiment: a policy is learned on one part, to be evaluated on the other.

The training part is chosen at random and never evaluated on. The best fixed arm that the learned policy is compared
with is chosen there, and the model q̂ that the estimator uses is learned there: neither has seen the rounds of the
evaluation.

Shapes: n rounds of the experiment, k arms.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bandit import belief, engine
from bandit.arrays import Array
from bandit.catalogue.model import Stage
from bandit.snapshot import Snapshot
from experiments.data.rounds import LoggedRounds
from experiments.ope.evaluation_policies import EvaluationPolicy, snapshot_policy


class TrainedPolicy(NamedTuple):
    """What the training part taught: the learned policy as a snapshot, the number of the arm with the best mean reward
    (`best`), and the rounds of the test part with the q̂ of the snapshot, in units of rewards.
    """

    snapshot: Snapshot
    best: int
    rounds: LoggedRounds
    training_rounds: int  # how many rounds it was learned from

    def target(self) -> EvaluationPolicy:
        """The learned policy as an evaluation policy called "learned", for the rounds of the test part."""
        return EvaluationPolicy("learned", snapshot_policy(self.snapshot, self.snapshot.stage_spec.arms))


def learn(app: str, name: str, stage: Stage, rounds: LoggedRounds, seed: int, share: float = 0.5) -> TrainedPolicy:
    """Learn the stage's policy on a random `share` of the rounds, and keep the others for the test.

    `rounds` need x, encoded as the stage encodes it, and the propensities of every arm. `seed` decides which rounds
    teach. All of them are learned at once, which is exact only for policies whose updates do not depend on what was
    learned before.
    """
    in_training = np.random.default_rng(seed).random(len(rounds.reward)) < share
    lesson, rest = rounds.only(in_training), rounds.only(~in_training)
    snapshot = Snapshot(app, name, stage, int(in_training.sum()), _belief(stage, lesson))
    scores = engine.choose_many(
        engine.prepare(snapshot), _x(rest), np.ones((len(rest.reward), len(stage.arms)), np.bool_)
    )
    low, span = stage.reward.min, stage.reward.max - stage.reward.min
    means = [lesson.reward[lesson.action == a].mean() for a in range(len(stage.arms))]
    return TrainedPolicy(
        snapshot, int(np.argmax(means)), rest._replace(q_hat=low + span * scores.mean), int(in_training.sum())
    )


def _belief(stage: Stage, lesson: LoggedRounds) -> belief.Belief:
    """The belief after all rounds at once: exact for policies whose sites do not depend on what was learned before."""
    x, k = _x(lesson), len(stage.arms)
    reward: Array = (lesson.reward - stage.reward.min) / (stage.reward.max - stage.reward.min)
    arm: NDArray[np.intp] = lesson.action
    learner, before = stage.learner, belief.empty(len(stage.belief_rows(stage.arms)), x.shape[1])
    assert lesson.propensities is not None  # noqa: S101 - said above
    x = learner.design(x, arm, lesson.propensities)
    tau, nu = learner.sites(before, stage.arm_economics, x, arm, reward)
    return learner.sums(k, x, arm, tau, nu, reward)


def _x(rounds: LoggedRounds) -> Array:
    assert rounds.x is not None  # noqa: S101 - said above
    return rounds.x
