"""Paired comparison with no nudge: the money of each run less that of no nudge with the same seed.

Runs with one seed have the same people and the same random numbers (functions of seed, step and user), so their
difference is what the policy did. Totals of a whole run are compared, never decisions: nudges change who comes later,
and how tired.

Money is Σ `RunSummary.value` over days and stages: the expected net value, delays and costs included, of what was shown
to these very people at every visit outside the holdout. A policy's own price of a nudge is no cost and not in it.
Shapes: S seeds.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bandit.arrays import Array
from bandit.errors import InvalidRequest, Problem
from simulations.offline.runner import CellOutcome

BASELINE = "fixed:none"
"""The policy specification of no nudge."""


class PairedRuns(NamedTuple):
    """Runs of one policy and of no nudge in pairs, over S seeds. `users`: how many people each run has; `money` and
    `none` (S,): what the policy and no nudge earn in a run, in the app's currency.
    """

    policy: str
    seeds: tuple[int, ...]
    users: int
    money: Array  # (S,)
    none: Array  # (S,)

    @property
    def per_user(self) -> Array:
        """(S,) currency a user over no nudge in the whole run; below 0 where the policy harms."""
        return np.asarray((self.money - self.none) / self.users)

    @property
    def percent(self) -> Array:
        """(S,) the same in % of what no nudge earns with that seed; NaN where that is nothing."""
        return percent_of(self.money, self.none)


def percent_of(money: Array, none: Array) -> Array:
    """What `money` (S,) is over that of no nudge `none` (S,), in % of the latter; NaN where no nudge earns nothing."""
    nothing = np.full(none.shape, np.nan)
    return np.asarray(100.0 * np.divide(money - none, none, out=nothing, where=none > 0.0))


def money(done: CellOutcome) -> float:
    """Expected net value of all decisions of a run outside the holdout, all stages together, in the app's currency."""
    return math.fsum(math.fsum(summary.value) for summary in done.stages.values())


def paired(done: Sequence[CellOutcome]) -> list[PairedRuns]:
    """Pairs of each policy with no nudge, in the order in which the outcomes name them; no nudge itself is among them
    where it was run. The outcomes are of one scenario, with the same users and days, without a holdout.

    Raises InvalidRequest where the same seed was not run with no nudge.
    """
    none = {one.seed: one for one in done if one.label == BASELINE}
    found = []
    for label in dict.fromkeys(one.label for one in done):
        mine = [one for one in done if one.label == label]
        for one in mine:
            if one.seed not in none or (none[one.seed].users, none[one.seed].days) != (one.users, one.days):
                fix = "with as many users and days"
                raise InvalidRequest(Problem(f"seed {one.seed}", f"{label} was run, {BASELINE} was not", fix))
        earned, without = ([money(one) for one in runs] for runs in (mine, [none[one.seed] for one in mine]))
        seeds = tuple(one.seed for one in mine)
        found.append(PairedRuns(label, seeds, mine[0].users, np.array(earned), np.array(without)))
    return found
