"""SLOPE: choosing a threshold from the log itself (Su, Srinath & Krishnamurthy 2020), for foreign logs without floors.

The thresholds of `GRID` run from no bias and a wide interval (∞) to much bias and a narrow one. The last one is chosen
whose estimate still agrees with all before it: |θ_i − θ_j| ≤ c_i + (√6 − 1) c_j for every j < i, with c the half-width.
Widths are made monotone first. With a floor under the logged propensities it tends to pick the biased end at small n:
it is an option, not the default.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from experiments import ope
from experiments.inference import LEVEL, Moments, interval
from experiments.ope import Weighed

Array = NDArray[np.float64]

GRID = (np.inf, 10_000.0, 5_000.0, 1_000.0, 500.0, 100.0, 50.0, 10.0)
FAMILIES = ("clipped", "clipped_dr", "switch_dr", "dros")


class Chosen(NamedTuple):
    """The threshold of a family and the moments of its φ."""

    threshold: float
    moments: Moments


class Ladder(NamedTuple):
    """The moments of every family's φ at every threshold. Merges by `merged`."""

    rungs: dict[str, tuple[Moments, ...]]

    @classmethod
    def of(cls, rounds: Weighed) -> "Ladder":
        """Of n rounds. Without a model of rewards: of `clipped` only."""
        return cls({family: tuple(Moments.of(_phi(family, rounds, t)) for t in GRID) for family in _families(rounds)})

    def merged(self, other: "Ladder") -> "Ladder":
        """Of both parts of a log."""
        pairs = {f: zip(rungs, other.rungs[f], strict=True) for f, rungs in self.rungs.items() if f in other.rungs}
        return Ladder({family: tuple(a + b for a, b in both) for family, both in pairs.items()})

    def chosen(self, level: float = LEVEL) -> dict[str, Chosen]:
        """The choice in each family."""
        return {family: select(rungs, level) for family, rungs in self.rungs.items()}


def select(rungs: tuple[Moments, ...], level: float = LEVEL) -> Chosen:
    """The choice among the moments of one family, in the order of `GRID`."""
    value = np.array([m.mean for m in rungs])
    ends = [interval(m, level) for m in rungs]
    half = np.minimum.accumulate([(i.high - i.low) / 2.0 for i in ends])
    best = 0
    for i in range(1, len(rungs)):
        if (np.abs(value[i] - value[:i]) > half[i] + (np.sqrt(6.0) - 1.0) * half[:i]).any():
            break
        best = i
    return Chosen(GRID[best], rungs[best])


def _families(rounds: Weighed) -> tuple[str, ...]:
    return FAMILIES[:1] if rounds.q is None else FAMILIES


def _phi(family: str, rounds: Weighed, threshold: float) -> Array:
    r, w, q, model = rounds
    if family == "clipped" or q is None or model is None:
        return ope.clipped(r, w, threshold)
    if family == "clipped_dr":
        return ope.clipped_dr(r, w, q, model, threshold)
    return ope.switch_dr(r, w, q, model, threshold) if family == "switch_dr" else ope.dros(r, w, q, model, threshold)
