"""Net gain: what a policy earns over no nudge, net of costs, in the terms in which somebody decides: a decision and a
month, the probability that it loses money, the expected loss of promoting it, and what one more week of data is worth.

With m the estimated gain of a decision and s its standard error (`intervals.side_error`), what is known of the true
gain Δ is taken to be N(m, s²): the central limit theorem for m, and a flat prior. Then, with z = m / s, φ and Φ the
standard normal's density and distribution,

    P(Δ < 0) = Φ(−z)                          the policy loses money
    E max(−Δ, 0) = s (φ(z) − z Φ(−z))         expected loss a decision of promoting it: 0 where it wins

(the unit normal loss integral, Raiffa & Schlaifer 1961, "Applied Statistical Decision Theory", 5.5; as a rule to stop
an experiment by: Stucchio 2015, "Bayesian A/B testing at VWO"). Where s comes from few seeds, with ν degrees of
freedom, Student's distribution takes the normal's place, with its density f and distribution T: P(Δ < 0) = T(−z), and
the expected loss is s ((ν + z²) f(z) / (ν − 1) − z T(−z)), which does not exist for ν = 1. One more week brings n'
decisions like the n of now, so that the standard error becomes s √(n / (n + n')). Seen from now the estimate after it
is M ~ N(m, t²), with

    t² = s² n' / (n + n')
    EVSI = E max(M, 0) − max(m, 0) = t (φ(u) − u Φ(−u)),    u = |m| / t
    P(the choice changes) = Φ(−u)

the expected value of sample information (Raiffa & Schlaifer 1961, 5.5; Wilson 2015, "A practical approximation of
value of information", with the variance of a mean). The choice is the one of somebody who pays attention to money
alone: promote if the estimate is above 0, else show nothing.

Not in it: that people change, costs of a switch, and that the policy which logs may change within the week. What the
rule asks for is more (`experiments.promotion.verdict`): it wants to be sure.
"""

from dataclasses import dataclass
from math import inf, isfinite, sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from experiments.inference.intervals import Interval
from experiments.inference.wording import against, chance, estimate, money, number, two_figures

MONTH, WEEK = 30.0, 7.0  # days
_DAY = 86_400e6  # µs
_LEAST = 1e-4  # a probability below: the mean loss in that case is not worth saying


class NextWeek(NamedTuple):
    """What one more week of data would change. `decisions`: how many it brings; `changes`: probability that the choice
    between the policy and no nudge becomes the other one; `value`: expected value of sample information, currency a
    decision; `narrower`: the interval's width then over its width now, in (0, 1].
    """

    decisions: float
    changes: float
    value: float
    narrower: float


