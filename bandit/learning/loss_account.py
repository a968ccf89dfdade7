"""Loss account of a stage: what learning may have cost against no nudge so far, and the share of traffic that it may
decide.

A catalogue declares `loss = "1%"`: of what a month of traffic earns with no nudge, learning may cost so much, and no
more. From the decisions so far, with the propensities p they were drawn from, effects θ_a, gains g_a, costs c_a and a
price η of showing a nudge, the gain over no nudge is, to first order in the effects,

    Γ = Σ_i Σ_a p_ia (g_a w_i x_i·θ_a − c_a − (1 − g_a) q̂_i − η),   w_i = q̂_i (1 − q̂_i),

where q̂_i is the reward rate that was expected of no nudge when decision i was made. It is linear in θ, so that a few
sums over decisions (`ExposureSums`, on the grid of `bandit.belief`: exact, in any order) give its posterior mean and sd
under a sceptic's prior, which expects of every effect nothing. What must not be exceeded is taken from the lower end:

    room = B + E Γ − 1.64 sd Γ,   B = 0.8 B₀ / (1 + √(4q/B₀)),   B₀ = β q N

with N the decisions of 30 days and β the declared loss, less where there is too little traffic to learn from. Decisions
that nobody has answered yet count at the sceptic's worst. The share is what the room would last ten days for, if every
day went as badly as it may:

    s = clip(room / (10 · loss a day), 0, 1)

It closes when the evidence turns and opens as it comes; nothing else opens it. Shapes: k arms, d features, n decisions.
Amounts are in units of the reward's range, as `ArmEconomics` has them.
"""

from typing import NamedTuple

import msgspec
import numpy as np

from bandit.arrays import Array, Ints, Mask
from bandit.belief import Belief, grid
from bandit.numerics import arithmetic
from bandit.policies import centred
from bandit.policies.centred import Centred
from bandit.policies.hierarchy import Gaussian
from bandit.policies.protocol import ArmEconomics

DAY = 86_400_000_000
MONTH = 30.0
"""Days that a declared loss is about."""

RECENT = 500
"""Decisions by which the loss of a day is judged."""

FIRST = 0.05
"""Share of the traffic before a day has passed."""

_SURE = 1.64  # sds below the mean: one run in twenty is worse
_LASTS = 10.0  # days that the room shall last for
_RESERVE = 0.8  # of the budget: looks are repeated, and the posterior is Laplace's
_SHOT = 4.0  # rewards that one person who leaves costs, about
_ENOUGH = 1000.0  # N q (1 − q) from which on the whole loss may be spent
_TIRED = 0.0125  # logits that a nudge is taken to cost later visits, for each visit that still feels it


class Exposures(NamedTuple):
    """Exposures of n decisions: contexts x (n, d), propensities p (n, k) they were drawn from, what was expected of no
    nudge (n,), which arms were eligible (n, k), and when, in µs (n,).
    """

    x: Array
    propensity: Array
    baseline: Array
    eligible: Mask
    at: Ints


class ExposureSums(NamedTuple):
    """Sums over the decisions of a stage, from which Γ follows: count, time of the first in µs (0 before any), expected
    nudges Σp, their certain cost Σp(c + (1 − g)q̂), and Σ p g w x by arm (k, d). Exact: any order gives the same bits.
    """

    n: int
    first: int
    nudges: float
    cost: float
    effect: Array  # (k, d)

    @classmethod
    def none(cls, k: int, d: int) -> "ExposureSums":
        """Sums before any decision."""
        return cls(0, 0, 0.0, 0.0, np.zeros((k, d)))

    def plus(self, arms: ArmEconomics, made: Exposures) -> "ExposureSums":
        """Sums after `made` as well, at the gains and costs of `arms`."""
        if not len(made.at):
            return self
        first = int(made.at.min())
        nudges, cost, effect = _sums(arms, made)
        return ExposureSums(
            self.n + len(made.at),
            min(self.first, first) if self.n else first,
            self.nudges + nudges,
            self.cost + cost,
            self.effect + effect,
        )


