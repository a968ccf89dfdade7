"""Guardrail metric: whether decisions of a nudge are followed by a bad event (a refund, a complaint, an opt-out) more
often than the declared share `most`, in a test that may be looked at after every decision.

Let X be 1 for a decision that was followed by a bad event, else 0. While P(X = 1 | all before) ≤ m, for any tilt θ > 0

    E exp(θX) ≤ 1 − m + m·e^θ,

so products of exp(θX) / (1 − m + m·e^θ) are supermartingales (bets against the bound: Waudby-Smith and Ramdas 2024,
"Estimating means of bounded random variables by betting", JRSS B 86), also where the chance differs from person to
person and from day to day. A tilt is the log of the factor by which the odds of bad events are too high. A nudge may
turn bad at any time: the e-value is the mean of the products over the tilts and over their beginnings t, with weights
1/(t(t + 1)); half of it begins with the first decision. It exceeds 1/α at any time whatever with a probability of at
most α (Ville's inequality), so neither looking after every decision nor waiting for a least number of them raises that.

The lower bound is of the mean chance p̄ of all decisions so far. Because log is concave, Σ log(1 + p(e^θ − 1)) is at
most n·log(1 + p̄(e^θ − 1)), so that for the number s of bad ones among n the mean over the tilts of

    exp(θs − n·log(1 + p̄(e^θ − 1)))

is at most a supermartingale that begins at 1. It falls as p̄ rises: the bound is where it is 1/α.

Each nudge and each metric has a test, and an α, of its own. `bandit.reporters.reward_watch` tests keys in the same way.
"""

import math
from collections.abc import Iterable
from typing import Annotated, NamedTuple

import msgspec

from bandit.numerics.arithmetic import exp_of, log_of

_TILTS = (0.05, 0.15, 0.4, 0.9, 2.0)  # odds 1.05, 1.2, 1.5, 2.5 and 7.4 times too high
_FACTORS = tuple(exp_of(tilt) for tilt in _TILTS)
_RICHEST = 1e300  # of a product: beyond it nothing more is told, and infinity cannot be written down
_LARGEST = 690.0  # exponent of a group: e to it can be written down
_STEPS = 60  # of a bisection: below the spacing of float64


class GuardrailBound(msgspec.Struct, frozen=True, kw_only=True):
    """Declared bound of a guardrail metric: the share of decisions that bad events may follow at `most`, the chance
    `alpha` of a false alarm at all times together, and the number of exposures `least` before which no alarm is raised.
    """

    most: Annotated[float, msgspec.Meta(gt=0, lt=1)]
    alpha: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.05
    least: Annotated[int, msgspec.Meta(ge=1)] = 100


class GuardrailEvidence(msgspec.Struct, frozen=True):
    """Evidence against a nudge's bound, after so many exposures with so many bad ones. Immutable; a function of the
    sequence, however it was cut into batches.

    `wealth`: for each tilt the sum over beginnings. `raised`: the number of the exposure that raised the alarm, 0
    while none has; an alarm stays.
    """

    exposures: int = 0
    bad: int = 0
    wealth: tuple[float, ...] = (0.0,) * len(_TILTS)
    raised: int = 0

    @property
    def e_value(self) -> float:
        """Value of the e-process: what is bet already, and what is kept for later beginnings. 1 before any exposure."""
        return math.fsum(self.wealth) / len(self.wealth) + 1.0 / (self.exposures + 1)


class _Bet(NamedTuple):
    """Factors by which a product changes, for one tilt: after a bad decision, and after another."""

    bad: float
    good: float


def scan(bound: GuardrailBound, evidence: GuardrailEvidence, rows: Iterable[bool]) -> GuardrailEvidence:
    """Evidence after these decisions too, True for those that a bad event followed, in the order of the decisions, each
    once its window is over: if bad events are told before good ones are certain, the order in which they become known
    tells more of them than there are. The bound is that of all rows before: another bound needs new evidence.
    """
    bets = [_bet(bound.most, factor) for factor in _FACTORS]
    exposures, bad, wealth, raised = evidence.exposures, evidence.bad, list(evidence.wealth), evidence.raised
    for is_bad in rows:
        exposures += 1
        bad += is_bad
        begins = 1.0 / (exposures * (exposures + 1))
        for i, bet in enumerate(bets):
            wealth[i] = min((wealth[i] + begins) * (bet.bad if is_bad else bet.good), _RICHEST)
        if not raised and exposures >= bound.least:
            e_value = math.fsum(wealth) / len(wealth) + 1.0 / (exposures + 1)
            raised = exposures if e_value >= 1.0 / bound.alpha else 0
    return GuardrailEvidence(exposures, bad, tuple(wealth), raised)


def e_value_of(bound: GuardrailBound, groups: Iterable[tuple[int, int]]) -> float:
    """Value of the e-process after groups of decisions, each (exposures, bad), in order: as `scan`, but with bets that
    begin with a group and not with a decision. With groups of one decision each it is that of `scan`.

    A group's order does not matter, so the counts may be corrected later: where a bad event is reported long after its
    decision, the value as of now is at most the one that will be known at last, and that exceeds 1/α at any time with a
    probability of at most α, as long as which decisions are in the groups does not depend on what followed them.
    """
    wealth, terms = [0.0] * len(_TILTS), [log_of(1.0 + bound.most * (factor - 1.0)) for factor in _FACTORS]
    number = 0
    for exposures, bad in groups:
        number += 1
        begins = 1.0 / (number * (number + 1))
        for i, (tilt, term) in enumerate(zip(_TILTS, terms, strict=True)):
            grown = min(max(tilt * bad - exposures * term, -_LARGEST), _LARGEST)
            wealth[i] = min((wealth[i] + begins) * exp_of(grown), _RICHEST)
    return math.fsum(wealth) / len(wealth) + 1.0 / (number + 1)


def lower_bound(evidence: GuardrailEvidence, alpha: float) -> float:
    """Lower confidence bound, at all times together with probability 1 − `alpha`, of the mean chance of a bad event in
    the decisions so far: in [0, 1], 0 before anything bad. Of the decisions' number and their bad ones alone.
    """
    if evidence.bad == 0:
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2.0
        low, high = (middle, high) if _against(evidence, middle) >= 1.0 / alpha else (low, middle)
    return low


def _bet(most: float, factor: float) -> _Bet:
    mean = 1.0 + most * (factor - 1.0)
    return _Bet(factor / mean, 1.0 / mean)


def _against(evidence: GuardrailEvidence, mean: float) -> float:
    """E-value against a mean chance so low, bet from the first decision on."""
    return math.fsum(
        exp_of(tilt * evidence.bad - evidence.exposures * log_of(1.0 + mean * (factor - 1.0)))
        for tilt, factor in zip(_TILTS, _FACTORS, strict=True)
    ) / len(_TILTS)
