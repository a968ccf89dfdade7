"""Loss account of a stage: what learning may have cost against no nudge so far, and the share of traffic that it may
decide.

A catalogue declares `loss = "1%"`: of what a month of traffic earns with no nudge, learning may cost so much, and no
more. From the decisions so far, with the propensities p they were drawn from, effects θ_a, gains g_a, costs c_a and a
price η of showing a nudge, the gain over no nudge is, to first order in the effects,

    Γ = Σ_i Σ_a p_ia (g_a w_i x_i·θ_a − c_a − (1 − g_a) q̂_i − η),   w_i = q̂_i (1 − q̂_i),

where q̂_i is the reward rate that was expected of no nudge when decision i was made. It is linear in θ, so that a few
sums over decisions (`ExposureSums`, on the grid of `bandit.belief`: exact, in any order) give its posterior mean and sd
under a sceptic's prior, which expects of every effect nothing. What must not be exceeded is taken from the lower end:

    room = B + E Γ − 1.64 sd Γ,   B = 0.95 B₀ / (1 + √(4q/B₀)),   B₀ = β min(1, N q (1 − q) / 2000) q N

with β the declared loss, q the reward rate of no nudge as the rewards show it, and N the decisions of 30 days of
traffic, or all decisions so far if those are more: what may be lost grows with what was earned. Days without any
decision are no days of traffic. Decisions that nobody has answered yet count at the sceptic's worst. The share is what
the room would last four days for, if every day went as badly as it may:

    s = clip(room / (4 · loss a day), 0, 1)

It closes when the evidence turns and opens as it comes; nothing else opens it. After an alarm of drift the room, which
is about the past, is found from all that was learned at full weight, and the loss of a day to come from what is left of
it after discounting: what was earned stays earned, and people who may have changed are met with care.

This is the rule `kept`, the default. The rule `expected` is bolder, and keeps the declared loss only on average where
nudges do nothing. It takes Γ from the policy's own posterior, and decides 2 % of the traffic at least:

    room = B₀ + min(E Γ, max(−null, E Γ − sd Γ)),   s = clip(room / (10 · null loss a day), 0.02, 1)

where null is what the decisions so far cost if no nudge does anything. Shapes: k arms, d features, n decisions. Amounts
are in units of the reward's range, as `ArmEconomics` has them.
"""

from typing import Literal, NamedTuple

import msgspec
import numpy as np

from bandit.arrays import Array, Ints, Mask
from bandit.belief import Belief, grid
from bandit.numerics import arithmetic
from bandit.policies import effects
from bandit.policies.centred import Centred
from bandit.policies.protocol import ArmEconomics

DAY = 86_400_000_000
MONTH = 30.0
"""Days that a declared loss is about."""

RECENT = 500
"""Decisions by which the loss of a day is judged."""

FIRST, FIRST_EXPECTED = 0.05, 0.3
"""Share of the traffic before a day has passed, under either rule."""

LossRule = Literal["kept", "expected"]

_SURE = 1.64  # sds below the mean: one run in twenty is worse
_LASTS, _LASTS_EXPECTED = 4.0, 10.0  # days that the room shall last for
_LEAST = 0.02  # share that the rule `expected` never goes below
_RESERVE = 0.95  # of the budget: looks are repeated, and the posterior is Laplace's
_SHOT = 4.0  # rewards that one person who leaves costs, about
_FEW = 20.0  # decisions that the prior of the reward rate is worth
_ENOUGH = 2000.0  # N q (1 − q) from which on the whole loss may be spent


class Evidence(NamedTuple):
    """Evidence that an account rests on: `past` with everything that was learned at full weight, which judges what was;
    `present` as the policy decides by it, with what came before an alarm of drift discounted, which judges what comes.
    Without an alarm the two are one belief.
    """

    past: Belief
    present: Belief


class Exposures(NamedTuple):
    """Exposures of n decisions: contexts x (n, d), propensities p (n, k) they were drawn from, what was expected of no
    nudge (n,), which arms were eligible (n, k), when, in µs (n,), and the number of that day on the app's clock (n,).
    """

    x: Array
    propensity: Array
    baseline: Array
    eligible: Mask
    at: Ints
    day: Ints


