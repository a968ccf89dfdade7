"""Price of a nudge: what showing one costs later rewards, learned from what the draws of the policy randomised.

People who saw many nudges lately may reward less because nudges tire them, or because nudges were aimed at people like
them. What tells the two apart is our own: whether a nudge was shown was drawn, with a recorded probability. A person's
recent nudges less what the propensities expected of them,

    F_c = Σ_j 0.85^(days since j) (A_j − p_j(nudge)),

over the person's earlier decisions at all stages, have mean 0 whoever the person is and whatever was aimed at. They are
the instrument for the recent nudges F = Σ_j 0.85^(days since j) A_j themselves:

    β̂ = Σ F_c e / Σ F_c w F,   e = r − q̂(drawn arm),   w = q̂ (1 − q̂)      (logits for each recent nudge; < 0: tired)

q̂ is the reward that was expected of the drawn arm when the decision was made. Whatever q̂ gets wrong about contexts or
arms has no covariance with F_c, so that it adds noise and no bias: the score is orthogonal to it. Of the drawn arm and
not on average under p, because the difference of the two is known noise. Σ F_c w F and not Σ F_c² w, because an opt-out
or a cap that follows a nudge changes what may be shown next, and then F moves by more or less than F_c does.

The prior of β is 0.9 N(−0.01, 0.03²) + 0.1 N(−0.05, 0.1²): most apps tire people little, some tire them much. With it

    η = w̄ K E max(−β, 0) + h ℓ V

where K is how many later visits feel a nudge, h the share of nudges after which people opt out, ℓ the share of those
who leave, and V what a person brings in 30 days. Nudges that make people more eager earn no price below 0. Without data
that is about what 0.04 logits are worth. The interval of the price is the data's: with a prior of N(−0.01, 0.2²), it
covers the truth also in apps that the other prior would not have thought of; it always holds the price itself.

All sums are on the grid of `bandit.belief`: any order, batching or repetition of a rebuild ends in the same bits.
Shapes: n decisions, m earlier decisions of a person. Amounts are in units of the reward's range, times in µs.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import msgspec
import numpy as np

from bandit.arrays import Array, Ints, Mask
from bandit.belief import grid
from bandit.numerics import arithmetic

MOST_EARLIER = 50
"""Earlier decisions of a person that are looked at, newest first; older ones are forgotten."""

_FADES = 0.16251892949777494  # −ln 0.85: by how much a nudge is felt less, a day
_USUALLY = ((0.9, -0.01, 0.03), (0.1, -0.05, 0.1))  # weight, mean and sd of the two parts of the prior of β
_VAGUE = ((1.0, -0.01, 0.2),)  # the one of its interval
_TOGETHER = 1.1  # residuals of one person go together, which makes the sd of the score so much larger at most
_FELT, _VISITS = 1.59, 10.0  # visits that feel a nudge, and visits in 30 days, of people who come every three days
_FEW = 50.0  # visits that these are worth
_OPT_OUTS, _NUDGES = 0.5, 50.0  # opt-outs and nudges that are taken to have been seen before any
_LEAVERS, _LEFT = 2.0, 20.0  # of so many people who opted out before any, so many left
_MONTH = 30.0
_USUAL = -5.0  # logits of opting out at a first nudge, as apps that tire nobody have it
_SURE = 1.959963984540054


Part = tuple[float, float, float]  # weight, mean, sd of a normal


class EarlierDecisions(NamedTuple):
    """Earlier decisions of the people of n decisions, (n, m) each: when, whether a nudge was shown, with which
    probability, whether the person opted out after it, and whether there is one at all.
    """

    at: Ints
    nudge: Mask
    propensity: Array
    opted_out: Mask
    there: Mask

    @classmethod
    def none(cls, n: int) -> "EarlierDecisions":
        """n decisions of people who were never here."""
        yes = np.zeros((n, 0), dtype=bool)
        return cls(np.zeros((n, 0), dtype=np.int64), yes, np.zeros((n, 0)), yes, yes)


class RecentNudges(NamedTuple):
    """What n decisions found of their persons' past, (n,) each: recent nudges less those expected F_c, recent nudges F,
    recent visits, those of them after which the person opted out; visits of the last 30 days; the number of their day;
    whether each is its person's first; whether an opt-out is known by it, and whether that was known at once, so that
    staying away can be seen.
    """

    centred: Array
    nudges: Array
    visits: Array
    after_opt_out: Array
    month: Ints
    day: Ints
    first: Mask
    opted_out: Mask
    at_once: Mask

    def only(self, rows: Mask | Ints) -> "RecentNudges":
        """What some of the decisions found."""
        return RecentNudges._make(part[rows] for part in self)

    @classmethod
    def none(cls, n: int) -> "RecentNudges":
        """n first decisions."""
        no = np.zeros(n, dtype=bool)
        return recent(np.zeros(n, dtype=np.int64), EarlierDecisions.none(n), no, no, np.ones(n))


def recent(at: Ints, earlier: EarlierDecisions, opted_out: Mask, at_once: Mask, day: Array) -> RecentNudges:
    """What decisions made at `at` (n,) found. `day` (n,): µs in a day of the app's clock. Terms are rounded one by one,
    so that the order of earlier decisions is all one.
    """
    age = np.maximum(at[:, None] - earlier.at, 0) / day[:, None]
    felt = np.where(earlier.there, arithmetic.exp(-_FADES * age), 0.0)
    return RecentNudges(
        centred=_felt(felt * (earlier.nudge - earlier.propensity)),
        nudges=_felt(felt * earlier.nudge),
        visits=_felt(felt),
        after_opt_out=_felt(felt * earlier.opted_out),
        month=(earlier.there & (age <= _MONTH)).sum(axis=1),
        day=np.floor(at / day).astype(np.int64),
        first=np.logical_not(earlier.there.any(axis=1)),
        opted_out=opted_out,
        at_once=at_once,
    )


def _felt(terms: Array) -> Array:
    return np.asarray(grid(terms).sum(axis=1), dtype=np.float64)


class SettledNudges(NamedTuple):
    """Columns of n settled decisions, (n,) each: whether a nudge was shown, the reward on [0, 1], and what was expected
    of the drawn arm.
    """

    nudge: Mask
    reward: Array
    expected: Array


class NudgeSums(NamedTuple):
    """Sums over the settled decisions of a stage from which the price follows. Exact: any order gives the same bits.

    Counts of decisions, people, nudges and opt-outs; `reward` Σ r, `weight` Σ w, `score` Σ F_c e, `instrument`
    Σ F_c w F, `square` Σ (F_c e)²; `visits` and `after_opt_out`: pairs of an earlier and a later visit, faded; `month`:
    pairs at most 30 days apart. `usual`: opt-outs that nudges of an app that tires nobody would bring; `days` and
    `opt_out_days`: day → decisions made on it.
    """

    decisions: int = 0
    people: int = 0
    nudges: int = 0
    opt_outs: int = 0
    reward: float = 0.0
    weight: float = 0.0
    score: float = 0.0
    instrument: float = 0.0
    square: float = 0.0
    visits: float = 0.0
    after_opt_out: float = 0.0
    usual: float = 0.0
    month: int = 0
    days: Mapping[int, int] = {}
    opt_out_days: Mapping[int, int] = {}

    def plus(self, made: SettledNudges, found: RecentNudges) -> "NudgeSums":
        """Sums after n more decisions, and what they found of their persons' past."""
        if not len(made.reward):
            return self
        q, f = made.expected, found.centred
        weight = grid(q * (1.0 - q))
        score = grid(f * (made.reward - q))
        usual = grid(np.where(made.nudge, arithmetic.expit(_USUAL + found.nudges), 0.0))
        more: list[float] = [
            *(len(made.reward), int(found.first.sum()), int(made.nudge.sum()), int(found.opted_out.sum())),
            *(float(grid(made.reward).sum()), float(weight.sum()), float(score.sum())),
            *(float(grid(f * weight * found.nudges).sum()), float(grid(score * score).sum())),
            *(float(found.visits.sum()), float(found.after_opt_out.sum()), float(usual.sum()), int(found.month.sum())),
        ]
        days = _counted(self.days, found.day), _counted(self.opt_out_days, found.day[found.opted_out & found.at_once])
        return NudgeSums._make([*(a + b for a, b in zip(self[:-2], more, strict=True)), *days])

    def minus(self, part: "NudgeSums") -> "NudgeSums":
        """Sums without those of some of the decisions: the inverse of adding them, to the bit."""
        days = _less(self.days, part.days), _less(self.opt_out_days, part.opt_out_days)
        return NudgeSums._make([*(a - b for a, b in zip(self[:-2], part[:-2], strict=True)), *days])


