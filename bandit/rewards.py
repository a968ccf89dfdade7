"""From outcomes to one final reward. Order-free: any permutation of the same outcomes gives the same reward."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from bandit.catalogue import Stage
from bandit.records import Outcome, Why


class Verdict(NamedTuple):
    """The final reward in its own units, where it came from, and whether it is learned."""

    reward: float
    why: Why
    learned: bool


def settle(
    stage: Stage, outcomes: Sequence[Outcome], *, holdout: bool, current: bool = True, deferred: bool = False
) -> Verdict:
    """The reward of a matured decision: the rewards reported in time less partial retractions, clipped to the
    declared range; the default if nobody answered, or if all was taken back: piece by piece, or by a retraction without
    a value.
    What needs an activation (`deferred`, or by the stage's rule) and has none in time is not learned.
    What was decided under a schema that is not `current` any more says nothing to the present one.
    """
    spec = stage.reward
    in_time = [o for o in outcomes if not o.late]
    rewards = [o.value for o in in_time if o.kind == "reward" and o.value is not None]
    taken = [o.value for o in in_time if o.kind == "retraction"]
    if None in taken:
        reward, why = spec.default, "retraction"
    elif rewards:
        total = math.fsum([*rewards, *(-v for v in taken if v is not None)])  # one result, in any order
        reward, why = min(max(total, spec.min), spec.max), "reward"
        if taken and total == 0.0:  # taken back piece by piece
            reward, why = spec.default, "retraction"
    else:
        reward, why = spec.default, "silence"
    if holdout:
        return Verdict(reward, "holdout", learned=False)
    if (deferred or stage.activation == "required") and not any(o.kind == "activation" for o in in_time):
        return Verdict(reward, "not activated", learned=False)
    if not current:
        return Verdict(reward, "other schema", learned=False)
    return Verdict(reward, why, learned=True)  # type: ignore[arg-type]


def is_final(stage: Stage, outcomes: Sequence[Outcome], *, deferred: bool = False) -> bool:
    """Whether the reward is known before the window ends: only where the app reports every outcome."""
    if stage.reward.settle != "reward" or not any(o.kind == "reward" for o in outcomes):
        return False
    shown = stage.activation == "assumed" and not deferred
    return shown or any(o.kind == "activation" for o in outcomes)
