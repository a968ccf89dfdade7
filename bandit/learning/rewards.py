"""Rewards: from the outcomes of a decision to one final reward. Order-free: any permutation of the same outcomes gives
the same reward.
"""

import math
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from bandit.catalogue.model import Stage
from bandit.records import Outcome, Why


class SettledReward(NamedTuple):
    """Final reward of a decision, in the reward's own units, where it came from (`why`), and whether it is learned."""

    reward: float
    why: Why
    learned: bool


class RewardTotal(NamedTuple):
    """Total of outcomes, in the reward's own units, before it is clipped to the declared range. `amount`: None if
    nobody answered, or if all was taken back (`taken`).
    """

    amount: float | None
    taken: bool


MONEY = ("reward", "retraction")
"""Kinds of outcomes that say what a decision brought."""


def settle(
    stage: Stage,
    outcomes: Sequence[Outcome],
    *,
    holdout: bool,
    current: bool = True,
    deferred: bool = False,
    over_limit: bool = False,
    held: Collection[str] = (),
) -> SettledReward:
    """Final reward of a matured decision: the rewards reported in time less partial retractions, clipped to the
    declared range; the default if nobody answered, or if all was taken back, piece by piece or by a retraction without
    a value.

    What needs an activation (`deferred`, or by the stage's rule) and has none in time is not learned, nor is the
    holdout, nor what its user's contribution limit left no room for (`over_limit`). What was decided under a schema
    that is not `current` any more says nothing to the present one. `held`: keys whose rewards are held, where the stage
    pauses at an alarm.
    """
    spec = stage.reward
    found = total(outcomes)
    why: Why
    if found.amount is None:
        reward, why = spec.default, "retraction" if found.taken else "silence"
    else:
        reward, why = min(max(found.amount, spec.min), spec.max), "reward"
    if holdout:
        return SettledReward(reward, "holdout", learned=False)
    if over_limit:
        return SettledReward(reward, "over limit", learned=False)
    activated = any(o.kind == "activation" for o in standing(outcomes) if not o.late)
    if (deferred or stage.activation == "required") and not activated:
        return SettledReward(reward, "not activated", learned=False)
    if not current:
        return SettledReward(reward, "other schema", learned=False)
    if why == "reward" and is_held(stage, outcomes, held):
        return SettledReward(reward, "held", learned=False)
    return SettledReward(reward, why, learned=True)


def is_held(stage: Stage, outcomes: Sequence[Outcome], held: Collection[str]) -> bool:
    """Whether a reward that counts was reported by a key whose rewards are `held`, at a stage that pauses at an
    alarm.
    """
    if stage.reward_alarm != "pause" or not held:
        return False
    return any(o.kind == "reward" and o.reporter in held for o in in_force(outcomes))


def total(outcomes: Sequence[Outcome]) -> RewardTotal:
    """Exact sum, rounded once, of the rewards that were reported in time and not taken back, in the reward's own units.

    Facts are counted one by one: no more can be taken back of an order than it brought. Outcomes that name no fact are
    counted together, and a retraction of these without a value takes back everything.
    """
    if not outcomes:
        return RewardTotal(None, taken=False)
    facts: dict[str, list[Outcome]] = {}
    for outcome in in_force(outcomes):
        if outcome.kind in MONEY:
            facts.setdefault(outcome.fact, []).append(outcome)
    loose = facts.pop("", [])
    back = [o.value for o in loose if o.kind == "retraction"]
    if None in back:
        return RewardTotal(None, taken=True)
    amounts = [o.value for o in loose if o.kind == "reward" and o.value is not None]
    taken, rewarded = False, bool(amounts)
    for about in facts.values():
        parts = _of_fact(about)
        taken = taken or parts is None
        rewarded = rewarded or bool(parts)
        amounts += parts or []
    if not rewarded:
        return RewardTotal(None, taken)
    found = math.fsum(amounts + [-v for v in back if v is not None])
    return RewardTotal(None, taken=True) if back and found == 0.0 else RewardTotal(found, taken)


def _of_fact(about: Sequence[Outcome]) -> list[float] | None:
    """What a fact brought, and what was taken back of it; None if that was all, nothing if it was never rewarded."""
    given = [o.value for o in about if o.kind == "reward" and o.value is not None]
    back = [o.value for o in about if o.kind == "retraction"]
    whole = math.fsum(given)
    if not given or not back:
        return given
    parts = given + [-math.copysign(v, whole) for v in back if v is not None]
    return None if None in back or math.fsum(parts) * whole <= 0.0 else parts


def in_force(outcomes: Sequence[Outcome]) -> Iterator[Outcome]:
    """Outcomes in force: those reported in time, without those that another one voids, and without those that void."""
    voided = {o.voids for o in outcomes if o.voids and not o.late}
    return (o for o in outcomes if not (o.late or o.voids or o.id in voided))


def standing(outcomes: Sequence[Outcome]) -> Iterator[Outcome]:
    """Outcomes without those that were withdrawn, and without the rows that withdraw them."""
    gone = {o.voids for o in outcomes if o.withdrawal}
    return (o for o in outcomes if not (o.withdrawal or o.id in gone))


def is_final(stage: Stage, outcomes: Sequence[Outcome], *, deferred: bool = False) -> bool:
    """Whether the reward is known before the window ends: only where the app reports every outcome (`settle =
    "reward"`). The store then settles at once.
    """
    there = list(standing(outcomes))
    if stage.reward.settle != "reward" or not any(o.kind == "reward" for o in there):
        return False
    shown = stage.activation == "assumed" and not deferred
    return shown or any(o.kind == "activation" for o in there)
