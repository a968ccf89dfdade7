"""Intervals for what a run reports, at a sample size that was fixed beforehand."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

LEVEL = 0.95


class Interval(NamedTuple):
    """An estimate from n observations, and the bounds that cover its truth in 95 % of repetitions."""

    value: float
    low: float
    high: float
    n: int


def rate(successes: float, n: int) -> Interval:
    """Wilson's score interval of a share (Wilson 1927). With n = 0: NaN within [0, 1]."""
    if n == 0:
        return Interval(float("nan"), 0.0, 1.0, 0)
    interval = stats.binomtest(round(successes), n).proportion_ci(LEVEL, method="wilson")
    return Interval(successes / n, float(interval.low), float(interval.high), n)


def mean(values: NDArray[np.float64]) -> Interval:
    """Student's interval of a mean. With fewer than two values: unbounded."""
    n = len(values)
    if n < 2:
        return Interval(float(values.mean()) if n else float("nan"), -np.inf, np.inf, n)
    centre = float(values.mean())
    half = float(stats.t.ppf(0.5 + LEVEL / 2, n - 1)) * float(values.std(ddof=1)) / np.sqrt(n)
    return Interval(centre, centre - half, centre + half, n)


def difference(left: Interval, right: Interval) -> Interval:
    """left − right of independent estimates: MOVER, each side keeps its own shape (Newcombe 1998, method 10)."""
    d = left.value - right.value
    low = d - float(np.hypot(left.value - left.low, right.high - right.value))
    high = d + float(np.hypot(left.high - left.value, right.value - right.low))
    return Interval(d, low, high, min(left.n, right.n))
