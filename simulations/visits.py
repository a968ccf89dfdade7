"""Types of n visits: the persona of each person, and the situation that each visit finds.

Arrays are (n,), a row for each person. Populations turn them into rewards, dynamics moves them on from visit to visit.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bandit.arrays import Array

Kinds = NDArray[np.intp]  # (n,) persona of each person


class VisitSituation(NamedTuple):
    """The situation that n visits find. `day`: days since launch; the rest (n,): `fatigue` F, `trained` T of harvesters
    in [0, 1], `pulled` logits that were brought forward.
    """

    day: float
    fatigue: Array
    trained: Array
    pulled: Array

    @staticmethod
    def first(n: int) -> "VisitSituation":
        """The situation of n people who were never here, on the first day: everything is 0."""
        return VisitSituation(0.0, np.zeros(n), np.zeros(n), np.zeros(n))

    def at(self, rows: NDArray[np.intp] | NDArray[np.bool_] | slice) -> "VisitSituation":
        """The situation of some of the people, by numbers, a mask (n,) or a slice."""
        return VisitSituation(self.day, self.fatigue[rows], self.trained[rows], self.pulled[rows])