def _less(days: Mapping[int, int], fewer: Mapping[int, int]) -> dict[int, int]:
    return {day: left for day, n in days.items() if (left := n - fewer.get(day, 0))}


def _counted(days: Mapping[int, int], on: Ints) -> dict[int, int]:
    counts = dict(days)
    for day, n in zip(*(part.tolist() for part in np.unique(on, return_counts=True)), strict=True):
        counts[day] = counts.get(day, 0) + n
    return dict(sorted(counts.items()))


class NudgePrice(msgspec.Struct, frozen=True, kw_only=True):
    """Price of a nudge as a snapshot carries it, in units of the reward's range (times `Reward.value` it is money).

    Fields: `price` what showing one costs later rewards, `low` and `high` its 95 % interval; `tired` what a recent
    nudge takes from the logit of a reward, and its `sd`, by the data alone (None before any); `felt` later visits that
    feel a nudge; `opt_out` share of nudges after which people opt out; `leaves` share of those who leave. What it rests
    on: `decisions`, `people`, `nudges`, `opt_outs`, beside those that are `usual` after as many nudges.
    """

    price: float
    low: float
    high: float
    tired: float | None
    sd: float | None
    felt: float
    opt_out: float
    leaves: float
    decisions: int
    people: int
    nudges: int
    opt_outs: int
    usual: float

    @property
    def evidence(self) -> str:
        """What the price rests on, in a sentence."""
        if self.tired is None or self.sd is None:
            return (
                f"{self.decisions:,} settled decisions of {self.people:,} people do not tell yet what recent nudges "
                "do: the price is what is expected of any app"
            )
        return (
            f"rests on {self.decisions:,} settled decisions of {self.people:,} people and {self.opt_outs:,} opt-outs "
            f"after {self.nudges:,} nudges: a recent nudge takes {self.tired:.3f} ± {self.sd:.3f} logits from a later "
            f"reward, {self.felt:.1f} visits feel it, {self.opt_out:.1%} of nudges make people opt out, "
            f"{self.leaves:.0%} of whom leave"
        )