class NetGain(NamedTuple):
    """Net gain of a policy over no nudge, in `currency` a decision: `over`, the estimate with the interval that the
    gate uses, n its decisions; `error`, its standard error, None where the log gives none; `daily`, decisions a day
    outside the control group, None where the log is too short to tell; `always`: the bounds hold at every look, and so
    are wider than what `error` says of this one. `freedom`: degrees of freedom of `error`, ∞ where it is as good as
    known.
    """

    over: Interval
    error: float | None
    daily: float | None
    currency: str
    always: bool = False
    freedom: float = inf

    @property
    def p_loss(self) -> float | None:
        """Probability that it loses money, Φ(−m/s) or T(−m/s); None where the error is not known."""
        if self.error is None or not isfinite(self.over.value):
            return None
        if self.error == 0.0:
            return float(self.over.value < 0.0)
        return _below(-self.over.value / self.error, self.freedom)

    @property
    def expected_loss(self) -> float | None:
        """Expected loss of promoting it, E max(−Δ, 0), currency a decision; None where the error is not known, or known
        from two observations.
        """
        if self.error is None or not isfinite(self.over.value) or (self.error and self.freedom <= 1.0):
            return None
        return _loss_integral(self.over.value, self.error, self.freedom)

    @property
    def month(self) -> Interval | None:
        """Gain over a month of 30 days at the measured rate of decisions, in currency; None where that is not known."""
        if self.daily is None:
            return None
        times = MONTH * self.daily
        return Interval(times * self.over.value, times * self.over.low, times * self.over.high, self.over.n)

    @property
    def week(self) -> NextWeek | None:
        """What one more week of data at the measured rate would change; None where rate or error are not known."""
        if self.error is None or not self.daily or not self.over.n or not isfinite(self.over.value):
            return None
        more = WEEK * self.daily
        kept = self.over.n / (self.over.n + more)
        spread = self.error * sqrt(1.0 - kept)
        changes = float(special.ndtr(-abs(self.over.value) / spread)) if spread else 0.0
        return NextWeek(more, changes, _loss_integral(abs(self.over.value), spread), sqrt(kept))

    @property
    def metrics(self) -> dict[str, float]:
        """Figures under the short names of a run: `net_gain`, `net_low`, `net_high`, `exp_loss` in currency a decision,
        `net_month` in currency a month, `p_loss` in [0, 1], `week_value` in currency for each month in which the choice
        counts. What is not known is left out.
        """
        week, month = self.week, self.month
        found = {
            "net_gain": self.over.value,
            "net_low": self.over.low,
            "net_high": self.over.high,
            "net_month": month.value if month else None,
            "p_loss": self.p_loss,
            "exp_loss": self.expected_loss,
            "week_value": MONTH * self.daily * week.value if week and self.daily else None,
        }
        return {name: value for name, value in found.items() if value is not None and isfinite(value)}

    # -- in words ----------------------------------------------------------------------------------------------

    @property
    def sentence(self) -> str:
        """One sentence to act on: against no nudge a decision and a month, the risk, and what more data would bring."""
        said = against(self.over, "no nudge", f"{self.currency} per decision net of costs".strip())
        if not isfinite(self.over.value):
            return said
        look = " at every look" if self.always else ""
        month = f", or {self.monthly}" if self.monthly else ""
        return "; ".join(part for part in (f"{said}{look}{month}", self.risk, self.more_data) if part)

    @property
    def monthly(self) -> str:
        """Gain over a month in words, with its bounds and the rate of decisions; "" where that is not known."""
        if self.month is None or self.daily is None:
            return ""
        rate = f"at {number(self.daily, '.0f' if self.daily >= 10 else '.1f')} decisions a day"
        return f"{estimate(self.month, f'{self.currency} a month'.strip())} {rate}"

    @property
    def risk(self) -> str:
        """Probability that it loses money, and the expected loss of promoting it, in words."""
        p, loss = self.p_loss, self.expected_loss
        if p is None:
            return "how likely it loses money is not known"
        look = "by this look alone " if self.always else ""
        said = f"{look}it loses money with probability {chance(p)}"
        if not self.error:
            return "it does what no nudge does" if self.over.value == 0.0 else said
        if p < _LEAST or loss is None:
            return said
        return (
            f"{said}, then {money(loss / p, self.currency)} per decision (expected loss {money(loss, self.currency)})"
        )

    @property
    def more_data(self) -> str:
        """What one more week of data would change, in words; "" where it is not known."""
        week = self.week
        if week is None or self.daily is None or not self.error:
            return ""
        worth = money(MONTH * self.daily * week.value, self.currency)
        return (
            f"one more week of data ({number(two_figures(week.decisions), '.0f')} decisions) changes the choice with "
            f"probability {chance(week.changes)}, worth {worth} a month"
        )


def _below(z: float, freedom: float) -> float:
    """P(Z < z) of a standard normal Z, or of Student's with so many degrees of freedom."""
    return float(special.ndtr(z)) if freedom == inf else float(special.stdtr(freedom, z))


def _density(z: float, freedom: float) -> float:
    """Density of Student's with so many degrees of freedom, at z."""
    most = np.log(special.poch(0.5 * freedom, 0.5)) - 0.5 * (np.log(freedom) + np.log(np.pi))
    return float(np.exp(most - (freedom + 1) / 2 * np.log1p(z * z / freedom)))


def _loss_integral(mean: float, spread: float, freedom: float = inf) -> float:
    """E max(−X, 0) of X ~ N(mean, spread²), or of Student's with so many degrees of freedom, above 1; in the unit of
    X.
    """
    if spread == 0.0:
        return max(-mean, 0.0)
    z = mean / spread
    if freedom < inf:
        tail = (freedom + z * z) / (freedom - 1.0) * _density(z, freedom)
        return max(spread * (tail - z * _below(-z, freedom)), 0.0)
    return max(spread * (float(np.exp(-0.5 * z * z)) / sqrt(2.0 * np.pi) - z * float(special.ndtr(-z))), 0.0)


@dataclass(frozen=True, slots=True)
class DecisionTimes:
    """Times of decisions in µs: how many `n` have one, the `first` and the `last`. Parts merge by `+` in any order;
    `DecisionTimes()` is none.
    """

    n: int = 0
    first: int = 2**63 - 1
    last: int = -(2**63)

    @classmethod
    def of(cls, at: NDArray[np.integer]) -> "DecisionTimes":
        """Times of the decisions made at `at` (n,), in µs."""
        return cls(len(at), int(at.min()), int(at.max())) if len(at) else cls()

    def __add__(self, other: "DecisionTimes") -> "DecisionTimes":
        """Times of both parts."""
        return DecisionTimes(self.n + other.n, min(self.first, other.first), max(self.last, other.last))

    @property
    def daily(self) -> float | None:
        """Decisions a day; None where they span less than a day, because what a month brings cannot be told from
        hours.
        """
        span = float(self.last - self.first)
        return (self.n - 1) * _DAY / span if self.n > 1 and span >= _DAY else None