class ExposureSums(NamedTuple):
    """Sums over the decisions of a stage, from which Γ follows: count, time of the first in µs (0 before any), the
    numbers of the days on which there were any, expected nudges Σp, their certain cost Σp(c + (1 − g)q̂), and Σ p g w x
    by arm (k, d). Exact: any order gives the same bits.
    """

    n: int
    first: int
    days: frozenset[int]
    nudges: float
    cost: float
    effect: Array  # (k, d)

    @classmethod
    def none(cls, k: int, d: int) -> "ExposureSums":
        """Sums before any decision."""
        return cls(0, 0, frozenset(), 0.0, 0.0, np.zeros((k, d)))

    def plus(self, arms: ArmEconomics, made: Exposures) -> "ExposureSums":
        """Sums after `made` as well, at the gains and costs of `arms`."""
        if not len(made.at):
            return self
        first = int(made.at.min())
        nudges, cost, effect = _sums(arms, made)
        return ExposureSums(
            self.n + len(made.at),
            min(self.first, first) if self.n else first,
            self.days.union(np.unique(made.day).tolist()),
            self.nudges + nudges,
            self.cost + cost,
            self.effect + effect,
        )

    def minus(self, arms: ArmEconomics, made: Exposures) -> "ExposureSums":
        """Sums without `made`, the inverse of `plus` but for `first` and `days`, which are those of what is left: the
        caller knows it.
        """
        nudges, cost, effect = _sums(arms, made)
        n = self.n - len(made.at)
        return self._replace(n=n, nudges=self.nudges - nudges, cost=self.cost - cost, effect=self.effect - effect)

    def elapsed(self, now: int, day: float) -> float:
        """Days of traffic until `now` (µs): from the first decision on, without days on which there was none. `day`: µs
        in a day. A clock that was wrong once, or goes back, adds or takes no more than a day.
        """
        if not self.days:
            return 0.0
        today = int(np.floor(now / day))
        without = max(today - min(self.days) - sum(d < today for d in self.days), 0)
        idle = without + (0.0 if today in self.days else now / day - today)
        return max((now - self.first) / day - idle, len(self.days) - 2.0, 0.0)


class LossAccount(msgspec.Struct, frozen=True, kw_only=True):
    """Loss account as a snapshot carries it, in units of the reward's range (times `Reward.value` it is money).

    Fields: `share` of the traffic that the policy decides; `budget` B₀: what may be lost of a month, or of all traffic
    so far if that is more; `gain` and `sd` of what learning has brought so far over no nudge, as a sceptic sees it;
    `room` what may still be lost; `daily`: what a day may cost if the policy decides all of it; `scaled`: the part of
    the declared loss that the budget is, below 1 where there is too little traffic to learn from; `reserve`: the part
    of the budget that is not to be spent, because the estimate is one.
    """

    share: float
    budget: float
    gain: float
    sd: float
    room: float
    daily: float
    scaled: float = 1.0
    reserve: float = 0.0

    @property
    def spent(self) -> float:
        """What learning is estimated to have cost over no nudge: −gain, below 0 where it has earned."""
        return 0.0 - self.gain

    @property
    def spent_at_least(self) -> float:
        """Lower end of the cost's 90 % interval."""
        return self.spent - _SURE * self.sd

    @property
    def spent_at_most(self) -> float:
        """Upper end of the cost's 90 % interval: what counts against the budget."""
        return self.spent + _SURE * self.sd

    @property
    def why(self) -> str:
        """Why the share is what it is, and what would change it, in a sentence."""
        if self.share >= 1.0:
            return "open: what may still be lost lasts for days of the worst that one may bring"
        if self.share <= 0.0:
            return (
                "closed: what learning may have cost has reached what it may cost; it opens as rewards show that the "
                "nudges of before paid, as people earn more without any, or with a larger `loss`"
            )
        return (
            f"open for {self.share:.1%} of the traffic: what may still be lost shall last for days; it opens as "
            "rewards show that nudges pay"
        )


