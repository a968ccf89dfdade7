"""Run summary: sums of one run at one stage, by day and by persona, from which tables and figures are made.

Shapes: n decisions, k arms, Z personas, D days.
"""

from typing import Any, NamedTuple, Protocol, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from bandit.arrays import Array
from bandit.catalogue.model import Stage
from bandit.catalogue.net_value import ArmWorth

AGES = 24  # buckets of the delay curve, over the attribution window
T = TypeVar("T")
_SAMPLE = 2000  # propensities that are kept


class RunSummary(msgspec.Struct):
    """Sums of one run at one stage, holdout left out. Lists have D entries, unless said otherwise. Money is in the
    app's currency, rewards in their own units. Written as JSON for each cell of a study.
    """

    arms: list[str]  # k names
    personas: list[str]  # Z names
    decisions: list[int] = []
    regret: list[float] = []  # best eligible arm less the one shown, given what can be seen
    value: list[float] = []  # expected net value of what was shown, for these very people
    none: list[float] = []  # … of no nudge
    net: list[float] = []  # realised
    rewards: list[float] = []  # Σ reward, in its own units
    conversions: list[int] = []  # decisions with a reward
    nudged: list[int] = []  # decisions with a nudge
    fatigue: list[float] = []  # Σ F
    by_day: list[list[int]] = []  # (D, k) shown
    shown: list[list[int]] = []  # (Z, k)
    gain_by_persona: list[float] = []  # (Z,) Σ (value − none)
    rewards_by_persona: list[float] = []  # (Z,)
    ages: list[int] = []  # (AGES,) rewards by delay
    propensities: list[float] = []  # of the first decisions of each day
    excess: float = 0.0  # Σ (value − value given what can be seen): those who return are selected
    realised: float = 0.0  # Σ (net − value)
    variance: float = 0.0  # of that sum


class VisitSummary(NamedTuple):
    """The n decisions of a step at one stage, holdout left out. All are (n,) but `truth` (n, k); values and regret are
    in currency.
    """

    arm: NDArray[np.intp]  # number of what was shown
    persona: NDArray[np.intp]  # number of the persona
    truth: Array
    visible: Array  # value of what was shown, given what can be seen
    regret: Array
    reward: Array  # within the window, in its own units
    delay: Array  # seconds, NaN if never
    fatigue: Array  # F at the visit
    propensity: Array  # of what was shown


class SummarisedPeople(Protocol):
    """What a summary needs to know of the people at a stage: Z personas, their stage, and what rewards are worth."""

    @property
    def stage(self) -> Stage:
        """The stage as it is played."""
        ...

    @property
    def personas(self) -> tuple[str, ...]:
        """Names of the personas (Z,)."""
        ...

    @property
    def weights(self) -> Array:
        """Shares of the personas (Z,)."""
        ...

    @property
    def worth(self) -> ArmWorth:
        """Net worth of a reward by arm."""
        ...

    @property
    def amount(self) -> float:
        """What a reward is, in its own units."""
        ...


def empty_summary(people: SummarisedPeople) -> RunSummary:
    """The empty summary of a run at the stage of `people`, to be filled by `add_step`."""
    zs, k = len(people.weights), len(people.stage.arms)
    return RunSummary(
        arms=list(people.stage.arms),
        personas=list(people.personas),
        shown=[[0] * k] * zs,
        gain_by_persona=[0.0] * zs,
        rewards_by_persona=[0.0] * zs,
        ages=[0] * AGES,
    )


def add_step(t: RunSummary, people: SummarisedPeople, seen: VisitSummary, days: int) -> None:
    """Add a step of a run of `days` days to the summary, in place. Called by `runner.CellRun` once for each step."""
    k, zs, each = len(people.stage.arms), len(people.weights), np.arange(len(seen.arm))
    value, none = seen.truth[each, seen.arm], seen.truth[:, 0]
    net = people.worth.net(seen.reward, seen.arm)
    t.decisions.append(len(seen.arm))
    t.conversions.append(int((seen.reward > 0.0).sum()))
    t.nudged.append(int((seen.arm > 0).sum()))
    t.by_day.append(np.bincount(seen.arm, minlength=k).tolist())
    for into, values in (
        (t.regret, seen.regret),
        (t.value, value),
        (t.none, none),
        (t.net, net),
        (t.rewards, seen.reward),
        (t.fatigue, seen.fatigue),
    ):
        into.append(float(values.sum()))
    t.shown = _plus(t.shown, np.bincount(seen.persona * k + seen.arm, minlength=zs * k).reshape(zs, k))
    t.gain_by_persona = _plus(t.gain_by_persona, np.bincount(seen.persona, value - none, minlength=zs))
    t.rewards_by_persona = _plus(t.rewards_by_persona, np.bincount(seen.persona, seen.reward, minlength=zs))
    part = seen.delay[seen.reward > 0.0] / people.stage.reward.seconds * AGES
    t.ages = _plus(t.ages, np.bincount(np.minimum(part.astype(np.intp), AGES - 1), minlength=AGES))
    t.propensities += seen.propensity[: max(1, _SAMPLE // days)].tolist()
    worth = people.worth.gain[seen.arm] * people.amount
    chance = np.clip((value + people.worth.cost[seen.arm]) / worth, 0.0, 1.0)
    t.excess += float((value - seen.visible).sum())
    t.realised += float((net - value).sum())
    t.variance += float((chance * (1.0 - chance) * worth**2).sum())


def _plus(left: list[T], right: NDArray[Any]) -> list[T]:
    return list((np.array(left) + right).tolist())
