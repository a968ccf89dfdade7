"""Array types, and logged decisions as arrays: what learning, evaluation and simulation hand to each other.

`Array` is float64, `Ints` int64, `Mask` bool. Shapes: n decisions in the order they were made, k arms in the stage's
order (no nudge first).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


class LoggedDecisions(NamedTuple):
    """Logged decisions of one policy at one stage, column by column. `arms` names the k arms; `reward` is in its own
    units, NaN where it is not known.
    """

    arms: tuple[str, ...]
    arm: NDArray[np.intp]  # (n,) drawn
    propensities: Array  # (n, k), 0 where not eligible
    reward: Array  # (n,)
    holdout: Mask  # (n,) control group: not decided by the policy

    @property
    def propensity(self) -> Array:
        """Propensities (n,) of the drawn arms, in (0, 1]."""
        return self.propensities[np.arange(len(self.arm)), self.arm]

    @property
    def eligible(self) -> Mask:
        """Eligibility mask (n, k): True where an arm could be drawn."""
        return self.propensities > 0.0

    def only(self, rows: Mask) -> "LoggedDecisions":
        """Logged decisions where `rows` (n,) is True, in the same order."""
        return LoggedDecisions(
            self.arms, self.arm[rows], self.propensities[rows], self.reward[rows], self.holdout[rows]
        )
