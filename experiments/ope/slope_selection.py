"""SLOPE: choosing a threshold from the log itself (Su, Srinath & Krishnamurthy 2020), for foreign logs without floors.

The thresholds of `GRID` run from no bias and a wide interval (∞) to much bias and a narrow one. The last one is chosen
whose estimate still agrees with all before it: |θ_i − θ_j| ≤ c_i + (√6 − 1) c_j for every j < i, with c the half-width.
Widths are made monotone first. With a floor under the logged propensities it tends to pick the biased end at small n:
it is an option, not the default.
"""

from typing import NamedTuple

import numpy as np

from bandit.arrays import Array
from experiments.inference.intervals import LEVEL, Moments, interval
from experiments.ope import estimators
from experiments.ope.estimators import WeightedRounds

GRID = (np.inf, 10_000.0, 5_000.0, 1_000.0, 500.0, 100.0, 50.0, 10.0)
FAMILIES = ("clipped", "clipped_dr", "switch_dr", "dros")


class SelectedThreshold(NamedTuple):
    """The threshold (a weight; λ for dros) that SLOPE chose for one family of estimators, and the moments of φ at
    it.
    """

    threshold: float
    moments: Moments


class ThresholdLadder(NamedTuple):
    """Moments of φ at every threshold of `GRID`, for every family of estimators: {family: moments in the order of
    GRID}. Made for each part of a log if `EvaluationConfig.slope` is set; parts merge by `merged`.
    """

    rungs: dict[str, tuple[Moments, ...]]  # family → moments, in the order of GRID

    @classmethod
    def of(cls, rounds: WeightedRounds) -> "ThresholdLadder":
        """The moments of n rounds. Without a model of rewards: of the family `clipped` only."""
        return cls({family: tuple(Moments.of(_phi(family, rounds, t)) for t in GRID) for family in _families(rounds)})

    def merged(self, other: "ThresholdLadder") -> "ThresholdLadder":
        """The moments over both parts of a log, of the families that both parts have."""
        pairs = {f: zip(rungs, other.rungs[f], strict=True) for f, rungs in self.rungs.items() if f in other.rungs}
        return ThresholdLadder({family: tuple(a + b for a, b in both) for family, both in pairs.items()})

    def chosen(self, level: float = LEVEL) -> dict[str, SelectedThreshold]:
        """{family: chosen threshold}. `level`: of the intervals whose half-widths SLOPE compares."""
        return {family: select(rungs, level) for family, rungs in self.rungs.items()}


def select(rungs: tuple[Moments, ...], level: float = LEVEL) -> SelectedThreshold:
    """SLOPE's choice among the moments of one family, `rungs` in the order of `GRID`; the first rung, without a
    threshold, if no other agrees with it.
    """
    value = np.array([m.mean for m in rungs])
    ends = [interval(m, level) for m in rungs]
    half = np.minimum.accumulate([(i.high - i.low) / 2.0 for i in ends])
    best = 0
    for i in range(1, len(rungs)):
        if (np.abs(value[i] - value[:i]) > half[i] + (np.sqrt(6.0) - 1.0) * half[:i]).any():
            break
        best = i
    return SelectedThreshold(GRID[best], rungs[best])


def _families(rounds: WeightedRounds) -> tuple[str, ...]:
    return FAMILIES[:1] if rounds.q is None else FAMILIES


def _phi(family: str, rounds: WeightedRounds, threshold: float) -> Array:
    r, w, q, model = rounds
    if family == "clipped" or q is None or model is None:
        return estimators.clipped(r, w, threshold)
    if family == "clipped_dr":
        return estimators.clipped_dr(r, w, q, model, threshold)
    return (
        estimators.switch_dr(r, w, q, model, threshold)
        if family == "switch_dr"
        else estimators.dros(r, w, q, model, threshold)
    )