def learned(sums: NudgeSums, prior_mean: float) -> NudgePrice:
    """Price of a nudge at a stage whose reward is expected to be `prior_mean` before any data, from its sums."""
    n, felt = sums.decisions, felt_visits(sums)
    weight = (sums.weight + _FEW * prior_mean * (1.0 - prior_mean)) / (n + _FEW)
    reward = (sums.reward + _FEW * prior_mean) / (n + _FEW)
    told = sums.instrument > 0.0 and sums.square > 0.0
    beta = sums.score / sums.instrument if told else 0.0
    sd = _TOGETHER * float(np.sqrt(sums.square)) / sums.instrument if told else np.inf
    hazard = (sums.opt_outs + _OPT_OUTS) / (sums.nudges + _NUDGES)
    leaves = _leavers(sums, felt)
    gone = hazard * leaves * reward * monthly_visits(sums)
    tiring = weight * felt * _tiring(_after(_USUALLY, beta, sd))
    ends = [weight * felt * max(_quantile(_after(_VAGUE, beta, sd), level), 0.0) for level in (0.025, 0.975)]
    down, up = _factors(sums.opt_outs, leaves)
    price = tiring + gone
    low = ends[0] + gone * down
    high = price + float(np.sqrt(max(ends[1] - tiring, 0.0) ** 2 + (gone * (up - 1.0)) ** 2))
    return NudgePrice(
        price=price,
        low=min(low, price),
        high=high,
        tired=-beta if told else None,
        sd=float(sd) if told else None,
        felt=felt,
        opt_out=hazard,
        leaves=leaves,
        decisions=n,
        people=sums.people,
        nudges=sums.nudges,
        opt_outs=sums.opt_outs,
        usual=sums.usual,
    )


class LossPrices(NamedTuple):
    """Prices of a nudge where a loss is declared, in units of the reward's range: `account` inside the loss account,
    `policy` in the choice. Both follow opt-outs.
    """

    account: float
    policy: float


def prices(found: NudgePrice | None, prior_mean: float) -> LossPrices:
    """Prices that follow opt-outs, from what a snapshot carries (None: nothing is known). Where A times as many people
    opt out as is usual, the policy's price is A times as large, and the account's A^1.5 times.
    """
    felt, opt_outs, usual = (_FELT, 0, 0.0) if found is None else (found.felt, found.opt_outs, found.usual)
    excess = max(1.0, (opt_outs + 0.5) / (usual + 0.5))
    unit = prior_mean * (1.0 - prior_mean)
    return LossPrices(0.0125 * felt * unit * excess * float(np.sqrt(excess)), 0.04 * unit * excess)