class LossAccount(msgspec.Struct, frozen=True, kw_only=True):
    """Loss account as a snapshot carries it, in units of the reward's range (times `Reward.value` it is money).

    Fields: `share` of the traffic that the policy decides; `budget` B₀: the declared loss of a month; `gain` and `sd`
    of what learning has brought so far over no nudge, as a sceptic sees it; `room` what may still be lost; `daily`:
    what a day may cost if the policy decides all of it.
    """

    share: float
    budget: float
    gain: float
    sd: float
    room: float
    daily: float

    @property
    def why(self) -> str:
        """Why the share is what it is, and what would change it, in a sentence."""
        if self.share >= 1.0:
            return "open: what may still be lost lasts for ten days of the worst that a day may bring"
        if self.share <= 0.0:
            return (
                "closed: what learning may have cost has reached the declared loss; rewards of nudges that were "
                "shown, as they come in, or a larger `loss` open it"
            )
        return (
            f"open for {self.share:.1%} of the traffic: what may still be lost shall last for ten days; it opens as "
            "rewards show that nudges pay"
        )


FIRST_DAY = LossAccount(share=FIRST, budget=0.0, gain=0.0, sd=0.0, room=0.0, daily=0.0)
"""Account before a day has passed: nothing is known of the traffic yet."""

CLOSED = LossAccount(share=0.0, budget=0.0, gain=0.0, sd=0.0, room=0.0, daily=0.0)
"""Account of a policy for which none was made."""


def _sums(arms: ArmEconomics, made: Exposures) -> tuple[float, float, Array]:
    p = made.propensity.copy()
    p[:, 0] = 0.0
    cost = arms.cost if arms.price is None else arms.cost - arms.price
    certain = p * ((cost - cost[0]) + (1.0 - arms.gain) * made.baseline[:, None])
    weight = p * arms.gain * (made.baseline * (1.0 - made.baseline))[:, None]
    effect = np.array([grid(weight[:, a, None] * made.x).sum(axis=0) for a in range(p.shape[1])]) + 0.0
    return float(grid(p).sum()), float(grid(certain).sum()), effect


def account(
    policy: Centred,
    arms: ArmEconomics,
    evidence: Belief,
    sums: ExposureSums,
    ahead: Exposures,
    loss: float,
    now: int,
    day: float = DAY,
    price: float | None = None,
) -> LossAccount:
    """Loss account of a stage at time `now` (µs). `ahead`: the newest decisions, with the propensities that the policy
    as it is now would give them. `loss`: the declared share in (0, 1). `day`: µs in a day of the app's clock. `price`:
    of a nudge inside the account, by default that of an app which knows nothing of its own.
    """
    q = policy.prior_mean
    if sums.n == 0 or now - sums.first < day:
        return FIRST_DAY
    daily_n = sums.n / ((now - sums.first) / day)
    expected = MONTH * daily_n
    budget = loss * min(1.0, expected * q * (1.0 - q) / _ENOUGH) * q * expected
    usable = _RESERVE * budget / (1.0 + float(np.sqrt(_SHOT * q / budget)))
    price = _TIRED * _felt() * q * (1.0 - q) if price is None else price
    layout = centred.layout(policy, arms, evidence, sceptical=True)
    found = centred.posterior(layout, evidence)
    gain, sd = _gain(layout, found, sums.effect, sums.cost + price * sums.nudges)
    nudges, cost, effect = _sums(arms, ahead)
    m = max(len(ahead.at), 1)
    here, doubt = _gain(layout, found, effect, cost + price * nudges)
    worst = max(_SURE * doubt - here, cost + price * nudges) / m * daily_n
    room = usable + gain - _SURE * sd
    share = min(max(room / (_LASTS * worst), 0.0), 1.0) if worst > 0.0 else float(room > 0.0)
    return LossAccount(share=share, budget=budget, gain=gain, sd=sd, room=room, daily=worst)


def _felt(days: float = 3.0) -> float:
    """Visits that still feel a nudge, r / (1 − r) with r = 0.85^(days between visits)."""
    r = 0.85**days
    return float(r / (1.0 - r))


def _gain(layout: centred.CentredLayout, found: Gaussian, effect: Array, cost: float) -> tuple[float, float]:
    """Posterior mean and sd of Σ effect·θ − cost."""
    direction = np.zeros((layout.effect.shape[1], layout.d))
    for a in range(1, len(effect)):
        for i in np.flatnonzero(layout.effect[a]).tolist():
            direction[i] += effect[a]
    v = direction.ravel()
    mean = float(arithmetic.total(v * found.mean)) - cost
    spread = float(arithmetic.total(v * arithmetic.applied(found.covariance, v)))
    return mean, float(np.sqrt(max(spread, 0.0)))
