"""Power of an A/B test: how many people each arm needs to find a difference, and which difference so many people find.

Each of the k − 1 arms is compared with the control at one look, two-sided, at α / (k − 1) (Bonferroni). For rates it is
the normal approximation with the pooled rate under "no difference" (Fleiss, Levin & Paik 2003, formula 4.14); for means
Student's noncentral law, with one standard deviation in all arms. Only the tail in the direction of the difference
counts.
"""

from dataclasses import dataclass

import numpy as np
from scipy import optimize, special, stats

from bandit.errors import InvalidRequest, Problem

_MOST = 1e12  # people
_EXACT = 5_000.0  # degrees of freedom up to which Student's law is told from the normal one


@dataclass(frozen=True, slots=True)
class PowerPlan:
    """Plan of a test: the control's `rate`, or its `mean` and the standard deviation `sd` of people, in the unit of the
    outcome; `arms`, the control included; `alpha`, the chance of any false alarm; `power`, the chance to find a
    difference; `share`, of all people in the control (None: as many as in every other arm; these are all alike).

    Raises InvalidRequest for a plan that is none.
    """

    rate: float | None = None
    mean: float | None = None
    sd: float | None = None
    arms: int = 2
    alpha: float = 0.05
    power: float = 0.8
    share: float | None = None

    def __post_init__(self) -> None:
        if (self.rate is None) == (self.sd is None):
            problem = "both a rate and a standard deviation" if self.rate is not None else "nothing says what varies"
            raise _refused("rate", problem, "give --rate for yes or no, or --sd (and --mean) for amounts")
        if self.rate is not None and not 0.0 < self.rate < 1.0:
            raise _refused("rate", f"{self.rate:g} is no rate", "between 0 and 1, such as .05")
        if self.sd is not None and not 0.0 < self.sd < np.inf:
            raise _refused("sd", f"{self.sd:g} is no standard deviation", "above 0")
        if self.arms < 2:
            raise _refused("arms", f"{self.arms} arms compare nothing", "2 or more, the control included")
        for name, value in (("alpha", self.alpha), ("power", self.power), ("share", self.control_share)):
            if not 0.0 < value < 1.0:
                raise _refused(name, f"{value:g} is out of range", "between 0 and 1")
        if self.power <= self.each_alpha:
            raise _refused("power", f"{self.power:g} is not above alpha", "such as .8")

    @property
    def control_share(self) -> float:
        """Share of the control, in (0, 1)."""
        return 1.0 / self.arms if self.share is None else self.share

    @property
    def arm_share(self) -> float:
        """Share of each other arm."""
        return (1.0 - self.control_share) / (self.arms - 1)

    @property
    def each_alpha(self) -> float:
        """Chance of a false alarm of each comparison."""
        return self.alpha / (self.arms - 1)

    def power_of(self, lift: float, people: float) -> float:
        """Chance to find an absolute `lift` with so many `people` in all arms together. Raises InvalidRequest for a
        lift that is none, or that leaves no rate, and for a number of people that is none.
        """
        self._check(lift)
        if not 0.0 < people < np.inf:
            raise _refused("people", f"{people:g} is no number of people", "such as 20000")
        n, m = people * self.arm_share, people * self.control_share
        if self.rate is not None:
            return self._power_of_rates(self.rate + lift, n, m)
        error = float(self.sd or 0.0) * float(np.sqrt(1.0 / n + 1.0 / m))
        freedom, moved = n + m - 2.0, abs(lift) / error
        if freedom < 1.0:
            return 0.0
        least = float(special.stdtrit(freedom, 1.0 - self.each_alpha / 2.0))
        if freedom > _EXACT:
            return float(special.ndtr(moved - least))
        return float(stats.nct.sf(least, freedom, moved))

    def _power_of_rates(self, other: float, n: float, m: float) -> float:
        rate = float(self.rate or 0.0)
        pooled = (n * other + m * rate) / (n + m)
        null = np.sqrt(pooled * (1.0 - pooled) * (1.0 / n + 1.0 / m))
        true = np.sqrt(other * (1.0 - other) / n + rate * (1.0 - rate) / m)
        z = float(special.ndtri(1.0 - self.each_alpha / 2.0))
        gap = abs(other - rate)
        return float(special.ndtr((gap - z * null) / true)) if true > 0.0 else float(gap > z * null)

    def people_for(self, lift: float) -> float:
        """People in all arms together, not rounded, with whom an absolute `lift` is found with the planned power."""
        least = 2.0 * self.arms / min(self.control_share, self.arm_share) / self.arms
        if self.power_of(lift, _MOST) < self.power:
            raise _refused("lift", f"{lift:g} is too small to be found", "a larger one")
        if self.power_of(lift, least) >= self.power:
            return least
        found = optimize.brentq(lambda x: self.power_of(lift, np.exp(x)) - self.power, np.log(least), np.log(_MOST))
        return float(np.exp(found))

    def per_arm(self, lift: float) -> tuple[int, int]:
        """People of the control and of each other arm, whole numbers, for an absolute `lift`."""
        people = self.people_for(lift)
        control, arm = people * self.control_share, people * self.arm_share
        return int(np.ceil(control - 1e-6)), int(np.ceil(arm - 1e-6))

    def lift_for(self, people: float, *, down: bool = False) -> float:
        """The least absolute lift that is found with the planned power, with so many `people` in all arms together;
        `down`: the least fall, as a number below 0. Raises InvalidRequest if there is none.
        """
        sign = -1.0 if down else 1.0
        if self.rate is None:
            most = 1e6 * float(self.sd or 0.0)
        else:
            most = (self.rate if down else 1.0 - self.rate) * (1.0 - 1e-9)
        if people * min(self.control_share, self.arm_share) < 2.0 or self.power_of(sign * most, people) < self.power:
            raise _refused("people", f"{people:,.0f} people find no difference", "give more people")
        ends = np.log(most * 1e-12), np.log(most)
        found = optimize.brentq(lambda x: self.power_of(sign * np.exp(x), people) - self.power, *ends, xtol=1e-14)
        return sign * float(np.exp(found))

    def _check(self, lift: float) -> None:
        if lift == 0.0 or not np.isfinite(lift):
            raise _refused("lift", f"a lift of {lift:g} is never found", "the least difference that matters")
        if self.rate is not None and not 0.0 < self.rate + lift < 1.0:
            raise _refused("lift", f"{self.rate:g} {lift:+g} is no rate", "a lift that leaves a rate between 0 and 1")


def _refused(field: str, problem: str, fix: str) -> InvalidRequest:
    return InvalidRequest(Problem(field, problem, fix))