def felt_visits(sums: NudgeSums) -> float:
    """Later visits of a person that feel a nudge, K, each by how much is left of it: pairs of visits, faded, for each
    visit by how long the log goes on after it.
    """
    return (sums.visits + _FEW * _FELT) / (_followed(sums.days, sums.days) + _FEW)


def monthly_visits(sums: NudgeSums) -> float:
    """Visits of a person in the 30 days after one: pairs of visits so near to each other, for each visit by how much of
    its 30 days the log knows.
    """
    if not sums.days:
        return _VISITS
    ahead = max(sums.days) + 0.5 - np.array(list(sums.days))
    known = float(grid(np.array(list(sums.days.values())) * np.minimum(ahead / _MONTH, 1.0)).sum())
    return (sums.month + _FEW * _VISITS) / (known + _FEW)


def _followed(days: Mapping[int, int], known: Mapping[int, int]) -> float:
    """Visits on `days`, each by how much of the time in which a nudge fades is `known`: 1 − 0.85^days."""
    if not days:
        return 0.0
    end = max(known) + 0.5
    day, count = np.array(list(days)), np.array(list(days.values()), dtype=np.float64)
    return float(grid(count * (1.0 - arithmetic.exp(-_FADES * np.maximum(end - day, 0.0)))).sum())


def _leavers(sums: NudgeSums, felt: float) -> float:
    """Share ℓ of people who opted out that left: visits that should have followed, and did not."""
    expected = _followed(sums.opt_out_days, sums.days)
    missing = min(max(expected - sums.after_opt_out / felt, 0.0), expected)
    return (_LEAVERS + missing) / (_LEFT + expected)


def _factors(opt_outs: int, leaves: float) -> tuple[float, float]:
    """Ends of the 95 % interval of h·ℓ, as factors of it: of a Poisson count (Wilson and Hilferty 1931) and of a share,
    whose distances add up as squares (Zou and Donner 2008).
    """
    n = opt_outs + _OPT_OUTS
    low, high = ((1.0 - 1.0 / (9.0 * n) + z / (3.0 * float(np.sqrt(n)))) ** 3 for z in (-_SURE, _SURE))
    of_leavers = (leaves * (1.0 - leaves) + 0.5 * (1.0 - leaves) ** 2) / (_LEFT + opt_outs)
    width = _SURE * float(np.sqrt(of_leavers)) / leaves
    low = max(low, 0.0) if opt_outs else 0.0
    down = 1.0 - float(np.sqrt((1.0 - low) ** 2 + width * width))
    return max(down, 0.0), 1.0 + float(np.sqrt((high - 1.0) ** 2 + width * width))


def _after(prior: tuple[Part, ...], beta: float, sd: float) -> list[Part]:
    """Posterior of −β, as parts (weight, mean, sd), after an estimate of β with this sd."""
    parts = []
    for weight, mean, spread in prior:
        if np.isinf(sd):
            parts.append((weight, -mean, spread))
            continue
        both = spread * spread + sd * sd
        likelihood = arithmetic.exp_of(-0.5 * (beta - mean) ** 2 / both) / float(np.sqrt(both))
        middle = (mean * sd * sd + beta * spread * spread) / both
        parts.append((weight * max(likelihood, 1e-300), -middle, spread * sd / float(np.sqrt(both))))
    whole = math.fsum(weight for weight, _, _ in parts)
    return [(weight / whole, mean, spread) for weight, mean, spread in parts]


def _tiring(parts: list[Part]) -> float:
    """E max(−β, 0)."""
    each = (weight * (mean * _below(mean / sd) + sd * _density(mean / sd)) for weight, mean, sd in parts)
    return math.fsum(each)


def _quantile(parts: list[Part], level: float) -> float:
    low = min(mean - 8.0 * spread for _, mean, spread in parts)
    high = max(mean + 8.0 * spread for _, mean, spread in parts)
    for _ in range(60):
        middle = 0.5 * (low + high)
        below = math.fsum(weight * _below((middle - mean) / spread) for weight, mean, spread in parts)
        low, high = (middle, high) if below < level else (low, middle)
    return 0.5 * (low + high)


def _density(z: float) -> float:
    return 0.3989422804014327 * arithmetic.exp_of(-0.5 * z * z)


def _below(z: float) -> float:
    """Φ(z) to 1e-7 (Abramowitz and Stegun 26.2.17)."""
    t = 1.0 / (1.0 + 0.2316419 * abs(z))
    tail = _density(z) * t * (
        0.319381530 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429)))
    )  # fmt: skip
    return 1.0 - tail if z >= 0.0 else tail