def first_day(rule: LossRule) -> LossAccount:
    """Account before a day has passed: nothing is known of the traffic yet."""
    share = FIRST if rule == "kept" else FIRST_EXPECTED
    return LossAccount(share=share, budget=0.0, gain=0.0, sd=0.0, room=0.0, daily=0.0)


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
    evidence: Evidence,
    sums: ExposureSums,
    ahead: Exposures,
    loss: float,
    rule: LossRule,
    price: float,
    now: int,
    day: float = DAY,
) -> LossAccount:
    """Loss account of a stage at time `now` (µs). `ahead`: the newest decisions, with the propensities that the policy
    as it is now would give them. `loss`: the declared share in (0, 1). `day`: µs in a day of the app's clock. `price`:
    of a nudge inside the account, in units of the reward's range.
    """
    elapsed = sums.elapsed(now, day)
    if elapsed < 1.0:
        return first_day(rule)
    q, daily = _rate(policy, evidence.past), sums.n / elapsed
    scaled, budget = declared_budget(loss, q, max(MONTH * daily, float(sums.n)))
    sceptic = rule == "kept"
    null = sums.cost + price * sums.nudges
    nudges, cost, effect = _sums(arms, ahead)
    null_ahead = cost + price * nudges
    was, comes = _Amount(sums.effect, null), _Amount(effect, null_ahead)
    gain, sd = _gain(policy, arms, evidence.past, was, sceptic=sceptic)
    here, doubt = _gain(policy, arms, evidence.present, comes, sceptic=sceptic)
    per_day = daily / max(len(ahead.at), 1)
    reserve = 0.0
    if sceptic:
        spendable = _RESERVE * budget / (1.0 + float(np.sqrt(_SHOT * q / budget)))
        room, reserve = spendable + gain - _SURE * sd, budget - spendable
        worst = max(_SURE * doubt - here, null_ahead) * per_day
        share = _clipped(room, _LASTS * worst, 0.0)
    else:
        room = budget + min(gain, max(-null, gain - sd))
        worst = null_ahead * per_day
        share = _clipped(room, _LASTS_EXPECTED * worst, _LEAST)
    return LossAccount(
        share=share, budget=budget, gain=gain, sd=sd, room=room, daily=worst, scaled=scaled, reserve=reserve
    )


def declared_budget(loss: float, rate: float, decisions: float) -> tuple[float, float]:
    """Part of a declared loss that so many decisions allow, and the budget B₀ that it is, in units of the reward's
    range. `loss`: the declared share; `rate` of rewards with no nudge, both in (0, 1).
    """
    scaled = min(1.0, decisions * rate * (1.0 - rate) / _ENOUGH)
    return scaled, loss * scaled * rate * decisions


def _rate(policy: Centred, evidence: Belief) -> float:
    """Reward rate of no nudge, from the rewards of decisions that showed none; the prior's counts as twenty of them."""
    told = float(evidence.reward[0]) + _FEW * policy.prior_mean
    return min(max(told / (float(evidence.n[0]) + _FEW), 1e-6), 1.0 - 1e-6)


def _clipped(room: float, wanted: float, least: float) -> float:
    return min(max(room / wanted, least), 1.0) if wanted > 0.0 else max(float(room > 0.0), least)


class _Amount(NamedTuple):
    """Gain Σ effect·θ − cost of some decisions: `effect` (k, d), and what is certain of it."""

    effect: Array
    cost: float


def _gain(policy: Centred, arms: ArmEconomics, evidence: Belief, of: _Amount, *, sceptic: bool) -> tuple[float, float]:
    """Posterior mean and sd of Σ effect·θ − cost."""
    layout = effects.layout(policy.prior.sceptical(), arms, evidence) if sceptic else policy.learned(arms, evidence)[0]
    found = effects.posterior(layout, evidence)
    direction = np.zeros((layout.effect.shape[1], layout.d))
    for a in range(1, len(of.effect)):
        for i in np.flatnonzero(layout.effect[a]).tolist():
            direction[i] += of.effect[a]
    v = direction.ravel()
    mean = float(arithmetic.total(v * found.mean)) - of.cost
    spread = float(arithmetic.total(v * arithmetic.applied(found.covariance, v)))
    return mean, float(np.sqrt(max(spread, 0.0)))
