"""Journey of a twin: what its other stages are, in short, and how people move between all of them."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from bandit.arrays import Ints, Mask
from simulations.scenario import FurtherStage, Scenario
from simulations.twin.app_log import DAY, AppLog
from simulations.twin.fit import Twin

_QUIET = 0.95  # of the gaps between visits are shorter than the silence after which somebody has left


class StageVisits(NamedTuple):
    """Decisions at all stages, in order of time; (n,) each. `stage`: number of the stage; `rewarded`: the reward came
    within the window.
    """

    user: Ints
    at: Ints
    stage: NDArray[np.intp]
    rewarded: Mask

    @staticmethod
    def of(logs: Sequence[tuple[int, AppLog]]) -> "StageVisits":
        """Decisions of several stages, each with its number, in order of time."""
        parts = [
            (log.user, log.at, np.full(len(log.arm), number), np.nan_to_num(log.reward) > 0.0) for number, log in logs
        ]
        user, at, stage, rewarded = (np.concatenate(column) for column in zip(*parts, strict=True))
        order = np.argsort(at, kind="stable")
        return StageVisits(user[order], at[order], stage[order], rewarded[order])


class StageMove(NamedTuple):
    """How people move on from a stage. `then`: the commonest next stage after a reward; `rests`: it comes later than a
    day. `otherwise`: stage → P(the next visit is there) after silence; the rest leaves.
    """

    then: str
    rests: bool
    otherwise: dict[str, float]


def moves(names: tuple[str, ...], seen: StageVisits) -> dict[str, StageMove]:
    """Moves from every stage. Who has not come again when the log ends counts as gone only if the silence is longer
    than 95 % of the gaps between visits. A stage that nobody left keeps its people.
    """
    rows = np.lexsort((seen.at, seen.user))
    user, at, stage, rewarded = (part[rows] for part in seen)
    again = np.r_[user[1:] == user[:-1], False] if len(user) else np.zeros(0, dtype=bool)
    follower = np.where(again, np.r_[stage[1:], 0], -1)
    gap = np.where(again, np.r_[at[1:], 0] - at, 0)
    quiet = float(np.quantile(gap[again], _QUIET)) if again.any() else 0.0
    gone = ~again & (at.max(initial=0) - at > quiet)
    found = {}
    for number, name in enumerate(names):
        here = stage == number
        onward = np.bincount(follower[here & again & rewarded], minlength=len(names))
        then = int(onward.argmax()) if onward.sum() else number
        rests = bool(np.median(gap[here & again & rewarded] / DAY) > 1.5) if onward.sum() else True
        counts = np.bincount(follower[here & again & ~rewarded], minlength=len(names)).astype(np.float64)
        total = counts.sum() + (here & gone & ~rewarded).sum()
        shares = np.floor(1e4 * counts / total) / 1e4 if total else counts
        otherwise = {names[i]: float(share) for i, share in enumerate(shares) if share}
        found[name] = StageMove(names[then], rests, otherwise if total else {name: 1.0})
    return found


def with_journey(rich: Twin, others: Mapping[str, Twin], found: Mapping[str, StageMove]) -> Twin:
    """Twin of a whole journey: the rich stage's, with every other stage in short, in the centre and in each draw."""

    def joined(scenario: Scenario, further: Mapping[str, Scenario]) -> Scenario:
        legs = {name: _leg(further.get(name), move) for name, move in found.items()}
        own = msgspec.structs.replace(legs[scenario.stage], amount=scenario.amount)
        return msgspec.structs.replace(scenario, journey=legs | {scenario.stage: own})

    draws = tuple(
        joined(one, {name: twin.draws[i] for name, twin in others.items()}) for i, one in enumerate(rich.draws)
    )
    return rich._replace(
        scenario=joined(rich.scenario, {name: twin.scenario for name, twin in others.items()}), draws=draws
    )


def _leg(fitted: Scenario | None, move: StageMove) -> FurtherStage:
    """A stage in short; without `fitted` it is the rich one."""
    if fitted is None:
        return FurtherStage(then=move.then, rests=move.rests, otherwise=move.otherwise)
    (persona,) = fitted.personas.values()
    hours = fitted.delay_hours
    return FurtherStage(
        base=fitted.base,
        effects={nudge: [effect] for nudge, effect in persona.effects.items()},
        base_slopes=fitted.base_slopes,
        slopes=fitted.slopes,
        contexts=fitted.contexts,
        delay_hours=round(sum(hours.values()) / len(hours), 5),
        proof=fitted.proof,
        amount=fitted.amount,
        then=move.then,
        rests=move.rests,
        otherwise=move.otherwise,
    )
