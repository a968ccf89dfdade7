"""Contender: the interface of a policy that is not one of the service's, such as a library's bandit or Python code of
one's own.

Contenders meet the same people as the service's policies, with the same eligible arms, holdout, delays and money. They
learn a decision when its attribution window has closed, because most cannot take a reward back: where windows are
longer than the run they learn nothing.

Shapes: n decisions, k arms, d columns of x.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from bandit.arrays import Array, Mask
from bandit.policies.protocol import ArmEconomics

Actions = NDArray[np.intp]


class DecisionStage(NamedTuple):
    """What a contender is told of one stage: `name`; `arms`, the economics of its k arms, no nudge first, in units of
    the reward's range; how many columns x has (`columns`), and the attribution window in seconds (`window`).
    """

    name: str
    arms: ArmEconomics
    columns: int
    window: float


@runtime_checkable
class Contender(Protocol):
    """Contender in one run: it chooses arms and learns from rewards. It is mutable, and belongs to one run.

    Guarantees of the simulator: no nudge (arm 0) is always eligible; people in the holdout are not asked about; every
    decision that was asked about is learned once at most, stage by stage, in the order of asking.
    """

    def decide(self, stage: int, x: Array, eligible: Mask) -> Array | Actions:
        """Arms (n,) for n people at stage number `stage`, or the probability of each arm (n, k), from which the
        simulator draws: x (n, d) as `bandit.features` encodes it, eligible (n, k).
        """
        ...

    def learn(self, stage: int, x: Array, arm: Actions, reward: Array) -> None:
        """Learn the final rewards of n decisions at a stage: x (n, d), arm (n,), reward (n,) on [0, 1] of the reward's
        range. What a reward is worth net of costs is `gain[arm] · reward − cost[arm]` of the stage's `arms`.
        """
        ...


MakeContender = Callable[[tuple[DecisionStage, ...], int], Contender]
"""Makes the contender of one run, from the stages in their order and the seed of the run."""


def utility(arms: ArmEconomics, arm: Actions, reward: Array) -> Array:
    """Utility (n,) of rewards (n,) on [0, 1] that arms (n,) brought: net of costs, in units of the reward's range."""
    return np.asarray(arms.gain[arm] * reward - arms.cost[arm], dtype=np.float64)
