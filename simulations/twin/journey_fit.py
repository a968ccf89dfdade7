"""Journey of a twin: what its other stages are, in short, and how people move between all of them."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from bandit.arrays import Ints, Mask
from simulations.scenario import FurtherStage, Scenario
from simulations.twin import timing_model
from simulations.twin.app_log import DAY, WEEK_BEGAN, AppLog
from simulations.twin.fit import Twin
from simulations.twin.timing_model import VisitLaw

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
    day; `stays`: share of the rewarded who come again. `otherwise`: stage → P(the next visit is there) after silence;
    the rest leaves.
    """

    then: str
    rests: bool
    stays: float
    otherwise: dict[str, float]


class _Steps(NamedTuple):
    """Every decision, by user and time, with what followed it; (n,) each. `follower`: number of the next visit's stage,
    −1 if there is none; `gap`: µs until then. `gone`: the user has left. `first`: it is the user's first.
    """

    at: Ints
    stage: NDArray[np.intp]
    rewarded: Mask
    follower: NDArray[np.intp]
    gap: Ints
    gone: Mask
    first: Mask

    @staticmethod
    def of(seen: StageVisits) -> "_Steps":
        """Steps of these visits. Who has not come again when the log ends is gone if the silence is longer than 95 %
        of the gaps between visits.
        """
        rows = np.lexsort((seen.at, seen.user))
        user, at, stage, rewarded = seen.user[rows], seen.at[rows], seen.stage[rows], seen.rewarded[rows]
        again = np.r_[user[1:] == user[:-1], False] if len(user) else np.zeros(0, dtype=bool)
        follower = np.where(again, np.r_[stage[1:], 0], -1)
        gap = np.where(again, np.r_[at[1:], 0] - at, 0)
        quiet = float(np.quantile(gap[again], _QUIET)) if again.any() else 0.0
        gone = ~again & (at.max(initial=0) - at > quiet)
        return _Steps(at, stage, rewarded, follower, gap, gone, np.r_[True, ~again[:-1]][: len(user)])


def moves(names: tuple[str, ...], seen: StageVisits) -> dict[str, StageMove]:
    """Moves from every stage. A stage that nobody left keeps its people."""
    steps = _Steps.of(seen)
    again, found = steps.follower >= 0, dict[str, StageMove]()
    for number, name in enumerate(names):
        here = steps.stage == number
        pleased, silent = here & steps.rewarded, here & ~steps.rewarded
        onward = np.bincount(steps.follower[again & pleased], minlength=len(names))
        then = int(onward.argmax()) if onward.sum() else number
        rests = bool(np.median(steps.gap[again & pleased] / DAY) > 1.5) if onward.sum() else True
        known = onward.sum() + (steps.gone & pleased).sum()
        stays = round(float(onward.sum() / known), 4) if known else 1.0
        counts = np.bincount(steps.follower[again & silent], minlength=len(names)).astype(np.float64)
        total = counts.sum() + (steps.gone & silent).sum()
        shares = np.floor(1e4 * counts / total) / 1e4 if total else counts
        otherwise = {names[i]: float(share) for i, share in enumerate(shares) if share}
        found[name] = StageMove(names[then], rests, stays, otherwise if total else {name: 1.0})
    return found


def visits(names: tuple[str, ...], seen: StageVisits, found: Mapping[str, StageMove]) -> VisitLaw:
    """Law of the visits of a whole journey, to whatever stage. Who has left is not waited for: `found` has the share.
    Who comes on the day after a reward says nothing of the usual gap.
    """
    steps = _Steps.of(seen)
    monday = (steps.at.min(initial=WEEK_BEGAN) - WEEK_BEGAN) // (7 * DAY) * (7 * DAY) + WEEK_BEGAN
    day = (steps.at - monday) // DAY
    rests = np.array([found[name].rests for name in names])[steps.stage]
    usual = ~steps.rewarded | rests
    coming, waited = usual & (steps.follower >= 0), usual & (steps.follower < 0) & ~steps.gone
    gap = (steps.at + steps.gap - monday) // DAY - day
    return timing_model.visit_law(day, steps.first, gap[coming].astype(np.float64), day.max(initial=0) - day[waited])


def with_journey(
    rich: Twin, others: Mapping[str, Twin], found: Mapping[str, StageMove], law: VisitLaw, *, seed: int
) -> Twin:
    """Twin of a whole journey: the rich stage's, with every other stage in short and visits by `law`, in the centre and
    in each draw. `seed`: of the draws.
    """
    rng = np.random.default_rng([seed, 29])

    def joined(scenario: Scenario, further: Mapping[str, Scenario], drawn: np.random.Generator | None) -> Scenario:
        legs = {name: _leg(further.get(name), move) for name, move in found.items()}
        own = msgspec.structs.replace(legs[scenario.stage], amount=scenario.amount)
        return msgspec.structs.replace(
            scenario,
            journey=legs | {scenario.stage: own},
            visits=law.timing(scenario.visits.pull_forward, drawn),
            people_per_day=round(law.people_per_day if drawn is None else law.arrivals(drawn), 5),
        )

    draws = tuple(
        joined(one, {name: twin.draws[i] for name, twin in others.items()}, rng) for i, one in enumerate(rich.draws)
    )
    centre = joined(rich.scenario, {name: twin.scenario for name, twin in others.items()}, None)
    return rich._replace(scenario=centre, draws=draws)


def _leg(fitted: Scenario | None, move: StageMove) -> FurtherStage:
    """A stage in short; without `fitted` it is the rich one."""
    if fitted is None:
        return FurtherStage(then=move.then, rests=move.rests, stays=move.stays, otherwise=move.otherwise)
    (persona,) = fitted.personas.values()
    hours = fitted.delay_hours
    return FurtherStage(
        base=fitted.base,
        effects={nudge: [effect] for nudge, effect in persona.effects.items()},
        base_slopes=fitted.base_slopes,
        slopes=fitted.slopes,
        contexts=fitted.contexts,
        delay_hours=round(math.fsum(hours.values()) / len(hours), 5),
        proof=fitted.proof,
        amount=fitted.amount,
        then=move.then,
        rests=move.rests,
        stays=move.stays,
        otherwise=move.otherwise,
    )
