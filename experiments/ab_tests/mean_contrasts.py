"""Contrasts of means: Student's interval of a difference (Welch 1947), Fieller's interval of a ratio (Fieller 1954),
and Holm's correction of p-values (Holm 1979).

Estimates of two arms come with their variances and covariance, so that the same formulae serve plain means, which are
independent, and means that were adjusted by covariates, which are not quite.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import special

from experiments.inference.intervals import LEVEL, Interval


class PairedEstimates(NamedTuple):
    """Estimated means of an arm and of the control, in the unit of the outcome, with their variances, covariance, and
    the degrees of freedom of Student's law; `n` is that of the smaller arm.
    """

    arm: float
    control: float
    arm_variance: float
    control_variance: float
    covariance: float
    freedom: float
    n: int

    @property
    def error(self) -> float:
        """Standard error of arm − control."""
        variance = self.arm_variance + self.control_variance - 2.0 * self.covariance
        return float(np.sqrt(max(variance, 0.0)))

    def moved(self, scale: float, arm: float, control: float) -> "PairedEstimates":
        """The estimates times `scale`, plus an amount for each arm."""
        square = scale * scale
        return self._replace(
            arm=scale * self.arm + arm,
            control=scale * self.control + control,
            arm_variance=square * self.arm_variance,
            control_variance=square * self.control_variance,
            covariance=square * self.covariance,
        )


def welch(means: tuple[float, float], variances: tuple[float, float], n: tuple[float, float]) -> PairedEstimates:
    """Estimates of two independent means, (arm, control), from sample variances and numbers of people, at least 2 each:
    Welch's degrees of freedom.
    """
    v, w = variances[0] / n[0], variances[1] / n[1]
    below = v * v / (n[0] - 1.0) + w * w / (n[1] - 1.0)
    freedom = (v + w) ** 2 / below if below > 0.0 else min(n) - 1.0
    return PairedEstimates(*means, v, w, 0.0, freedom, int(min(n)))


def p_value(found: PairedEstimates) -> float:
    """Two-sided p of "no difference"; NaN where nothing varies."""
    if found.error == 0.0:
        return float("nan")
    return float(2.0 * special.stdtr(found.freedom, -abs(found.arm - found.control) / found.error))


def difference(found: PairedEstimates, level: float = LEVEL) -> Interval:
    """Interval of arm − control. Unbounded where nothing varies: nothing says then how sure the difference is."""
    d, error = found.arm - found.control, found.error
    if error == 0.0:
        return Interval(d, -np.inf, np.inf, found.n)
    half = float(special.stdtrit(found.freedom, 0.5 + level / 2)) * error
    return Interval(d, d - half, d + half, found.n)


def ratio(found: PairedEstimates, level: float = LEVEL) -> Interval | None:
    """Fieller's interval of arm / control: the ratios ρ at which arm − ρ·control is not distinguishable from 0. None
    unless the control's own interval is above 0: the set has no end then, or a percentage no meaning.
    """
    t = float(special.stdtrit(found.freedom, 0.5 + level / 2))
    square = t * t
    a = found.control**2 - square * found.control_variance
    if found.control <= 0.0 or a <= 0.0 or found.error == 0.0:
        return None
    b = found.arm * found.control - square * found.covariance
    c = found.arm**2 - square * found.arm_variance
    root = float(np.sqrt(max(b * b - a * c, 0.0)))
    return Interval(found.arm / found.control, (b - root) / a, (b + root) / a, found.n)


def holm(p: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the given order: comparing each with α errs once or more in the whole family with a
    chance of at most α. A p that is not known (NaN) stays so and counts in the family.
    """
    known = sorted((i for i, value in enumerate(p) if np.isfinite(value)), key=lambda i: p[i])
    found, most = [float("nan")] * len(p), 0.0
    for place, i in enumerate(known):
        most = max(most, min((len(p) - place) * p[i], 1.0))
        found[i] = most
    return found
