"""Net value: what a reward is worth in currency, less what the nudge that brought it costs.

All of evaluation and simulation computes it here; policies compute in units of the reward range (see
`Stage.arm_economics`).

Shapes: n decisions, k arms.
"""

from collections.abc import Iterable
from types import EllipsisType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bandit.arrays import Array
from bandit.catalogue.model import Nudge


class ArmWorth(NamedTuple):
    """Net worth of a reward by arm: a reward r of arm a is worth gain_a r − cost_a, in currency. `gain` is currency for
    one unit of reward, `cost` currency for one decision.
    """

    gain: Array  # (k,)
    cost: Array  # (k,)

    def net(self, reward: float | Array, arm: int | NDArray[np.intp] | EllipsisType = ...) -> Array:
        """Net value, in currency, of rewards in their own units, realised or expected.

        `reward` is (n,) with the number `arm` (n,) of each decision's arm, or one number for all; without `arm` it has
        an entry for every arm, (n, k) or (k,), or is one number. The shape is that of `reward` and `arm` together.
        """
        return np.asarray(reward * self.gain[arm] - self.cost[arm], dtype=np.float64)

    def spending(self, value: float) -> "ArmWorth":
        """What the nudges cost as a worth of its own, where one unit of reward is worth `value`: its `net` is the cost
        of showing and of what the nudge gives away of a reward.
        """
        return ArmWorth(value - self.gain, -self.cost)


def arm_worth(value: float, nudges: Iterable[Nudge]) -> ArmWorth:
    """Worth of k arms, no nudge first and then `nudges`, where one unit of reward is worth `value`, in currency.
    Prices that only steer the choice (fatigue) are no part of it.
    """
    nudges = tuple(nudges)
    gain = value - np.array([0.0, *(nudge.cost_when_rewarded for nudge in nudges)])
    return ArmWorth(gain, np.array([0.0, *(nudge.cost for nudge in nudges)]))
